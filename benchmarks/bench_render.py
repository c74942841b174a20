"""Time and memory of drawing one image at several sizes, each in a process of its own.

python benchmarks/bench_render.py [--network=FILE] [--sizes=256,1024,4096] [--json=FILE]

peak_mib is what the process needed above what it held before drawing (imports and weights). Tiles and the whole are compared at 512x300 in
the window -0.5,-0.5,1.5,1.5.
"""

import json
import subprocess
import sys
import time
from pathlib import Path

import click
from bench_generator import build
from side_by_side import header, status_mib


def load(network):
    """(generator, w of seed 0) of a checkpoint, or of `inr` at 256 with random weights for None."""
    import torch

    from training.checkpoint import load_networks

    G = build('inr', 256, 'float32') if network is None else load_networks(network, only=('G_ema',))['G_ema']
    z = torch.randn([1, G.z_dim], generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return G, G.mapping(z, torch.zeros([1, G.c_dim]))


def measure(network, size):
    """Figures of one picture of size x size, drawn band by band and thrown away."""
    from inr import render

    G, ws = load(network)
    for _row, _band in render.bands(G, ws, 32, 32):  # loads the compiled code
        pass
    before = status_mib('VmRSS')
    Path('/proc/self/clear_refs').write_text('5')  # resets VmHWM: loading took more than it left
    start = time.perf_counter()
    for _row, _band in render.bands(G, ws, size, size):
        pass
    seconds = time.perf_counter() - start
    used = status_mib('VmHWM') - before
    return dict(case=f'render {size} float32 cpu', seconds=seconds, peak_mib=used, seconds_per_megapixel=seconds * 1e6 / size**2)


def tile_difference(network):
    """Largest difference between tiles and the whole over all refinements, in units of the image's [-1, 1]."""
    from inr import refinement, render

    G, ws = load(network)
    height, width, window, largest = 300, 512, (-0.5, -0.5, 1.5, 1.5), 0.0
    for refine in refinement.REFINEMENTS:
        whole = render.render(G, ws, height, width, window, refine)
        for top in range(0, height, 77):
            for left in range(0, width, 131):
                rows, cols = min(77, height - top), min(131, width - left)
                part = render.render(G, ws, height, width, window, refine, (top, left, rows, cols))
                largest = max(largest, (part - whole[:, :, top : top + rows, left : left + cols]).abs().max().item())
    return largest


@click.command()
@click.option('--network', help='Checkpoint of an inr generator; without it, inr at 256 with random weights.')
@click.option('--sizes', default='256,1024,4096', show_default=True)
@click.option('--json', 'json_file', help='Also write the figures here.')
@click.option('--one', type=int, hidden=True)
def main(network, sizes, json_file, one):
    """Print seconds and peak memory for each size, and how far tiles are from the whole."""
    if one:
        print(json.dumps(measure(network, one)))
        return
    header()
    rows = []
    for size in sizes.split(','):
        command = [sys.executable, __file__, *([f'--network={network}'] if network else []), f'--one={size}']
        rows.append(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
        row = rows[-1]
        print(f'{row["case"]:<26} {row["seconds"]:8.2f} s   {row["seconds_per_megapixel"]:6.2f} s/megapixel   {row["peak_mib"]:6.0f} MiB')
    print(f'tiles against the whole: largest difference {tile_difference(network):.1e}')
    if json_file:
        Path(json_file).write_text(json.dumps(rows, indent=1) + '\n')


if __name__ == '__main__':
    main()
