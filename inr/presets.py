"""Recipes whose generator is an INR, a row each, and the options of inr, a row each. The host's training/presets.py and
training/plugins.py explain their form. Needs no torch."""

from inr import PERIODIC
from inr.decoders import DECODERS, FMM


def rank(text):
    """--fmm-rank from its text: a whole number from 1 on, or the word 'full'."""
    if text == 'full':
        return text
    if not (text.isascii() and text.isdigit() and len(text) < 10 and int(text) > 0):
        raise ValueError(f'{text!r} is not a rank: write a whole number from 1 on, or full')
    return int(text)


def _rank_unused(synthesis):
    decoder = synthesis.get('decoder')
    return f'--decoder={decoder} has no FMM, fmm and multiscale have' if decoder and DECODERS[decoder].weights != FMM else None


OPTIONS = {
    'decoder': dict(type=tuple(DECODERS), help="Rung of the paper's Table 4, for --cfg=paper."),
    'fmm_rank': dict(type=rank, metavar='N|full', help='Rank of FMM; 1 is squeeze-and-excitation, full a hypernetwork.',
                     unused=_rank_unused),
    'squash': dict(type=('demod', 'tanh', 'sigmoid'), help="FMM's squash, for --cfg=inr.",
                   unused=lambda synthesis: 'it has no FMM, --fmm-rank=N gives it one' if synthesis['fmm_rank'] is None else None),
    'noise': dict(type=bool, help='Spatial noise, for --cfg=inr.'),
    'coord_skips': dict(type=bool, help='Coordinates for every layer of a block, or for its first alone.'),
    'periodic': dict(type=PERIODIC, help='Axes along which pictures go on at their beginning: x closes a panorama, xy '
                     'makes a texture that tiles.'),
    'equalized_lr': dict(type=bool, help='Equalized learning rates in G.'),
    'pixel_norm': dict(type=bool, help='Scale z to mean square 1.'),
}

_INR = dict(
    summary='INR-GAN: FMM decoder on the StyleGAN2 mapping network',
    source="paper, appendix A ('additional ablations'), and the authors' public configuration on 4 GPUs; FFHQ 256: FID 9.57 (paper)",
    cost='256: 25,000 kimg at 11 GMAC an image in G alone, days on a data-centre GPU; a CPU can look, not finish',
    G='inr.generator.Generator', z_dim=512, w_dim=512, mapping_layers=2,
    synthesis=dict(fmm_rank=10, squash='demod', noise=False, coord_skips=False, equalized_lr=True, pixel_norm=True,
                   periodic='none'),
    g_channel_base=32768, g_channel_max=512, g_fp16_res=0,
    d_channel_base=32768, d_channel_max=512, d_fp16_res=4, conv_clamp=256, mbstd_group=4,
    batch={16: 64, 512: 32, 1024: 16}, g_lr={16: 0.0025, 1024: 0.002}, d_lr={16: 0.0025, 1024: 0.002}, betas=(0, 0.99), eps=1e-8,
    gamma=10, r1_interval=16, pl_weight=0, g_reg_interval=4, style_mixing=0,
    ema_kimg='auto', ema_rampup=0.05, kimg=25000, mirror=True,
)
_LOW = dict(random=96, raw=True, scale=4.0)  # coordinate features without speckle or lattice, see docs/decisions.md
_TINY = dict(
    z_dim=128, g_fp16_res=0, d_channel_base=1024, d_channel_max=128, d_fp16_res=0, conv_clamp=None, mbstd_group=4,
    batch=16, d_lr=0.004, eps=1e-8, pl_weight=0, g_reg_interval=1, style_mixing=0, kimg=1000, mirror=True,
)

_INR_TINY = dict(
    _TINY,
    summary='inr small enough to watch it learn on a CPU',
    source='own, chosen by runs on the demo set; see docs/decisions.md',
    cost='32 or 64 pixels: minutes on two cores until coloured shapes form',
    G='inr.generator.Generator', w_dim=128, mapping_layers=2,
    synthesis=dict(_INR['synthesis'], input_features=_LOW, features=dict(_LOW, random=32)),
    g_channel_base=2048, g_channel_max=64, g_lr=0.004, betas=(0, 0.99), gamma=1, r1_interval=16, ema_kimg='auto', ema_rampup=0.05,
)


def _grow(*kimg, smallest=16):
    """What --grow is at `smallest`, twice it, ... 1024 pixels, from the kimg that a run lasts at each of these sizes on its way up."""
    stages = [f'{smallest << k}:{length}' for k, length in enumerate(kimg)]
    return {16: ''} | {smallest << k: ','.join(stages[:k]) for k in range(len(stages) + 1)}


_INR_SMALL = dict(
    _INR_TINY,
    summary="for one's own pictures on a small machine: grown from 32 pixels, linear reads, D judges pretrained features too",
    source='own, chosen by runs on emoji; docs/results.md has each change alone',
    cost='64 pixels: 45 minutes of one core until people and faces can be told apart',
    synthesis=dict(_INR_TINY['synthesis'], upsampling='linear', fmm_spread=0.3), gamma=5, d_features='efficientnet-lite1',
    class_groups=True, grow=_grow(30, 60, 75, 75, 75, smallest=32),
)


