"""Coordinates, windows, cells: against numbers of the public implementation and against hand-made grids."""

import numpy as np
import pytest
import torch

from inr import grid
from tests.helpers import ROOT

LAYERS = np.load(ROOT / 'tests/data/parity/inr_layers.npz')


@pytest.mark.parametrize('resolution', [16, 64, 256])
def test_training_coordinates_are_those_of_the_public_implementation(resolution):
    points = grid.training_points([resolution])[0]
    stored = torch.from_numpy(LAYERS[f'coords.{resolution}'])  # every (R/16)th row and column
    step = resolution // 16
    assert torch.equal(points.x[::step].expand(16, 16), stored[0])
    assert torch.equal(points.y[::step, None].expand(16, 16), stored[1])


def test_generator_a_counts_from_the_top_left():
    points = grid.lattice(2, 4, convention=grid.GENERATOR_A)
    assert points.u.tolist() == [0, 0.25, 0.5, 0.75] and points.v.tolist() == [0, 0.5]
    x, y = grid.GENERATOR_A.coordinates(points.u, points.v)
    assert x.tolist() == [0, 0.25, 0.5, 0.75] and y.tolist() == [0, 0.5]


def test_a_window_moves_and_spreads_the_points():
    points = grid.lattice(2, 4, window=(-0.5, 0.25, 1.5, 0.75))
    assert points.u.tolist() == [-0.5, 0, 0.5, 1]  # left corners
    assert points.v.tolist() == [0.5, 0.75]  # lower corners
    x, y = grid.GENERATOR_B.coordinates(points.u, points.v)
    assert x.tolist() == [-2, -1, 0, 1] and y.tolist() == [0, -0.5]  # y points up


def test_a_tile_is_a_slice_of_the_whole():
    whole = grid.lattice(30, 50, window=(-0.3, -0.3, 1.3, 1.3))
    tile = whole.tile(7, 11, 13, 17)
    assert np.array_equal(tile.u, whole.u[11:28]) and np.array_equal(tile.v, whole.v[7:20])


@pytest.mark.parametrize(
    'arguments, word',
    [((0, 4), 'at least 1'), ((4, -1), 'at least 1'), ((4, 4, (0.5, 0, 0.5, 1)), 'no area'), ((4, 4, (0, 1, 1, 0)), 'no area')],
)
def test_pictures_without_area_are_refused(arguments, word):
    with pytest.raises(ValueError, match=word):
        grid.lattice(*arguments)
