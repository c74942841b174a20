"""Puts what a run drew before its first step, what it drew last and pictures that it learned from side by side.

python script/before_after.py training-runs before-after.png    # of the newest run below a folder, or of a run folder
"""

import sys
from pathlib import Path

import click
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from dnnlib import cli  # noqa: E402
from dnnlib.util import UserError, atomic_path  # noqa: E402
from training import run_folder  # noqa: E402

PANEL, GAP = 384, 16  # pixels of each sheet's left side, less where columns end, or one column; pixels between two
COLUMN = 64           # pictures of half this width or less are enlarged, by whole factors


def panels(run: Path) -> list[Path]:
    """Pictures of a run folder: before it, the last ones, real ones. Raises UserError where one is missing."""
    found = [run / 'fakes_init.png', *sorted(run.glob('fakes[0-9]*.png'))[-1:], run / 'reals.png']
    if len(found) < 3 or not all(path.exists() for path in found):
        raise UserError(f'{run}: it has drawn no pictures yet')
    return found


@click.command()
@click.argument('run', type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument('out', type=click.Path(dir_okay=False, path_type=Path))
def main(run, out):
    """Writes OUT from the pictures of RUN, a run folder or a folder of these, of which the newest is taken."""
    if not run_folder.is_run(run):
        snapshot = run_folder.find_latest_snapshot(run)
        if snapshot is None:
            raise UserError(f'{run}: no run in it')
        run = snapshot.parent
    shown = []
    for path in panels(run):
        with Image.open(path) as image:
            shown.append(image.convert('RGB'))
    column = run_folder.stored_config(run).data.sides[0]
    times = max(COLUMN // column, 1)
    width = min(max(PANEL // (times * column), 1) * column, min(image.width for image in shown))
    shown = [image.crop([0, 0, width, image.height]) for image in shown]
    shown = [image.resize([side * times for side in image.size], Image.Resampling.NEAREST) for image in shown]
    width *= times
    sheet = Image.new('RGB', [3 * width + 2 * GAP, shown[0].height], 'white')
    for i, image in enumerate(shown):
        sheet.paste(image, [i * (width + GAP), 0])
    out.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(out) as temporary:
        sheet.save(temporary, format='PNG')
    print(f'{out}  before, after and real')


if __name__ == '__main__':
    cli.run(main)
