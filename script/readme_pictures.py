"""Draws the pictures of the README with the bundled model, by the commands that they show.

python script/readme_pictures.py [--seed=N] [--point=X,Y] [--walk=SEEDS]    # seed and aim of the zoom
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import click
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
MODEL = '--network=assets/emoji.safetensors', '--psi=0.6', '--psi-to=class'
PANEL = 192  # pixels a side of a panel of the strip


def run(*command):
    """One of the project's commands; it is shown first."""
    print('python', *command, flush=True)
    subprocess.run([sys.executable, *command], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)


def zoom(folder, seed, x, y):
    """Panels of the image at 64 pixels, enlarged as it is, and at 192, 576, 1536 and 4096 pixels, each the part around (x, y) that fits."""
    run('generate.py', *MODEL, f'--seeds={seed}', '--res=64', f'--outdir={folder}')
    panels = [Image.open(folder / f'seed{seed:04d}.png').resize([PANEL, PANEL], Image.Resampling.NEAREST)]
    for times in (1, 3, 8, 4096 / PANEL):
        x0, y0 = (min(max(p - 0.5 / times, 0), 1 - 1 / times) for p in (x, y))
        run('generate.py', *MODEL, f'--seeds={seed}', f'--res={PANEL}', f'--window={x0:g},{y0:g},{x0 + 1 / times:g},{y0 + 1 / times:g}',
            f'--outdir={folder}')
        panels.append(Image.open(folder / f'seed{seed:04d}.png').convert('RGB').copy())
    strip = Image.new('RGB', [len(panels) * (PANEL + 4) - 4, PANEL], 'white')
    for i, panel in enumerate(panels):
        strip.paste(panel, [i * (PANEL + 4), 0])
    strip.save(ROOT / 'docs' / 'zoom.png')


@click.command()
@click.option('--seed', default=0)
@click.option('--point', default='0.4,0.4', help='X,Y in units of the image.')
@click.option('--walk', default='0-5', help='Seeds of the walk.')
def main(seed, point, walk):
    """Writes docs/grid.webp, docs/zoom.png and docs/walk.webp."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        run('generate.py', *MODEL, '--seeds=0-71', '--res=128', '--grid', f'--outdir={folder}')
        Image.open(folder / 'grid.png').convert('RGB').save(ROOT / 'docs' / 'grid.webp', quality=88)
        zoom(folder, seed, *map(float, point.split(',')))
    run('walk.py', *MODEL, f'--seeds={walk}', '--res=128', '--out=docs/walk.webp')


if __name__ == '__main__':
    main()
