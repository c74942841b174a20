"""Tests of bias_act: the numbers of the public implementation, the definition in numpy, exact gradients."""

import math

import numpy as np
import pytest
import torch

from tests.helpers import ROOT, relative_error
from torch_utils.ops.bias_act import activation_funcs, bias_act

DATA = np.load(ROOT / 'tests/data/parity/ops.npz')
NAMES = [key[len('bias_act.') : -len('.y')] for key in DATA.files if key.startswith('bias_act.') and key.endswith('.y')]
SELU_SCALE, SELU_ALPHA = 1.0507009873554805, 1.6732632423543772
FORMULAS = {  # in numpy, alpha = 0.3
    'linear': lambda x: x,
    'relu': lambda x: np.maximum(x, 0),
    'lrelu': lambda x: np.where(x > 0, x, 0.3 * x),
    'tanh': np.tanh,
    'sigmoid': lambda x: 1 / (1 + np.exp(-x)),
    'elu': lambda x: np.where(x > 0, x, np.exp(x) - 1),
    'selu': lambda x: SELU_SCALE * np.where(x > 0, x, SELU_ALPHA * (np.exp(x) - 1)),
    'softplus': lambda x: np.log1p(np.exp(x)),
    'swish': lambda x: x / (1 + np.exp(-x)),
}


@pytest.mark.parametrize('name', NAMES)
def test_public_numbers(name):
    x, b, y, def_gain = (torch.from_numpy(np.asarray(DATA[f'bias_act.{name}.{key}'])) for key in ('x', 'b', 'y', 'def_gain'))
    act, _, rest = name.partition('.')
    options = {'alpha': 0.1, 'gain': 2.0, 'clamp': 1.5} if rest == 'a0.1.g2.0.c1.5' else {}
    assert relative_error(bias_act(x, b, act=act, **options), y) < 1e-5
    assert activation_funcs[act].def_gain == pytest.approx(def_gain.item())


def test_names_are_those_of_the_family():
    assert set(activation_funcs) == set(FORMULAS)
    assert activation_funcs['lrelu'].def_alpha == 0.2
    assert {name for name, spec in activation_funcs.items() if spec.def_gain == math.sqrt(2)} == {'relu', 'lrelu', 'swish'}


@pytest.mark.parametrize('gain', [1.5, -2.0, None])
@pytest.mark.parametrize('act', FORMULAS)
def test_definition(act, gain):
    x, b = torch.randn(3, 4, 5, dtype=torch.float64), torch.randn(5, dtype=torch.float64)
    factor = activation_funcs[act].def_gain if gain is None else gain
    expected = np.clip(factor * FORMULAS[act](x.numpy() + b.numpy()), -0.9, 0.9)
    for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 1e-6), (torch.bfloat16, 1e-2), (torch.float16, 2e-3)):
        actual = bias_act(x.to(dtype), b, dim=2, act=act, alpha=0.3, gain=gain, clamp=0.9)
        assert actual.dtype == dtype
        assert relative_error(actual, expected) < tolerance
    expected = factor * FORMULAS[act](x.numpy())
    assert relative_error(bias_act(x, act=act, alpha=0.3, gain=gain), expected) < 1e-12


@pytest.mark.parametrize('act', FORMULAS)
def test_gradients_of_both_orders(act):
    x, b = torch.randn(2, 3, 4, dtype=torch.float64, requires_grad=True), torch.randn(3, dtype=torch.float64, requires_grad=True)

    def run(x, b):
        return bias_act(x, b, act=act, gain=1.3, clamp=1.1)

    assert torch.autograd.gradcheck(run, (x, b))
    assert torch.autograd.gradgradcheck(run, (x, b))


def test_bias_goes_along_dim():
    x, b = torch.zeros(2, 3, 2), torch.tensor([1.0, 2.0])
    for dim in (0, 2, -1):
        y = bias_act(x, b, dim=dim)
        assert torch.equal(y.movedim(dim, 0)[0], torch.full_like(y.movedim(dim, 0)[0], 1.0))
        assert torch.equal(y.movedim(dim, 0)[1], torch.full_like(y.movedim(dim, 0)[1], 2.0))


def test_errors():
    with pytest.raises(RuntimeError, match="needs a tensor on a CUDA device, this one is on cpu: move it, or use impl='auto'"):
        bias_act(torch.zeros(1, 1), impl='cuda')
    with pytest.raises(ValueError, match="act='gelu' is not known"):
        bias_act(torch.zeros(1, 1), act='gelu')
