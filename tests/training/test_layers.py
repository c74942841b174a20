"""Tests of training.layers: what a layer computes on its own; test_networks has their numbers inside the networks."""

import pytest
import torch

from training.layers import FullyConnectedLayer, MinibatchStdLayer


def test_minibatch_deviation():
    x = torch.randn(6, 4, 2, 3)
    y = MinibatchStdLayer(group_size=2, num_channels=2)(x)
    assert torch.equal(y[:, :4], x) and y.shape == (6, 6, 2, 3)
    for image in range(6):  # a group is the images n, n + 3
        group = x[[image % 3, image % 3 + 3]]
        deviation = (group.var(dim=0, unbiased=False) + 1e-8).sqrt()
        for part in range(2):
            assert y[image, 4 + part].unique().item() == pytest.approx(deviation[2 * part : 2 * part + 2].mean().item(), rel=1e-5)


@pytest.mark.parametrize('batch,group', [(1, 1), (2, 2), (3, 3), (6, 3), (7, 1), (8, 4)])
def test_minibatch_deviation_takes_the_largest_group_that_divides(batch, group):
    x = torch.randn(batch, 2, 2, 2)
    y = MinibatchStdLayer(group_size=4)(x)
    assert torch.equal(y, MinibatchStdLayer(group_size=group)(x))
    assert group == 1 or len(y[:, 2, 0, 0].unique()) == batch // group


def test_layers_start_with_equalized_learning_rate():
    layer = FullyConnectedLayer(400, 300, lr_multiplier=0.01, bias_init=1)
    assert layer.weight.std().item() == pytest.approx(100, rel=0.02)
    x = torch.randn(50, 400)
    assert layer(x).std().item() == pytest.approx(1, rel=0.05)
    assert layer(torch.zeros(1, 400)).mean().item() == pytest.approx(0.01)
    assert layer(x.bfloat16()).dtype == torch.bfloat16
    assert FullyConnectedLayer(3, 2, bias=False, activation='tanh')(torch.full([1, 3], 1e6)).abs().max() == 1
