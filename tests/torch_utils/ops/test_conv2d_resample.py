"""Tests of conv2d_resample and modulated_conv2d: public numbers, the definition step by step, exact gradients."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tests.helpers import ROOT, relative_error
from torch_utils.ops import upfirdn2d
from torch_utils.ops.bias_act import bias_act
from torch_utils.ops.conv2d_resample import conv2d_resample
from torch_utils.ops.modulated_conv2d import modulated_conv2d

DATA = np.load(ROOT / 'tests/data/parity/ops.npz')
TAPS = upfirdn2d.setup_filter([1, 3, 3, 1])


@pytest.mark.parametrize('i', range(5))
def test_public_numbers(i):
    x, w, y = (torch.from_numpy(DATA[f'conv2d_resample.{i}.{key}']) for key in ('x', 'w', 'y'))
    up, down, padding, flip_weight = DATA[f'conv2d_resample.{i}.args'].tolist()
    assert relative_error(conv2d_resample(x, w, TAPS, up, down, padding, flip_weight=bool(flip_weight)), y) < 1e-5


def oracle(x, w, f, up, down, padding, groups, flip_weight, flip_filter):
    """Upsample, filter, convolve, filter, downsample, one after the other at full resolution."""
    taps = f.shape[0]
    before = (taps + up - 1) // 2 * (up > 1) + (taps - down + 1) // 2 * (down > 1)
    after = (taps - up) // 2 * (up > 1) + (taps - down) // 2 * (down > 1)
    p = [padding[0] + before, padding[1] + after, padding[2] + before, padding[3] + after]
    x = upfirdn2d.upfirdn2d(x, f if up > 1 else None, up=up, padding=p, flip_filter=flip_filter, gain=up**2)
    x = F.conv2d(x, w if flip_weight else w.flip([2, 3]), groups=groups)
    return upfirdn2d.upfirdn2d(x, f if down > 1 else None, down=down, flip_filter=flip_filter)


@pytest.mark.parametrize('flips', [(True, False), (False, True)])
@pytest.mark.parametrize('padding', [(0, 0, 0, 0), (1, 1, 1, 1), (2, -1, 0, 3)])
@pytest.mark.parametrize('kernel', [(1, 1), (3, 3), (2, 5)])
@pytest.mark.parametrize('up,down', [(1, 1), (2, 1), (1, 2), (3, 1), (2, 2), (2, 3)])
def test_definition_on_odd_shapes(up, down, kernel, padding, flips):
    x, w, f = torch.randn(2, 4, 9, 7), torch.randn(6, 2, *kernel), torch.randn(5, 5)
    actual = conv2d_resample(x, w, f, up, down, padding, groups=2, flip_weight=flips[0], flip_filter=flips[1])
    assert relative_error(actual, oracle(x, w, f, up, down, padding, 2, *flips)) < 1e-5


def test_half_types_are_close():
    x, w = torch.randn(2, 4, 8, 8), torch.randn(6, 4, 3, 3)
    for up, down in ((1, 1), (2, 1), (1, 2)):
        expected = conv2d_resample(x, w, TAPS, up, down, 1)
        for dtype, tolerance in ((torch.bfloat16, 1e-2), (torch.float16, 2e-3)):
            assert relative_error(conv2d_resample(x.to(dtype), w.to(dtype), TAPS, up, down, 1), expected) < tolerance


@pytest.mark.parametrize('up,down,kernel', [(1, 2, 3), (1, 2, 1), (2, 1, 3), (2, 1, 1), (1, 1, 3)])
def test_gradients_of_a_network_layer(up, down, kernel):
    """Convolution, bias_act, upfirdn2d down: the discriminator's path, in both orders."""
    def tensor(*shape):
        return torch.randn(shape, dtype=torch.float64, requires_grad=True)

    def layer(x, w, b):
        y = conv2d_resample(x, w, TAPS, up, down, padding=kernel // 2, flip_weight=up == 1)
        return upfirdn2d.downsample2d(bias_act(y, b, act='lrelu', gain=0.7, clamp=5), TAPS)

    inputs = tensor(2, 2, 4, 4), tensor(2, 2, kernel, kernel), tensor(2)
    assert torch.autograd.gradcheck(layer, inputs)
    assert torch.autograd.gradgradcheck(layer, inputs)


@pytest.mark.parametrize('demodulate', [True, False])
@pytest.mark.parametrize('up', [1, 2])
def test_modulation_equals_one_set_of_weights_per_image(up, demodulate):
    x, weight, styles, noise = torch.randn(3, 4, 5, 6), torch.randn(2, 4, 3, 3), torch.randn(3, 4), torch.randn(3, 1, 5 * up, 6 * up)
    actual = modulated_conv2d(x, weight, styles, noise, up=up, padding=1, resample_filter=TAPS, demodulate=demodulate, flip_weight=False)
    for i in range(3):
        w = weight * styles[i][:, None, None]
        if demodulate:
            w = w / w.flatten(1).norm(dim=1)[:, None, None, None]
        expected = conv2d_resample(x[i : i + 1], w, TAPS, up=up, padding=1, flip_weight=False) + noise[i]
        assert relative_error(actual[i : i + 1], expected) < 1e-5


def test_float16_modulation_survives_large_numbers():
    x, weight, styles = torch.randn(2, 64, 4, 4), torch.randn(3, 64, 3, 3) * 1e3, torch.randn(2, 64) * 1e4
    actual = modulated_conv2d(x.half(), weight, styles, padding=1)
    assert relative_error(actual, modulated_conv2d(x, weight, styles, padding=1)) < 3e-3


def test_float16_modulation_of_nothing_is_nothing():
    """A style or a kernel of zeros: 0 by any norm is 0, not 0 / 0."""
    x, weight, styles = torch.randn(2, 3, 4, 4).half(), torch.randn(5, 3, 3, 3), torch.randn(2, 3)
    styles[0], weight[1] = 0, 0
    y = modulated_conv2d(x, weight, styles, padding=1)
    assert y.isfinite().all() and not y[0].any() and not y[1, 1].any() and y[1, 0].any()
