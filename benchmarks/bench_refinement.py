"""Which refinement draws larger pictures best? Two measures of a trained checkpoint, for each way of inr.refinement.REFINEMENTS:

return     PSNR in dB of a picture 4x as large, averaged down, against the picture of the trained size (how well it stays the same picture)
steepness  mean step between neighbouring pixels of the 4x picture in the steepest half of a cell of the next coarser grid, over that in
           the other half (1: cells do not show)

python benchmarks/bench_refinement.py --network=FILE --num=16 [--json=FILE]
"""

import json
import platform
import subprocess
import sys
from pathlib import Path

import click

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

FACTOR = 4


def measure(G, ws, refine):
    """(PSNR in dB, steepness) of the images of ws [N, num_ws, w_dim] in one refinement."""
    import torch
    from torch.nn import functional as F

    from inr import render

    res = G.img_resolution
    trained = render.render(G, ws, res, res).clamp(-1, 1)
    large = render.render(G, ws, res * FACTOR, res * FACTOR, refine=refine).clamp(-1, 1)
    error = (F.avg_pool2d(large, FACTOR) - trained).square().mean(dim=(1, 2, 3))
    psnr = (10 * torch.log10(4 / error)).mean().item()
    grids = G.synthesis.pyramid.sizes
    cell = FACTOR * res // (grids[-2] if len(grids) > 1 else grids[-1])  # pixels of the 4x picture in a cell of the next coarser grid
    steps = (large[..., 1:] - large[..., :-1]).abs().mean(dim=(0, 1, 2))
    profile = torch.stack([steps[phase::cell].mean() for phase in range(cell)])  # by place in the cell
    halves = torch.stack([profile.roll(turn)[: cell // 2].sum() for turn in range(cell)])
    return psnr, (halves.max() / (profile.sum() - halves.max())).item()


@click.command()
@click.option('--network', required=True, help='Checkpoint of an inr generator.')
@click.option('--num', default=16, show_default=True, help='Images, seeds 0 to num - 1.')
@click.option('--json', 'json_file', help='Also write the figures here.')
def main(network, num, json_file):
    """Print both measures for each refinement."""
    import numpy as np
    import torch

    from inr.refinement import REFINEMENTS
    from training.checkpoint import load_networks

    G = load_networks(network, only=('G_ema',))['G_ema']
    z = torch.from_numpy(np.stack([np.random.RandomState(seed).randn(G.z_dim) for seed in range(num)]))
    c = torch.eye(G.c_dim)[torch.arange(num) % G.c_dim] if G.c_dim else None
    with torch.no_grad():
        ws = G.mapping(z, c)
    commit = subprocess.run(['git', 'describe', '--always', '--dirty'], capture_output=True, text=True).stdout.strip()
    print(f'{platform.machine()}, torch {torch.__version__}, commit {commit}, {network}, trained at {G.img_resolution}, {num} images')
    rows = []
    for refine in REFINEMENTS:
        psnr, steepness = measure(G, ws, refine)
        rows.append(dict(refine=refine, psnr_db=round(psnr, 2), steepness=round(steepness, 3)))
        print(f'{refine:<8} return {psnr:6.2f} dB   steepness {steepness:6.3f}')
    if json_file:
        Path(json_file).write_text(json.dumps(rows, indent=1) + '\n')


if __name__ == '__main__':
    main()
