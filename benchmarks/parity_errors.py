"""Worst relative error ||a - b|| / ||b|| against each stored file of the public implementations' numbers (the tests hold them under 1e-5),
by plain operators and by the CPU's compiled code.

python benchmarks/parity_errors.py
"""

import itertools
import json
import sys
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from inr.fmm import Modulation  # noqa: E402
from inr.fourier import log_basis  # noqa: E402
from inr.generator import from_inr_gan  # noqa: E402
from inr.grid import training_points  # noqa: E402
from inr.ops.layer import product  # noqa: E402


def error(actual, expected):
    actual, expected = (torch.as_tensor(x).detach().double() for x in (actual, expected))
    return ((actual - expected).norm() / expected.norm()).item()


def generator_errors(stored):
    """ws and images of a stored generator of the public INR-GAN."""
    state = {key[2:]: torch.from_numpy(stored[key]) for key in stored.files if key.startswith('G.')}
    G = from_inr_gan(json.loads(str(stored['config'])), state).eval()
    c = torch.from_numpy(stored['c']) if 'c' in stored.files else None
    yield error(G.mapping(torch.from_numpy(stored['z']), c), stored['ws'])
    for training, impl in itertools.product((False, True), ('ref', 'fused')):
        yield error(G.train(training).synthesis(torch.from_numpy(stored['ws']), noise_mode='const', impl=impl), stored['img'])


def layer_errors(stored):
    """FMM layers, bases and coordinates."""
    for i in range(4):
        case = {key: stored[f'fmm.{i}.{key}'] for key in ('x', 'weight', 'styles', 'y')}
        modulation = Modulation(int(stored[f'fmm.{i}.rank']), str(stored[f'fmm.{i}.activation']), equalized=False)
        weight = modulation.weight(torch.from_numpy(case['weight'][:, :, 0, 0]), torch.from_numpy(case['styles']))
        yield error(product(weight, torch.from_numpy(case['x'])), case['y'])
    for res in (16, 64, 256):
        yield error(log_basis(res, True), stored[f'log_basis.{res}.diag1'])
        points, step = training_points([res])[0], res // 16
        yield error(torch.stack([points.x[::step].expand(16, 16), points.y[::step, None].expand(16, 16)]), stored[f'coords.{res}'])


def stylegan2_errors(stored):
    """w, images, logits, R1 and the discriminator's gradients through the second derivative."""
    from training.networks import Discriminator, Generator

    state = {p: {k[2:]: torch.from_numpy(stored[k]) for k in stored.files if k.startswith(p + '.')} for p in 'GD'}
    c_dim, width = stored['c'].shape[1], state['G']['synthesis.b4.const'].shape[0]
    sizes = dict(channel_base=8 * 16, channel_max=width)
    G = Generator(16, c_dim, 24, 16, 3, dict(num_layers=3), sizes).eval()
    D = Discriminator(c_dim, 16, 3, **sizes, epilogue_kwargs=dict(mbstd_group_size=2))
    G.load_state_dict(state['G'], strict=True)
    D.load_state_dict(state['D'], strict=True)
    z, c = torch.from_numpy(stored['z']), torch.from_numpy(stored['c'])
    yield error(G.mapping(z, c), stored['ws'])
    yield error(G.mapping(z, c, truncation_psi=0.5, truncation_cutoff=3), stored['ws_psi0.5_cutoff3'])
    for mode in ('const', 'none'):
        yield error(G.synthesis(torch.from_numpy(stored['ws']), noise_mode=mode), stored[f'img_noise_{mode}'])
    real = torch.from_numpy(stored['real']).requires_grad_()
    logits = D(real, c)
    penalty = torch.autograd.grad(logits.sum(), real, create_graph=True)[0].square().sum([1, 2, 3])
    yield error(logits, stored['logits'])
    yield error(penalty, stored['r1_penalty'])
    (torch.nn.functional.softplus(-logits) + penalty * (10 / 2)).mean().backward()
    for name, p in D.named_parameters():
        yield error(p.grad, stored[f'D_grad.{name}'])


if __name__ == '__main__':
    for path in sorted((ROOT / 'tests/data/parity').glob('*.npz')):
        if path.stem == 'ops':
            continue  # its cases carry their arguments; tests/torch_utils/ops reads them
        check = stylegan2_errors if path.stem.startswith('stylegan2') else layer_errors if path.stem == 'inr_layers' else generator_errors
        print(f'{path.stem:<24} {max(check(np.load(path))):.1e}')
