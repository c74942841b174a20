"""The paper's figures, drawn from a trained network: a picture NAME.png and its numbers NAME.json for each."""

import click

from dnnlib import cli
from figures import classes, directions, nearest, numbers, pictures


@click.group(context_settings={'max_content_width': 120})
def main():
    """Figures of the paper: numbers and pictures out of a generator.

    \b
    python analyze.py zoom --seeds=0-3
    python analyze.py macs --cfg=paper --res=1024
    """


for command in (numbers.frequencies, numbers.macs, numbers.noise, pictures.zoom, pictures.superres, pictures.interpolate,
                pictures.truncation, pictures.mix, pictures.artifacts, pictures.geometry, directions.directions, nearest.nearest,
                classes.classes):
    main.add_command(command)

if __name__ == '__main__':
    cli.run(main)
