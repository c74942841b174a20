"""Where the trained image lies in a window, windows on the way, and the work of a small generator A, counted by hand."""

import pytest
import torch

from inr import hypernetwork
from inr.analysis.zoom import drawing_macs, path, trained_box
from torch_utils.misc import count_macs


def test_box_of_the_trained_image():
    assert trained_box((0, 0, 1, 1), 64, 32) == (0, 0, 64, 32)
    assert trained_box((-0.5, -0.5, 1.5, 1.5), 64, 64) == (16, 16, 48, 48)
    assert trained_box((0.25, 0.25, 0.75, 0.75), 64, 64) == (-32, -32, 96, 96)


def test_a_zoom_goes_there_and_back_at_a_steady_rate():
    windows = path((0, 0, 1, 1), (-0.5, -0.5, 1.5, 1.5), 8)
    widths = [window[2] - window[0] for window in windows]
    assert windows[0] == (0, 0, 1, 1) and windows[4] == pytest.approx((-0.5, -0.5, 1.5, 1.5)) and len(windows) == 8
    assert [b / a for a, b in zip(widths[:4], widths[1:5], strict=True)] == pytest.approx([2**0.25] * 4)
    assert widths[5:] == pytest.approx(widths[3:0:-1])
    assert path((0, 0, 1, 1), (0.5, 0, 1.5, 1), 4)[1] == pytest.approx((0.25, 0, 1.25, 1))


def small():
    with torch.device('meta'):
        return hypernetwork.Generator(8, 0, 12, 32, 3, dict(num_layers=3), dict(channel_max=16, fmm_rank=3)).eval()


def by_hand(size):
    """Blocks of 16 and 32: 16 channels and 16 features, 4 hidden layers; rank 3; drawn with every grid refined."""
    fine = size**2
    coarse = 16**2 if size == 32 else (size // 2) ** 2 if size > 32 else size**2

    def fmm(outputs, inputs):  # head of factors and bias, then A B
        return 12 * (3 * (outputs + inputs) + outputs) + outputs * 3 * inputs

    def layer(outputs, inputs, points):
        return fmm(outputs, inputs) + outputs * inputs * points

    trunk = 8 * 12 + 2 * 12 * 12
    first = 12 * 16 + layer(16, 16, coarse) + 3 * layer(16, 32, coarse)  # Fourier rows are no matrix product over points
    rgb = 2 * 12 * (16 * 3 + 3) + 3 * 16 * (coarse + fine)
    second = 12 * 16 + layer(16, 16, coarse) + layer(16, 16, fine) + 4 * layer(16, 32, fine)
    return trunk + first + second + rgb


@pytest.mark.parametrize('size', [32, 64])
def test_counts_by_hand(size):
    assert drawing_macs(small(), size, count_macs) == by_hand(size)


def test_a_preview_costs_a_fraction():
    G = small()
    costs = [drawing_macs(G, size, count_macs) for size in (8, 16, 32, 64)]
    assert costs == sorted(costs) and costs[1] < costs[2] / 2 and costs[2] < costs[3] / 3
    assert drawing_macs(G, 64, count_macs, refine='last') < costs[3]
