"""Time and memory of drawing one image at several sizes, each in a process of its own.

python benchmarks/bench_render.py [--network=FILE | --preset=paper --res=1024] [--sizes=256,1024,4096] [--json=FILE]

The baseline is the trained size: a ratio of 8 at 64x64 is a preview in an eighth of its time. peak_mib is what the process needed above
what it held before drawing (imports and weights). rel_err is how far tiles are from the whole at 300x512, window -0.5,-0.5,1.5,1.5.
"""

import json
import statistics
import subprocess
import sys
from pathlib import Path

import click
from bench_generator import build
from side_by_side import header, line, peak_mib, seconds_of, set_up, write


def load(network, preset, res, device):
    """(generator, w of seed 0) of a checkpoint, or of a preset with random weights for None."""
    import torch

    from training.checkpoint import load_networks

    G = build(preset, res, 'float32') if network is None else load_networks(network, only=('G_ema',))['G_ema']
    z = torch.randn([1, G.z_dim], generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return G.to(device), G.mapping(z.to(device), torch.zeros([1, G.c_dim], device=device))


def measure(G, ws, size):
    """Figures of one picture of size x size and of the trained size, in turn, drawn band by band and thrown away."""
    from inr import render

    def draw(side):
        for _row, _band in render.bands(G, ws, side, side):
            pass

    draw(32)  # loads the compiled code
    seconds = {size: [], G.img_resolution: []}

    def timed(side):
        seconds[side].append(seconds_of(lambda: draw(side)))

    peak = peak_mib(lambda: timed(size))
    for _ in range(5 if size <= 1024 else 0):
        timed(G.img_resolution)
        timed(size)
    timed(G.img_resolution)
    fast_s, baseline_s = (statistics.median(seconds[side]) for side in (size, G.img_resolution))
    return dict(baseline_s=baseline_s, fast_s=fast_s, ratio=baseline_s / fast_s, peak_mib=peak)


def tile_difference(G, ws):
    """Largest relative difference between tiles and the whole over all refinements."""
    from inr import refinement, render

    height, width, window, largest = 300, 512, (-0.5, -0.5, 1.5, 1.5), 0.0
    for refine in refinement.REFINEMENTS:
        whole = render.render(G, ws, height, width, window, refine)
        for top in range(0, height, 77):
            for left in range(0, width, 131):
                rows, cols = min(77, height - top), min(131, width - left)
                part = render.render(G, ws, height, width, window, refine, (top, left, rows, cols))
                expected = whole[:, :, top : top + rows, left : left + cols]
                largest = max(largest, ((part - expected).norm() / expected.norm()).item())
    return largest


@click.command()
@click.option('--network', help='Checkpoint of an inr generator.')
@click.option('--preset', default='inr', show_default=True, help='Without a checkpoint: of inr/presets.py, with random weights.')
@click.option('--res', default=256, show_default=True, help='Its trained size.')
@click.option('--sizes', default='256,1024,4096', show_default=True, help='256 to 16384 and beyond.')
@click.option('--device', default='cpu', show_default=True)
@click.option('--json', 'json_file', help='Also write the figures here.')
@click.option('--one', type=int, hidden=True)
@click.option('--tiles', is_flag=True, hidden=True)
def main(network, preset, res, sizes, device, json_file, one, tiles):
    """Print seconds and peak memory for each size, and how far tiles are from the whole."""
    if one or tiles:
        set_up(device)
        G, ws = load(network, preset, res, device)
        print(json.dumps(tile_difference(G, ws) if tiles else measure(G, ws, one)))
        return
    header(device)
    given = [f'--device={device}', f'--network={network}'] if network else [f'--device={device}', f'--preset={preset}', f'--res={res}']

    def alone(option):
        done = subprocess.run([sys.executable, __file__, *given, option], check=True, stdout=subprocess.PIPE, text=True)
        return json.loads(done.stdout)

    error, figures, what = alone('--tiles'), [], Path(network).stem if network else f'{preset} {res}'
    for size in map(int, sizes.split(',')):
        figures.append(dict(case=f'{what} render {size} float32 {device}', rel_err=error, **alone(f'--one={size}')))
        seconds, peak, megapixels = figures[-1]['fast_s'], figures[-1]['peak_mib'], size**2 / 1e6
        memory = '' if peak is None else f' and {peak / megapixels:.1f} MiB'
        print(line(figures[-1], f'{seconds / megapixels:6.2f} s{memory} a megapixel'), flush=True)
    print(f'tiles against the whole: relative error {error:.1e} at most')
    write(figures, json_file)


if __name__ == '__main__':
    main()
