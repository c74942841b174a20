"""Tests of upfirdn2d: the numbers of the public implementation, a brute-force oracle, exact gradients."""

import numpy as np
import pytest
import torch

from tests.helpers import ROOT, relative_error
from torch_utils.ops import upfirdn2d

DATA = np.load(ROOT / 'tests/data/parity/ops.npz')


def oracle(x, f, up, down, padding, flip_filter, gain):
    """The definition in loops. x: [N, C, H, W] array; f: [rows, columns]; up, down (x, y); padding (x, x, y, y)."""
    N, C, H, W = x.shape
    f = f if flip_filter else f[::-1, ::-1]
    (upx, upy), (downx, downy), (px0, px1, py0, py1) = up, down, padding
    rows, columns = f.shape
    height, width = H * upy + py0 + py1, W * upx + px0 + px1

    def pixel(row, column):  # of the upsampled and padded image
        row, column = row - py0, column - px0
        if row % upy or column % upx or not (0 <= row < H * upy and 0 <= column < W * upx):
            return np.zeros([N, C])
        return x[:, :, row // upy, column // upx]

    y = np.zeros([N, C, (height - rows) // downy + 1, (width - columns) // downx + 1])
    for i in range(y.shape[2]):
        for j in range(y.shape[3]):
            for k in range(rows):
                for m in range(columns):
                    y[:, :, i, j] += gain * f[k, m] * pixel(i * downy + k, j * downx + m)
    return y


@pytest.mark.parametrize('i', range(5))
def test_public_numbers(i):
    x, taps, args, gain, y = (DATA[f'upfirdn2d.{i}.{key}'] for key in ('x', 'taps', 'args', 'gain', 'y'))
    up, down, *padding, flip = args.tolist()
    f = upfirdn2d.setup_filter(taps)
    actual = upfirdn2d.upfirdn2d(torch.from_numpy(x), f, up, down, padding, flip_filter=bool(flip), gain=float(gain))
    assert relative_error(actual, y) < 1e-5


CASES = [  # shape of f, up, down, padding
    ((1, 1), 1, 1, 0),
    ((3, 2), 1, 1, (1, 0, 2, 1)),
    ((4, 4), 2, 1, (2, 1)),
    ((2, 5), (3, 1), (1, 2), (4, 3, 0, 2)),
    ((4, 3), (2, 3), (3, 2), (3, -1, -2, 4)),
    ((1, 2), 3, 2, 0),
    ((3, 3), 1, 2, (1, -1, 2, 2)),
    ((2, 2), 1, 3, (-1, -1, -1, 0)),
    ((5,), 2, 1, (-3, 4, 5, -2)),
    ((3,), (1, 2), (2, 1), 1),
]


@pytest.mark.parametrize('flip_filter', [False, True])
@pytest.mark.parametrize('shape,up,down,padding', CASES)
def test_oracle_on_odd_shapes(shape, up, down, padding, flip_filter):
    x, f = torch.randn(2, 3, 5, 7, dtype=torch.float64), torch.randn(shape)
    full = torch.outer(f, f) if f.ndim == 1 else f
    expected = oracle(x.numpy(), full.double().numpy(), upfirdn2d.pair(up), upfirdn2d.pair(down), upfirdn2d.quad(padding), flip_filter, 1.7)
    for dtype, tolerance in ((torch.float64, 1e-6), (torch.float32, 1e-6), (torch.bfloat16, 2e-2), (torch.float16, 2e-3)):
        actual = upfirdn2d.upfirdn2d(x.to(dtype), f, up, down, padding, flip_filter=flip_filter, gain=1.7)
        assert actual.dtype == dtype
        assert relative_error(actual, expected) < tolerance


@pytest.mark.parametrize('shape,up,down,padding', CASES)
def test_gradients_of_both_orders(shape, up, down, padding):
    x, f = torch.randn(1, 2, 5, 4, dtype=torch.float64, requires_grad=True), torch.randn(shape)

    def squared(x):  # the operation is linear: squaring gives the second order something to see
        return upfirdn2d.upfirdn2d(x, f, up, down, padding, gain=2).square()

    assert torch.autograd.gradcheck(squared, x)
    assert torch.autograd.gradgradcheck(squared, x)


def test_no_filter_is_the_identity():
    x = torch.randn(1, 2, 3, 4)
    assert torch.equal(upfirdn2d.upfirdn2d(x, None), x)
    up = upfirdn2d.upfirdn2d(x, None, up=2)
    assert torch.equal(up[:, :, ::2, ::2], x) and up.shape == (1, 2, 6, 8)
    assert up.abs().sum() == x.abs().sum()


@pytest.mark.parametrize('taps', [[1, 3, 3, 1], [1, 2, 1], [1, 7, 21, 35, 35, 21, 7, 1]])
def test_resampling_keeps_size_brightness_and_place(taps):
    f = upfirdn2d.setup_filter(taps)
    flat = torch.ones(1, 1, 24, 24)
    for resample, size in ((upfirdn2d.filter2d, 24), (upfirdn2d.upsample2d, 48), (upfirdn2d.downsample2d, 12)):
        y = resample(flat, f)
        assert y.shape == (1, 1, size, size)
        assert torch.allclose(y[:, :, size // 3 : -size // 3, size // 3 : -size // 3], torch.ones([]), atol=1e-5)
    ramp = torch.arange(24.0).expand(1, 1, 24, 24)  # symmetric taps keep a ramp where it is
    f = upfirdn2d.setup_filter([1, 3, 3, 1])
    up, down = upfirdn2d.upsample2d(ramp, f)[0, 0], upfirdn2d.downsample2d(ramp, f)[0, 0]
    assert torch.allclose(up[20, 10:20], torch.arange(10.0, 20.0) / 2 - 0.25, atol=1e-4)
    assert torch.allclose(down[6, 3:8], torch.arange(3.0, 8.0) * 2 + 0.5, atol=1e-4)


def test_setup_filter():
    f = upfirdn2d.setup_filter([1, 3, 3, 1])
    assert f.shape == (4, 4) and f.dtype == torch.float32 and torch.allclose(f[0] * 64, torch.tensor([1.0, 3, 3, 1]))
    assert upfirdn2d.setup_filter([1] * 8).shape == (8,)  # from eight taps on they stay separable
    assert upfirdn2d.setup_filter([1] * 8, separable=False).shape == (8, 8)
    assert torch.equal(upfirdn2d.setup_filter([1, 2], separable=True, normalize=False, flip_filter=True), torch.tensor([2.0, 1]))
    assert torch.allclose(upfirdn2d.setup_filter([1, 1], gain=4), torch.ones(2, 2))
    assert torch.allclose(upfirdn2d.setup_filter([1, 1], gain=4, separable=True), torch.ones(2))
    assert torch.equal(upfirdn2d.setup_filter(None), torch.ones(1, 1)) and torch.equal(upfirdn2d.setup_filter(5), torch.ones(1, 1))
    with pytest.raises(ValueError, match='one or two axes'):
        upfirdn2d.setup_filter(torch.ones(1, 2, 3))
    with pytest.raises(ValueError, match='1-D taps'):
        upfirdn2d.setup_filter(torch.ones(2, 3), separable=True)


def test_separable_taps_agree_with_their_outer_product():
    x, taps = torch.randn(2, 3, 9, 8), torch.randn(8)
    for resample in (upfirdn2d.upsample2d, upfirdn2d.downsample2d, upfirdn2d.filter2d):
        assert relative_error(resample(x, taps, padding=(1, 2, 3, 4), gain=3),
                              resample(x, torch.outer(taps, taps), padding=(1, 2, 3, 4), gain=3)) < 1e-5


def test_errors():
    x = torch.ones(1, 1, 2, 2)
    with pytest.raises(RuntimeError, match="needs a tensor on a CUDA device, this one is on cpu: move it, or use impl='auto'"):
        upfirdn2d.upfirdn2d(x, None, impl='cuda')
    with pytest.raises(ValueError, match='fast'):
        upfirdn2d.upfirdn2d(x, None, impl='fast')
    with pytest.raises(ValueError, match='nothing is left of 2x2 pixels'):
        upfirdn2d.upfirdn2d(x, torch.ones(3, 3))
    assert torch.equal(upfirdn2d.upfirdn2d(x, None, impl='ref'), x)


@pytest.mark.parametrize('dtype, rounding', [(torch.bfloat16, 2.0**-8), (torch.float16, 2.0**-11)])
def test_upsampling_in_half_precision_rounds_its_sums_once(dtype, rounding):
    x, f = torch.randn(2, 5, 9, 6).to(dtype), upfirdn2d.setup_filter([1, 3, 3, 1])  # the taps are whole 64ths: exact in half types
    y = upfirdn2d.upsample2d(x, f)
    assert y.dtype == dtype and relative_error(y, upfirdn2d.upsample2d(x.double(), f)) < rounding
