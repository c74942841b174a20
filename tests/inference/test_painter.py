"""Bands of pixels of any generator."""

import numpy as np
import pytest
import torch

from inference import WHOLE
from inference.painter import Painter
from tests import tiny_snapshots


@pytest.mark.parametrize('make', [lambda: tiny_snapshots.stylegan2(), lambda: tiny_snapshots.inr(noise=True)], ids=['stylegan2', 'inr'])
def test_random_noise_follows_from_w(make):
    G = make().eval().requires_grad_(False)
    for name, parameter in G.named_parameters():
        if name.endswith('noise_strength'):
            parameter.fill_(1)
    ws, painter = torch.randn(1, G.num_ws, G.w_dim), Painter(G, 16, 16, WHOLE, noise_mode='random')
    image = painter.whole(ws)
    assert np.array_equal(painter.whole(ws), image) and not np.array_equal(Painter(G, 16, 16, WHOLE).whole(ws), image)
