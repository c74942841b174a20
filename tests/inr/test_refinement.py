"""Points that a picture needs of every grid: against exact arithmetic and hand-made grids."""

import numpy as np
import pytest
import torch

from inr import grid, refinement


@pytest.mark.parametrize('convention', [grid.GENERATOR_A, grid.GENERATOR_B])
@pytest.mark.parametrize('refine', refinement.REFINEMENTS)
def test_the_training_size_gives_the_training_points_bit_for_bit(convention, refine):
    trained = grid.training_points([32, 64, 128], convention)
    planned = refinement.plan(grid.lattice(128, 128, convention=convention), [32, 64, 128], refine, convention)
    assert torch.equal(planned[-1].x, trained[-1].x) and torch.equal(planned[-1].y, trained[-1].y)
    assert planned[-1].cells is None
    for ours, theirs in zip(planned, trained, strict=True):
        assert torch.equal(ours.x, theirs.x) and torch.equal(ours.y, theirs.y)
        assert ours.doubled == theirs.doubled and ours.below is None and ours.cells is None


@pytest.mark.parametrize('size', [48, 96, 33, 200])
def test_cells_are_those_of_exact_arithmetic(size):
    """Column j of W lies in cell floor(j R / W); row i of H, sampled at its lower border, in the row whose lower border is next."""
    level = refinement.plan(grid.lattice(size, size), [32, 64])
    rows, cols = level[1].below
    cells = 32
    exact_cols = np.array([j * cells // size for j in range(size)])
    exact_rows = np.array([-(-(i + 1) * cells // size) - 1 for i in range(size)])
    assert np.array_equal(np.unique(exact_cols)[cols.lo], exact_cols)
    assert np.array_equal(np.unique(exact_rows)[rows.lo], exact_rows)
    assert torch.equal(level[0].x, torch.as_tensor(2 * np.unique(exact_cols) / cells - 1, dtype=torch.float32))
    assert torch.equal(level[0].y, torch.as_tensor(1 - 2 * (np.unique(exact_rows) + 1) / cells, dtype=torch.float32))


def test_a_small_picture_needs_only_the_cells_it_hits():
    levels = refinement.plan(grid.lattice(8, 16), [32, 64, 128])
    assert [p.shape for p in levels] == [(8, 16)] * 3
    levels = refinement.plan(grid.lattice(1000, 1000), [32, 64, 128])
    assert [p.shape for p in levels] == [(32, 32), (64, 64), (1000, 1000)]


def test_refining_all_grids_keeps_their_ratios():
    levels = refinement.plan(grid.lattice(384, 256), [32, 64, 128], 'all')
    assert [p.shape for p in levels] == [(96, 64), (192, 128), (384, 256)] and levels[1].doubled and levels[2].doubled
    tile = refinement.plan(grid.lattice(384, 256).tile(5, 8, 2, 3), [32, 64, 128], 'all')  # rows 5, 6 lie in rows 1, 1 of the coarsest grid
    assert tile[0].shape == (1, 1) and tile[0].y.item() == levels[0].y[1] and tile[0].x.item() == levels[0].x[2]


def test_zooming_out_extends_the_grids_and_clamps_the_cells():
    levels = refinement.plan(grid.lattice(64, 64, window=(-0.5, -0.5, 1.5, 1.5)), [16, 32])
    assert levels[0].shape == (32, 32) and levels[0].x.min() == -2 and levels[0].x.max() == 2 * 23 / 16 - 1
    rows, cols = levels[1].cells
    assert cols.lo.min() == 0 and cols.lo.max() == 31 and (cols.lo == 0).sum() == 17 and rows.lo.max() == 31


def test_smooth_reads_pass_through_trained_points_and_are_continuous():
    held = torch.arange(8.0)[None, None, None].expand(1, 1, 8, 8) ** 2
    fine = refinement.plan(grid.lattice(16 * 8, 16 * 8), [8, 16], 'smooth')[1]
    rows, cols = fine.below
    lower = refinement.plan(grid.lattice(16 * 8, 16 * 8), [8, 16], 'smooth')[0]
    index = ((lower.x + 1) / 2 * 8).round()
    values = cols(index[None, None, None] ** 2, dim=3)[0, 0, 0]
    trained = values[::8]
    assert torch.equal(trained[:16], held[0, 0, 0].repeat_interleave(2))
    steps = values.diff().abs()
    jumps = refinement.plan(grid.lattice(16 * 8, 16 * 8), [8, 16], 'last')[1].below[1](held, dim=3)[0, 0, 0].diff().abs()
    assert jumps.max() == 13 and steps.max() <= 15 / 8 + 1e-5  # 'last' jumps by 7^2 - 6^2 at once, 'smooth' spreads a step over 8 points


def test_an_unknown_refinement_is_refused():
    with pytest.raises(ValueError, match="unknown refinement 'best'"):
        refinement.plan(grid.lattice(4, 4), [4], 'best')