PRESETS = {
    'inr': _INR,
    'inr-baseline': dict(
        _INR,
        summary='the StyleGAN2 that the authors compare inr with: its recipe, with noise, path length and style mixing',
        source="the authors' public configuration on 4 GPUs; FFHQ 256: FID 3.83 (paper)",
        cost='256: 25,000 kimg at 45 GMAC an image in G alone, days on a data-centre GPU (not measured)',
        G='training.networks.Generator', synthesis={}, pl_weight=2, style_mixing=0.9,
    ),
    'inr-bil': dict(
        _INR,
        summary='inr with bilinear upsampling and normalized deviations: better scores, pixels no longer independent of each other',
        source="the authors' public runs; FFHQ 256: FID 4.95 (paper)",
        synthesis=dict(_INR['synthesis'], upsampling='bilinear', instance_norm=True),
    ),
    'cips': dict(
        _INR,
        summary="CIPS as the paper's nearest competitor: every layer at full resolution, plain modulation, no FMM",
        source="its description among the authors' public configurations, with the recipe of inr; FFHQ 256: FID 4.38 (paper)",
        cost='256: 25,000 kimg at several times the work of inr for each image',
        synthesis=dict(
            _INR['synthesis'], fmm_rank=None, input_resolution='full', extra_layers={},
            input_features=dict(learned=256, constants=256, cosine=False, scale=3.0, init='uniform'),
        ),
    ),
    'inr-tiny': _INR_TINY,
    'inr-small': _INR_SMALL,
    'inr-medium': dict(
        _INR_SMALL,
        summary='inr-small with 1.5 times the channels in G and features of pictures twice as large: goes on where that learns no more',
        source='own; docs/results.md. --init-from takes a snapshot of inr-small, and the first picture is as that draws it',
        cost='as inr-small, at 0.6 times the images a second',
        g_channel_base=3072, g_channel_max=96, d_features_scale=2.0,
    ),
    'inr-any': dict(
        _INR_SMALL,
        summary='inr-small that knows how large a pixel is: for --windows of pictures as they are, and for drawing at any size',
        source='own; rows fade where a pixel is too large for them (arXiv 2103.13415), pixels of all sizes are sampled at their middles',
        cost='as inr-small',
        synthesis=dict(
            _INR_SMALL['synthesis'], middles=True, input_features=dict(_LOW, footprint='pixel'),
            features=dict(_LOW, random=32, fine=32, footprint='pixel', damped=True),
        ),
    ),
    'inr-grow': dict(
        _INR,
        summary="inr-small at full width, for one's own pictures on a GPU: grown from 32 pixels, D judges pretrained features too",
        source="own: what helped inr-small, with the rates of the authors' public runs; prepared, not run",
        cost='256: most of the images at a quarter to a hundredth of the work of inr; hours to days on a data-centre GPU (not measured)',
        synthesis=dict(
            _INR['synthesis'], upsampling='linear', fmm_spread=0.3, input_features=_LOW,
            features={64: dict(_LOW, random=32)} | {size: dict(log=32, random=32, raw=True) for size in (128, 256, 512, 1024)},
        ),
        d_features='efficientnet-lite1', class_groups=True, grow=_grow(1000, 1600, 2400, 3200, 4000, smallest=32), fade=100,
    ),
    'paper': dict(
        summary='generator A of the main experiments: a hypernetwork writes the whole INR; --decoder takes the rungs below it',
        source="paper, appendix A; R1 is gamma/2 |grad|^2 with gamma 10 (the authors' code has no 1/2 there, which is --gamma=20, "
               'and 5e-5 for the trunk); Bedroom 256: FID 6.27, FFHQ 1024: FID 16.32 (paper)',
        cost='256: 300,000 steps of 16 images, a matter of days on a data-centre GPU (not measured)',
        G='inr.hypernetwork.Generator', z_dim=512, w_dim=1024, mapping_layers=3,
        synthesis=dict(decoder='multiscale', fmm_rank=10, coord_skips=True, equalized_lr=False, pixel_norm=False),
        g_channel_base=None, g_channel_max=512, g_fp16_res=0,
        d_channel_base=16384, d_channel_max=512, d_fp16_res=0, conv_clamp=256, mbstd_group=4,
        batch={16: 32, 256: 16, 1024: 8}, g_lr=dict(trunk=1e-5, inr=5e-4), d_lr=0.003, betas=(0, 0.98), eps=1e-8,
        gamma=10, r1_interval=1, pl_weight=0, g_reg_interval=1, style_mixing=0,
        ema_kimg=dict(decay=0.999), ema_rampup=None, kimg={16: 9600, 256: 4800, 1024: 2400}, mirror=False,
    ),
    'paper-tiny': dict(
        _TINY,
        summary='paper small enough to watch it learn on a CPU',
        source='own, chosen by runs on Fashion-MNIST and the demo set; see docs/decisions.md',
        cost='32 pixels: minutes on two cores until shapes form',
        G='inr.hypernetwork.Generator', w_dim=256, mapping_layers=3,
        synthesis=dict(decoder='multiscale', fmm_rank=10, coord_skips=True, equalized_lr=False, pixel_norm=False),
        g_channel_base=None, g_channel_max=64, g_lr=dict(trunk=1e-4, inr=2e-3), betas=(0, 0.99),
        gamma=1, r1_interval=16, ema_kimg='auto', ema_rampup=0.05,
    ),
}  # fmt: skip
