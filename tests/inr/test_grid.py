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


@pytest.mark.parametrize('convention', [grid.GENERATOR_A, grid.GENERATOR_B])
@pytest.mark.parametrize('refine', grid.REFINEMENTS)
def test_the_training_size_gives_the_training_points_bit_for_bit(convention, refine):
    trained = grid.training_points([32, 64, 128], convention)
    planned = grid.plan(grid.lattice(128, 128, convention=convention), [32, 64, 128], refine, convention)
    assert torch.equal(planned[-1].x, trained[-1].x) and torch.equal(planned[-1].y, trained[-1].y)
    assert planned[-1].cells is None
    for ours, theirs in zip(planned, trained, strict=True):
        assert torch.equal(ours.x, theirs.x) and torch.equal(ours.y, theirs.y)
        assert ours.doubled == theirs.doubled and ours.below is None and ours.cells is None


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


@pytest.mark.parametrize('size', [48, 96, 33, 200])
def test_cells_are_those_of_exact_arithmetic(size):
    """Column j of W lies in cell floor(j R / W); row i of H, sampled at its lower border, in the row whose lower border is next."""
    level = grid.plan(grid.lattice(size, size), [32, 64])
    rows, cols = level[1].below
    cells = 32
    exact_cols = np.array([j * cells // size for j in range(size)])
    exact_rows = np.array([-(-(i + 1) * cells // size) - 1 for i in range(size)])
    assert np.array_equal(np.unique(exact_cols)[cols.lo], exact_cols)
    assert np.array_equal(np.unique(exact_rows)[rows.lo], exact_rows)
    assert torch.equal(level[0].x, torch.as_tensor(2 * np.unique(exact_cols) / cells - 1, dtype=torch.float32))
    assert torch.equal(level[0].y, torch.as_tensor(1 - 2 * (np.unique(exact_rows) + 1) / cells, dtype=torch.float32))


def test_a_small_picture_needs_only_the_cells_it_hits():
    levels = grid.plan(grid.lattice(8, 16), [32, 64, 128])
    assert [p.shape for p in levels] == [(8, 16)] * 3
    levels = grid.plan(grid.lattice(1000, 1000), [32, 64, 128])
    assert [p.shape for p in levels] == [(32, 32), (64, 64), (1000, 1000)]


def test_refining_all_grids_keeps_their_ratios():
    levels = grid.plan(grid.lattice(384, 256), [32, 64, 128], 'all')
    assert [p.shape for p in levels] == [(96, 64), (192, 128), (384, 256)] and levels[1].doubled and levels[2].doubled
    tile = grid.plan(grid.lattice(384, 256).tile(5, 8, 2, 3), [32, 64, 128], 'all')  # rows 5, 6 lie in rows 1, 1 of the coarsest grid
    assert tile[0].shape == (1, 1) and tile[0].y.item() == levels[0].y[1] and tile[0].x.item() == levels[0].x[2]


def test_zooming_out_extends_the_grids_and_clamps_the_cells():
    levels = grid.plan(grid.lattice(64, 64, window=(-0.5, -0.5, 1.5, 1.5)), [16, 32])
    assert levels[0].shape == (32, 32) and levels[0].x.min() == -2 and levels[0].x.max() == 2 * 23 / 16 - 1
    rows, cols = levels[1].cells
    assert cols.lo.min() == 0 and cols.lo.max() == 31 and (cols.lo == 0).sum() == 17 and rows.lo.max() == 31


def test_smooth_reads_pass_through_trained_points_and_are_continuous():
    held = torch.arange(8.0)[None, None, None].expand(1, 1, 8, 8) ** 2
    fine = grid.plan(grid.lattice(16 * 8, 16 * 8), [8, 16], 'smooth')[1]
    rows, cols = fine.below
    lower = grid.plan(grid.lattice(16 * 8, 16 * 8), [8, 16], 'smooth')[0]
    index = ((lower.x + 1) / 2 * 8).round()
    values = cols(index[None, None, None] ** 2, dim=3)[0, 0, 0]
    trained = values[::8]
    assert torch.equal(trained[:16], held[0, 0, 0].repeat_interleave(2))
    steps = values.diff().abs()
    jumps = grid.plan(grid.lattice(16 * 8, 16 * 8), [8, 16], 'last')[1].below[1](held, dim=3)[0, 0, 0].diff().abs()
    assert jumps.max() == 13 and steps.max() <= 15 / 8 + 1e-5  # 'last' jumps by 7^2 - 6^2 at once, 'smooth' spreads a step over 8 points


@pytest.mark.parametrize(
    'arguments, word',
    [((0, 4), 'at least 1'), ((4, -1), 'at least 1'), ((4, 4, (0.5, 0, 0.5, 1)), 'no area'), ((4, 4, (0, 1, 1, 0)), 'no area')],
)
def test_pictures_without_area_are_refused(arguments, word):
    with pytest.raises(ValueError, match=word):
        grid.lattice(*arguments)


def test_an_unknown_refinement_is_refused():
    with pytest.raises(ValueError, match="unknown refinement 'best'"):
        grid.plan(grid.lattice(4, 4), [4], 'best')
