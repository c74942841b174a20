"""Draws docs/scores.webp, scores over images seen, from docs/scores.json: python script/plot_scores.py

Each entry of it is a run: what made it, the commit, and points (images seen, kernel distance x 1000, swd or null) of docs/results.md.
"""

import io
import json
from pathlib import Path

from matplotlib.figure import Figure
from PIL import Image

DOCS = Path(__file__).parents[1] / 'docs'
SCORES = 'kernel distance x 1000', 'sliced Wasserstein distance'


def figure(runs):
    """A matplotlib figure with a panel for each score."""
    made = Figure(figsize=(10, 4.2), layout='constrained')
    for column, (axes, name) in enumerate(zip(made.subplots(1, 2), SCORES, strict=True), 1):
        for run in runs:
            known = [(point[0] / 1000, point[column]) for point in run['points'] if point[column] is not None]
            axes.plot(*(zip(*known, strict=True) if known else ((), ())), marker='o', label=run['run'])
        axes.set(xlabel='thousands of images', ylabel=name, ylim=(0, None))
        axes.grid(alpha=0.3)
    made.axes[0].legend(fontsize=7)
    return made


def main():
    drawn = io.BytesIO()
    figure(json.loads((DOCS / 'scores.json').read_text())).savefig(drawn, format='png', dpi=100)
    Image.open(drawn).convert('RGB').save(DOCS / 'scores.webp', lossless=True)


if __name__ == '__main__':
    main()
