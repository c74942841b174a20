"""Multiply-accumulates counted by hand, for a small generator A, and how they grow with the size that is drawn."""

import pytest
import torch

from inr import hypernetwork
from inr.analysis.macs import drawing_macs
from torch_utils.misc import count_macs


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
