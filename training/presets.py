"""Recipes, a row each; `plugins.presets` adds those of inr/. Every command-line option that is left out means what the row says.

A dict {lowest resolution: value} gives a value that depends on the training resolution: the entry with the largest key not above it holds.
A row has all of ROW_KEYS. It may have 'D', the class name of another discriminator, and any option of train.py by its name.
"""

import math

from dnnlib.util import UserError

ROW_KEYS = {
    'summary': 'one line for --help', 'source': 'where the numbers come from', 'cost': 'what a run takes',
    'G': 'class name of the generator', 'z_dim': 'numbers in z', 'w_dim': 'numbers in w', 'mapping_layers': 'of the mapping network',
    'g_channel_base': 'G has min(base / resolution, max) channels; None: as its class has it, up to max', 'g_channel_max': '',
    'synthesis': 'further synthesis_kwargs of G; those that are options of inr/ can be given on the command line',
    'd_channel_base': 'the same for D', 'd_channel_max': '', 'mbstd_group': 'images in a group of the minibatch deviation',
    'g_fp16_res': "G's blocks in half precision, counted from the highest", 'd_fp16_res': 'the same for D',
    'conv_clamp': 'limit of activations in half precision', 'batch': 'images of a step', 'kimg': 'length of the run',
    'g_lr': 'or {group: lr} of G.parameter_groups()', 'd_lr': '', 'betas': "Adam's", 'eps': "Adam's",
    'gamma': "R1 weight in gamma/2 |grad|^2, or 'auto': 0.0002 resolution^2 / batch",
    'r1_interval': 'steps between R1 penalties; 1: in every step', 'g_reg_interval': 'the same for the path-length penalty',
    'pl_weight': 'weight of the path-length penalty', 'style_mixing': 'chance of mixing two styles',
    'ema_kimg': "half-life of the average of G, or 'auto': batch 10/32, or {'decay': in one step}",
    'ema_rampup': 'half-life at most this share of the images seen',
    'mirror': 'whether x-flips double the data',
}

PRESETS = {
    'stylegan2': dict(
        summary='StyleGAN2, skip generator and residual discriminator: the baseline',
        source='Karras et al. 2020, config F; numbers of stylegan2-ada-pytorch with --cfg=stylegan2 --aug=noaug, 8 GPUs',
        cost='256: 25,000 kimg at 45 GMAC an image in G alone, days on a data-centre GPU (not measured)',
        G='training.networks.Generator', z_dim=512, w_dim=512, mapping_layers=8, synthesis={},
        g_channel_base=32768, g_channel_max=512, g_fp16_res=4,
        d_channel_base=32768, d_channel_max=512, d_fp16_res=4, conv_clamp=256, mbstd_group=4,
        batch=32, g_lr=0.002, d_lr=0.002, betas=(0, 0.99), eps=1e-8,
        gamma=10, r1_interval=16, pl_weight=2, g_reg_interval=4, style_mixing=0.9,
        ema_kimg=10, ema_rampup=None, kimg=25000, mirror=False,
    ),
    'stylegan2-tiny': dict(
        summary='StyleGAN2 small enough to watch it learn on a CPU',
        source='own; the discriminator and recipe of inr-tiny, so that the two can be compared',
        cost='64: some 25 to 45 images a second on one core of a server, as many as inr-tiny',
        G='training.networks.Generator', z_dim=128, w_dim=128, mapping_layers=2, synthesis={},
        g_channel_base=2048, g_channel_max=64, g_fp16_res=0,
        d_channel_base=1024, d_channel_max=128, d_fp16_res=0, conv_clamp=None, mbstd_group=4,
        batch=16, g_lr=0.004, d_lr=0.004, betas=(0, 0.99), eps=1e-8,
        gamma=1, r1_interval=16, pl_weight=0, g_reg_interval=1, style_mixing=0,
        ema_kimg='auto', ema_rampup=0.05, kimg=1000, mirror=True,
    ),
}


def at_resolution(value, resolution: int):
    """The entry that a rule {lowest resolution: value} has for a resolution; any other value as it is."""
    if not (isinstance(value, dict) and value and all(isinstance(key, int) for key in value)):
        return value
    fitting = [lowest for lowest in value if lowest <= resolution]
    if not fitting:
        raise UserError(f'resolution {resolution} is below the lowest that this preset has a rule for, {min(value)}')
    return value[max(fitting)]


def half_life(value, batch: int) -> float:
    """Half-life of the average in kimg from what a row says, see ROW_KEYS."""
    if value == 'auto':
        return batch * 10 / 32
    return batch / 1000 * math.log(0.5) / math.log(value['decay']) if isinstance(value, dict) else value
