"""The parameters of an INR, read out, blended and drawn with."""

import pytest
import torch

from inr import grid, hypernetwork
from inr.analysis.parameters import blend, draw_with, parameters_of, sources
from inr.generator import Generator
from tests.helpers import relative_error


def generator(kind):
    if kind.startswith('B'):
        rank = None if kind == 'B plain' else 3
        features = dict(generated=4, constants=2)
        return Generator(8, 0, 12, 64, 3, dict(num_layers=1), dict(channel_max=16, fmm_rank=rank, features=features)).eval()
    return hypernetwork.Generator(8, 0, 12, 32, 3, synthesis_kwargs=dict(channel_max=16, fmm_rank=3, decoder=kind)).eval()


@pytest.mark.parametrize('kind', ['B', 'B plain', *hypernetwork.DECODERS])
@torch.no_grad()
def test_parameters_draw_their_image_and_blends_lie_between(kind):
    torch.manual_seed(1)
    G = generator(kind)
    points_per_grid = grid.training_points(G.synthesis.pyramid.sizes, G.synthesis.pyramid.convention)
    a, b = G.mapping(torch.randn(2, 8) * 3, None).split(1)
    of_a, of_b = parameters_of(G, a), parameters_of(G, b)
    assert of_a.keys() == sources(G).keys()
    assert torch.equal(draw_with(G, of_a, b, points_per_grid), G.synthesis.draw(a, points_per_grid, impl='ref'))
    assert torch.equal(draw_with(G, blend(of_a, of_b, 1.0), a, points_per_grid), G.synthesis.draw(b, points_per_grid, impl='ref'))
    middle = draw_with(G, blend(of_a, of_b, 0.5), a, points_per_grid)
    in_w = G.synthesis.draw(a.lerp(b, 0.5), points_per_grid, impl='ref')
    linear = kind in ('basic', 'hyper', 'fourier')  # all parameters of these are linear in w
    assert (relative_error(middle, in_w) < 1e-4) == linear
    assert torch.equal(G.synthesis.draw(a, points_per_grid, impl='ref'), draw_with(G, of_a, a, points_per_grid))  # nothing stays replaced


def test_every_weight_of_an_image_is_among_the_sources():
    G = generator('multiscale')
    layers = sum(isinstance(module, hypernetwork.InrLayer) for module in G.modules())
    assert len(sources(G)) == layers + 2  # and a Fourier matrix for each grid
    weight, bias = parameters_of(G, G.mapping(torch.randn(2, 8)))['b32.layers.1']
    assert weight.shape == (2, 16, 32) and bias.shape == (2, 16)
