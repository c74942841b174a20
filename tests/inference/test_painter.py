"""Bands of pixels of any generator."""

import numpy as np
import pytest
import torch

from inference import WHOLE
from inference.painter import Painter, drawing_at_scales
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


def test_a_generator_that_learned_in_half_precision_draws_in_float32():
    half = tiny_snapshots.inr(num_fp16_res=4, half_dtype='bfloat16').eval().requires_grad_(False)
    full = tiny_snapshots.inr().eval().requires_grad_(False)
    full.load_state_dict(half.state_dict())
    ws = torch.randn(1, full.num_ws, full.w_dim)
    exact = Painter(full, 24, 24, WHOLE).whole(ws)
    assert np.array_equal(Painter(half, 24, 24, WHOLE).whole(ws), exact)
    assert not np.array_equal(Painter(half, 24, 24, WHOLE, force_fp32=False).whole(ws), exact)
    assert torch.equal(drawing_at_scales(half)(ws, 2), drawing_at_scales(full)(ws, 2))
