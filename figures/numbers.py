"""Figures that count and measure: frequencies, work, strengths of noise."""

import math

import click

from dnnlib import cli
from dnnlib.util import UserError
from figures.context import axes, built, figure, measured, presets, unbuilt


@figure(seeds='0-127')
def frequencies(context):
    """Frequencies of the Fourier embeddings, block by block, in cycles per image (Fig. 16). For generator B: of its bases."""
    import numpy as np
    import torch

    context.need_inr('frequencies')
    from inr.analysis.frequencies import row_frequencies

    try:
        found = row_frequencies(context.G, torch.cat([context.ws(seed) for seed in context.seeds]))
    except ValueError as error:
        raise UserError(f'frequencies: {error}') from None
    numbers = {block: {source: values.cpu().numpy() for source, values in sources.items()} for block, sources in found.items()}
    drawn, plot = axes(f'Fourier rows of {len(context.seeds)} images: {context.name}', 'cycles per image', 'share of rows')
    highest = max(values.max() for sources in numbers.values() for values in sources.values())
    bins = np.linspace(0, float(np.ceil(highest * 1.01 + 1e-9)), 61)
    for block, sources in numbers.items():
        values = np.concatenate(list(sources.values()))
        plot.hist(values, bins=bins, weights=np.full(len(values), 1 / len(values)), alpha=0.5, label=f'{block} ({", ".join(sources)})')
    plot.legend()
    quantiles = [0, 0.1, 0.5, 0.9, 1]
    context.write('frequencies', drawn, {'unit': 'cycles per image', 'blocks': {
        block: {source: {'rows': len(v), 'mean': float(v.mean()), 'quantiles 0 10 50 90 100%': np.quantile(v, quantiles).tolist()}
                for source, v in sources.items()} for block, sources in numbers.items()}})


@figure(seeds='0')
@click.option('--against', type=cli.PresetName(presets), help='StyleGAN2 to compare with.  [default: of the same size]')
@click.option('--seconds/--no-seconds', default=True, help='Also measure on this machine what takes at most 30 GMAC.')
def macs(context, against, seconds):
    """Multiply-accumulates against the size that is drawn, beside StyleGAN2, which draws its own size and resizes (Fig. 17)."""
    import torch

    from inference.painter import draws_by_points
    from torch_utils.misc import count_macs, size_of
    from training import config

    cfg = context.cfg or context.meta['cfg']
    against = against or ('stylegan2-tiny' if cfg.endswith('-tiny') else 'stylegan2')
    G = unbuilt(context.settings) if context.cfg else context.G
    R = G.img_resolution
    if len(set(size_of(G))) > 1:
        raise UserError('macs compares networks that draw squares, this one draws {}x{}: give a preset with --cfg'.format(*size_of(G)))
    data = config.DataConfig('none.zip', '', R, G.img_channels, 1, G.c_dim, None, False, None)
    width = context.settings.run.width if context.cfg else context.meta['recipe']['run'].get('width', 1)
    other_settings = config.build(against, presets()[against], data, width=width)  # as wide a rival as the network is
    other = unbuilt(other_settings)

    def work(network, size):
        if draws_by_points(network):
            from inr.analysis.zoom import drawing_macs

            return drawing_macs(network, size, count_macs)
        device = next(network.parameters()).device
        z, c = (torch.zeros([1, size], device=device) for size in (network.z_dim, network.c_dim))
        return count_macs(lambda: network.synthesis(network.mapping(z, c)))

    rows = []
    models = {against: (other, lambda: built(other_settings).to(context.device)), cfg: (G, lambda: context.G)}  # a StyleGAN2 stands alone
    for model, (network, real) in models.items():
        for size in [2**k for k in range(4, int(math.log2(R)) + 2)]:
            macs = work(network, size)
            taken = measured(context, real(), size) if seconds and macs <= 30e9 else None
            rows.append({'model': model, 'res': size, 'gmacs': macs / 1e9, 'seconds': taken})
    drawn, plot = axes(f'Work of one picture, trained at {R}x{R}', 'pixels a side', 'GMAC')
    for model in models:
        of_model = [row for row in rows if row['model'] == model]
        plot.plot([row['res'] for row in of_model], [row['gmacs'] for row in of_model], marker='o', label=model)
    plot.set_xscale('log', base=2)
    plot.set_yscale('log')
    plot.axvline(R, color='grey', linestyle=':')
    plot.grid(True, which='both', alpha=0.3)
    plot.legend()
    context.write('macs', drawn, rows)


@figure(seeds='0')
def noise(context):
    """Learned strengths of spatial noise, layer by layer: the paper finds that an INR learns to leave it out."""
    strengths = {name.removeprefix('synthesis.').replace('.noise.noise_strength', '').replace('.noise_strength', ''): float(value)
                 for name, value in context.G.named_parameters() if name.endswith('noise_strength')}
    if not strengths:
        raise UserError('noise: this network was trained without spatial noise, so there are no strengths to show: give one with '
                        '--network that was trained with train.py --noise')
    drawn, plot = axes(f'Strength of spatial noise: {context.name}', '', '|strength|')
    plot.bar(list(strengths), [abs(value) for value in strengths.values()])
    plot.tick_params(axis='x', rotation=90)
    context.write('noise', drawn, {'strengths': strengths})
