"""Moving an image by its coordinates: the map in the first layer draws what the map of the points draws, and turns as it says."""

import pytest
import torch

from inr import grid, hypernetwork
from inr.analysis.geometry import compose, moved_points, placement
from inr.generator import Generator
from inr.grid import GENERATOR_A, GENERATOR_B
from tests.helpers import relative_error


def generator(kind):
    if kind == 'B':
        features = dict(random=4, learned=3, generated=3, log=4, raw=True, diagonal=True)
        return Generator(8, 0, 12, 64, 3, dict(num_layers=1), dict(channel_base=1024, channel_max=16, features=features)).eval()
    return hypernetwork.Generator(8, 0, 12, 32, 3, synthesis_kwargs=dict(channel_max=16, decoder=kind)).eval()


@pytest.mark.parametrize('kind', ['B', *hypernetwork.DECODERS])
@torch.no_grad()
def test_composing_with_the_first_layer_equals_drawing_moved_points(kind):
    G = generator(kind)
    synthesis = G.synthesis
    ws = G.mapping(torch.randn(2, 8), None)
    matrix, offset = placement(synthesis.pyramid.convention, angle=25, shift=(0.1, -0.2), scale=1.3)
    moved = compose(G, matrix, offset).synthesis(ws)
    points_per_grid = grid.training_points(synthesis.pyramid.sizes, synthesis.pyramid.convention)
    assert relative_error(moved, synthesis.draw(ws, moved_points(points_per_grid, matrix, offset))) < 1e-4
    assert relative_error(moved, synthesis(ws)) > 0.02
    still = compose(G, *placement(synthesis.pyramid.convention))
    assert relative_error(still.synthesis(ws), synthesis(ws)) < 1e-4


@pytest.mark.parametrize('convention', [GENERATOR_A, GENERATOR_B])
def test_where_points_come_from(convention):
    """In units of the image, y down: a quarter turn clockwise puts what was at the left on top; a shift right takes from the left."""
    def source(u, v, **motion):
        matrix, offset = placement(convention, **motion)
        x, y = matrix @ torch.tensor(convention.coordinates(u, v)) + offset
        return ((x + 1) / 2, (1 - y) / 2) if convention.centred else (x, y)

    assert source(0.5, 0.1, angle=90) == pytest.approx((0.1, 0.5), abs=1e-6)
    assert source(0.7, 0.4, shift=(0.2, 0.1)) == pytest.approx((0.5, 0.3), abs=1e-6)
    assert source(1.0, 0.5, scale=2.0) == pytest.approx((0.75, 0.5), abs=1e-6)
    assert source(0.5, 0.5, angle=33, scale=3) == pytest.approx((0.5, 0.5), abs=1e-6)


def test_a_quarter_turn_of_a_single_grid_turns_the_pixels():
    """Cells are sampled at corners, so a turn about the centre of [0, 1) takes pixel (i, j) from (j, R - i): all but one row and column."""
    G = generator('fmm')
    ws = G.mapping(torch.randn(1, 8))
    with torch.no_grad():
        turned, image = compose(G, *placement(GENERATOR_A, angle=90)).synthesis(ws), G.synthesis(ws)
    assert relative_error(turned[:, :, :, 1:], image.rot90(-1, (2, 3))[:, :, :, :-1]) < 1e-3


def test_constants_in_cells_do_not_turn():
    G = Generator(8, 0, 12, 32, 3, dict(num_layers=1), dict(channel_max=8))
    with pytest.raises(ValueError, match='learned constants'):
        compose(G, *placement(GENERATOR_B, angle=10))
