"""Drawing the trained size: the fast path against the generator written as the public implementations are (public_style.py).

python benchmarks/bench_generator.py [--all] [--device=cuda] [--json=FILE]

Each case has a process of its own; one that fails, for want of memory say, is left out, and the exit code is 1. The last line of a float32
case compares with the library's matrix products alone, on the shapes that the fast path multiplies: a ratio of 1 would be a draw that costs
no more than they do. On a GPU it has the memory of the public way.
"""

import multiprocessing
import statistics
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

import click
import public_style
from side_by_side import compare, header, line, parse_case, peak_mib, set_up, write

DEFAULT = [('inr', 256, 1, 'float32'), ('inr', 256, 1, 'bfloat16'), ('inr', 256, 8, 'float32'), ('inr-bil', 256, 1, 'float32'),
           ('paper', 256, 1, 'float32'), ('cips', 256, 1, 'float32'), ('stylegan2', 256, 1, 'float32')]  # fmt: skip
PRESETS, DTYPES = ('inr', 'inr-bil', 'paper', 'cips', 'stylegan2'), ('float32', 'bfloat16')
ALL = [(preset, res, batch, dtype) for preset in PRESETS for res in (256, 1024)
       for batch in (1, 8, 50) for dtype in DTYPES]  # fmt: skip


def build(preset, res, dtype):
    """Generator of a preset with random weights."""
    import torch

    from dnnlib.util import construct_class_by_name
    from inr import presets
    from training import presets as host

    row = (host.PRESETS | presets.PRESETS)[preset]
    half = dict(num_fp16_res=9, half_dtype='bfloat16') if dtype == 'bfloat16' else {}
    torch.manual_seed(0)
    return construct_class_by_name(
        class_name=row['G'], z_dim=row['z_dim'], c_dim=0, w_dim=row['w_dim'], img_resolution=res, img_channels=3,
        mapping_kwargs=dict(num_layers=row['mapping_layers']), synthesis_kwargs=dict(row['synthesis'], **half),
    ).eval().requires_grad_(False)  # fmt: skip


def plain_draw(G, ws):
    """The image, computed as the public implementations do."""
    with public_style.computed_plainly(G):
        return G.synthesis(ws, noise_mode='const')


def products(G):
    """The matrix products of one draw, W_x x at the points where it is taken and W_e e, as functions of torch.mm on ready operands."""
    import torch

    runs = []
    for name in G.synthesis.block_names:
        block = getattr(G.synthesis, name)
        points = block.spec.grid**2
        E = 0 if block.coords is None else block.coords.num_features
        upsamples = getattr(block.spec, 'upsamples', block.spec.in_channels > 0)
        below = block.spec.in_channels
        for index in range(block.spec.layers):
            C = block.spec.channels
            uses_coords = index == 0 if hasattr(block, 'options') else True
            if below:
                at = points // 4 if index == 0 and upsamples else points
                runs.append((torch.randn(C, below), torch.randn(below, at)))
            if E and uses_coords:
                runs.append((torch.randn(C, E), torch.randn(E, points)))
            below = C
    return runs


def product_seconds(G, repeats=5):
    """Seconds the library takes for them."""
    import torch

    runs, seconds = products(G), []
    for _ in range(repeats):
        start = time.perf_counter()
        for a, b in runs:
            torch.mm(a, b)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds), sum(2 * a.shape[0] * a.shape[1] * b.shape[1] for a, b in runs)


def measure(preset, res, batch, dtype, device, repeats):
    """The figures of a case: a list of one or two."""
    import torch

    set_up(device)
    G, plain = build(preset, res, dtype).to(device), build(preset, res, 'float32').to(device)
    ws = torch.randn([batch, G.num_ws, G.w_dim], generator=torch.Generator().manual_seed(1)).to(device)
    case = f'{preset} {res} batch {batch} {dtype} {device}'
    with torch.no_grad():
        figures = [compare(case, lambda: plain_draw(plain, ws), lambda: G.synthesis(ws, noise_mode='const'), repeats)]
        seconds, fast_s = figures[0]['baseline_s'], figures[0]['fast_s']
        if dtype != 'float32':
            a, b = plain_draw(plain, ws), G.synthesis(ws, noise_mode='const')
            span = (a.max() - a.min()).square()
            print(f'{"":<48} PSNR to float32 {10 * torch.log10(span / (a - b).square().mean()).item():.1f} dB', flush=True)
        if device != 'cpu':
            peak = peak_mib(lambda: plain_draw(plain, ws))
            figures.append(dict(figures[0], case=f'{case}, memory of the public way', peak_mib=peak))
            print(line(figures[1], f'{peak:.0f} MiB'), flush=True)
        elif dtype == 'float32' and batch == 1 and hasattr(G.synthesis, 'pyramid'):
            seconds, flops = product_seconds(G)
            figures.append(dict(figures[0], case=f'{case} products alone', baseline_s=seconds, ratio=seconds / fast_s))
            print(line(figures[1], f'{flops / seconds / 1e9:.0f} GFLOP/s'), flush=True)
    return figures


@click.command()
@click.option('--all', 'everything', is_flag=True, help='All presets, sizes, batches and types; hours on a small machine.')
@click.option('--case', 'cases', multiple=True, help='preset,res,batch,dtype in place of the default ones; may be repeated.')
@click.option('--device', default='cpu', show_default=True)
@click.option('--repeats', default=7, show_default=True)
@click.option('--json', 'json_file', help='Also write the figures here.')
def main(everything, cases, device, repeats, json_file):
    """Print seconds of both, their ratio, the relative error and the peak memory of the fast one."""
    header(device)
    chosen = [parse_case(case, preset=PRESETS, res=int, batch=int, dtype=DTYPES) for case in cases] or (ALL if everything else DEFAULT)
    figures, failed = [], 0
    for case in chosen:
        with ProcessPoolExecutor(1, multiprocessing.get_context('spawn')) as alone:  # memory one case leaves behind speeds up the next
            try:
                figures += alone.submit(measure, *case, device, repeats).result()
            except (BrokenProcessPool, RuntimeError) as why:
                failed += 1
                print(f'{" ".join(map(str, case))}: not measured: {str(why).splitlines()[0]}', flush=True)
        write(figures, json_file)
    sys.exit(1 if failed else 0)


if __name__ == '__main__':
    main()
