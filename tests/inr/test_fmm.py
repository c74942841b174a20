"""FMM weights: the public implementation's numbers, the ends of appendix E, the squashes by hand."""

import math

import numpy as np
import pytest
import torch

from inr.blocks import SynthesisLayer
from inr.fmm import SQUASHES, Modulation, demodulated_weight, fmm_weight, normalize_rows
from inr.ops.layer import product
from tests.helpers import ROOT, relative_error

LAYERS = np.load(ROOT / 'tests/data/parity/inr_layers.npz')


@pytest.mark.parametrize('case', range(4))
def test_layers_of_the_public_implementation(case):
    stored = {key: LAYERS[f'fmm.{case}.{key}'] for key in ('x', 'weight', 'styles', 'activation', 'rank', 'y')}
    modulation = Modulation(int(stored['rank']), str(stored['activation']), equalized=False)
    weight = modulation.weight(torch.from_numpy(stored['weight'][:, :, 0, 0]), torch.from_numpy(stored['styles']))
    assert relative_error(product(weight, torch.from_numpy(stored['x'])), stored['y']) < 1e-5


def test_rank_one_scales_rows_and_columns():
    shared, left, right = torch.randn(5, 7), torch.randn(2, 5, 1), torch.randn(2, 1, 7)
    weight = fmm_weight(shared, left, right, lambda m: m)
    expected = torch.stack([torch.outer(left[n, :, 0], right[n, 0]) * shared for n in range(2)])
    assert torch.allclose(weight, expected)


def test_full_rank_reproduces_a_hypernetwork_within_the_range_of_the_squash():
    """A = identity, B = s^-1(W / W_s)  (appendix E)."""
    shared = torch.randn(4, 6)
    wanted = shared * (1 + torch.rand(3, 4, 6) * 1.8 - 0.9)
    right = torch.atanh(wanted / shared - 1)
    assert relative_error(fmm_weight(shared, torch.eye(4).expand(3, 4, 4), right, SQUASHES['tanh']), wanted) < 1e-5


@pytest.mark.parametrize('squash', SQUASHES)
def test_zero_factors_leave_the_shared_weights_alone(squash):
    shared = torch.randn(4, 6)
    weight = Modulation(3, squash, equalized=False).weight(shared, torch.zeros(2, (4 + 6) * 3))
    expected = shared / shared.norm(dim=1, keepdim=True) if squash == 'demod' else shared
    assert relative_error(weight, expected.expand(2, 4, 6)) < 1e-6


def test_full_rank_takes_a_as_it_is():
    """A is generated whole, B is the identity: W = W_s squash(A), the same as A times an identity."""
    shared, styles = torch.randn(4, 6), torch.randn(3, 24)
    modulation = Modulation('full', '2sigmoid')
    assert modulation.num_styles(6, 4) == 24
    A = styles.reshape(3, 4, 6)
    weight = modulation.weight(shared, styles)
    assert torch.allclose(weight, fmm_weight(shared, A, torch.eye(6).expand(3, 6, 6), SQUASHES['2sigmoid']), atol=1e-6)
    assert torch.allclose(weight, shared * 2 * torch.sigmoid(A))


def test_generator_a_does_not_divide_by_the_rank():
    left, right = torch.randn(1, 4, 3), torch.randn(1, 3, 6)
    styles = torch.cat([left.flatten(1), right.flatten(1)], dim=1)
    weight = Modulation(3, '2sigmoid', equalized=False).weight(torch.ones(4, 6), styles)
    assert torch.allclose(weight, 2 * torch.sigmoid(left @ right)) and (weight > 0).all() and (weight < 2).all()


def test_rows_of_a_come_first_and_rank_divides():
    styles = torch.arange(1.0, 11.0)[None]  # A [2, 2] = 1..4, B [2, 3] = 5..10
    weight = Modulation(2, 'tanh', equalized=False).weight(torch.ones(2, 3), styles)
    product = torch.tensor([[1.0, 2], [3, 4]]) @ torch.tensor([[5.0, 6, 7], [8, 9, 10]]) / 2**0.5
    assert torch.allclose(weight[0], product.tanh() + 1)


def test_equalized_gain_keeps_the_variance_of_tanh_and_sigmoid_layers():
    shared = torch.randn(64, 400)
    gained = Modulation(4, 'tanh', equalized=True).weight(shared, torch.zeros(1, 464 * 4))
    assert relative_error(gained[0] * 20, shared) < 1e-6


def test_demodulation_normalizes_rows():
    shared, styles = torch.randn(5, 7), torch.randn(2, 7)
    weight = demodulated_weight(shared, styles)
    assert torch.allclose(weight.norm(dim=2), torch.ones(2, 5), atol=1e-5)
    assert relative_error(normalize_rows(weight * 9), weight) < 1e-6


@pytest.mark.parametrize('arguments, word', [((0,), 'rank 0'), ((3, 'cube'), "squash 'cube'"), (('most',), "rank 'most'")])
def test_mistakes_are_told(arguments, word):
    with pytest.raises(ValueError, match=word):
        Modulation(*arguments)


def test_spread_scales_what_w_changes_at_the_start():
    torch.manual_seed(0)
    ws = torch.randn(64, 16)
    deviation = {}
    for spread in (1.0, 0.3):
        torch.manual_seed(1)
        layer = SynthesisLayer(12, 20, 16, Modulation(10, 'demod', spread=spread))
        left, right = layer.modulation.factors(layer.affine(ws), 20, 12)
        deviation[spread] = (left @ right / math.sqrt(10)).std().item()
    assert deviation[1.0] == pytest.approx(1, abs=0.25)  # as in the public implementation
    assert deviation[0.3] == pytest.approx(0.09 * deviation[1.0], rel=1e-4)
    with pytest.raises(ValueError, match='not above 0'):
        Modulation(spread=0)
