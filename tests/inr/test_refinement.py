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
        assert ours.doubled == theirs.doubled and ours.parent is None and ours.cells is None


@pytest.mark.parametrize('size', [48, 96, 33, 200])
def test_cells_are_those_of_exact_arithmetic(size):
    """Column j of W lies in cell floor(j R / W); row i of H, sampled at its lower border, in the row whose lower border is next."""
    level = refinement.plan(grid.lattice(size, size), [32, 64], 'last')
    rows, cols = level[1].parent
    cells = 32
    exact_cols = np.array([j * cells // size for j in range(size)])
    exact_rows = np.array([-(-(i + 1) * cells // size) - 1 for i in range(size)])
    assert np.array_equal(np.unique(exact_cols)[cols.lo], exact_cols)
    assert np.array_equal(np.unique(exact_rows)[rows.lo], exact_rows)
    assert torch.equal(level[0].x, torch.as_tensor(2 * np.unique(exact_cols) / cells - 1, dtype=torch.float32))
    assert torch.equal(level[0].y, torch.as_tensor(1 - 2 * (np.unique(exact_rows) + 1) / cells, dtype=torch.float32))


def test_a_small_picture_needs_only_the_cells_it_hits():
    grids = refinement.plan(grid.lattice(8, 16), [32, 64, 128])
    assert [p.shape for p in grids] == [(8, 16)] * 3
    grids = refinement.plan(grid.lattice(1000, 1000), [32, 64, 128], 'last')
    assert [p.shape for p in grids] == [(32, 32), (64, 64), (1000, 1000)]


def test_refining_all_grids_keeps_their_ratios_and_leads():
    grids = refinement.plan(grid.lattice(384, 256), [32, 64, 128], 'all')
    assert [p.shape for p in grids] == [(96, 64), (192, 128), (384, 256)] and grids[1].doubled and grids[2].doubled
    tile = refinement.plan(grid.lattice(384, 256).tile(5, 8, 2, 3), [32, 64, 128], 'all')  # rows 5, 6 lie in rows 1, 1 of the coarsest grid
    assert tile[0].shape == (1, 1) and tile[0].y.item() == grids[0].y[1] and tile[0].x.item() == grids[0].x[2]
    for level, cells in zip(grids, (32, 64, 128), strict=True):
        ratio, factor_x, factor_y = 128 // cells, 2, 3
        x = level.x.repeat_interleave(ratio)  # what a finest point reads lies as far from it, on average, as in training
        y = level.y.repeat_interleave(ratio)
        trained_lead = (ratio - 1) / 2 / 128
        assert torch.allclose((grids[2].x - x).mean() / 2, torch.tensor(trained_lead), atol=1e-6)
        assert torch.allclose((grids[2].y - y).mean() / 2, torch.tensor(trained_lead), atol=1e-6)
        assert len(level.x) == cells * factor_x and len(level.y) == cells * factor_y


@pytest.mark.parametrize('size', [16, 48, 100, 128])
def test_up_to_the_trained_size_all_refinements_are_one(size):
    plans = [refinement.plan(grid.lattice(size, size), [32, 64, 128], refine) for refine in refinement.REFINEMENTS]
    for grids in zip(*plans, strict=True):
        assert all(torch.equal(p.x, grids[0].x) and torch.equal(p.y, grids[0].y) for p in grids)
        assert all(p.doubled == grids[0].doubled and p.shape == grids[0].shape for p in grids)


def test_zooming_out_extends_the_grids_and_clamps_the_cells():
    grids = refinement.plan(grid.lattice(64, 64, window=(-0.5, -0.5, 1.5, 1.5)), [16, 32])
    assert grids[0].shape == (32, 32) and grids[0].x.min() == -2 and grids[0].x.max() == 2 * 23 / 16 - 1
    rows, cols = grids[1].cells
    assert cols.lo.min() == 0 and cols.lo.max() == 31 and (cols.lo == 0).sum() == 17 and rows.lo.max() == 31


@pytest.mark.parametrize('far_corner', [False, True])
@pytest.mark.parametrize('factor', [1, 1.5, 2, 8])
def test_smooth_reads_ramp_between_the_middles_of_cells(far_corner, factor):
    """A cell's features stand in the middle of the finest points that read them: halfway between two of those, both count half."""
    size = int(16 * factor)
    axis = 0 if far_corner else 1  # rows are sampled at the far corner of a cell, columns at the near one
    coarse, fine = refinement.plan(grid.lattice(size, size), [8, 16], 'smooth')
    held = ((1 - coarse.y) * 4 - 1 if far_corner else (coarse.x + 1) * 4).reshape(-1, 1) if axis == 0 else ((coarse.x + 1) * 4)[None]
    read = fine.parent[axis](held, dim=axis).flatten() if not fine.doubled else held.flatten().repeat_interleave(2)
    place = ((np.arange(size) + 1) / factor - 1 if far_corner else np.arange(size) / factor) / 2 - 0.25  # in cells, 0 their middle
    cell, frac = np.divmod(place, 1)
    ramp = np.round(frac) if factor == 1 else np.clip((frac - 0.5) / min(factor - 1, 1) + 0.5, 0, 1)
    assert np.abs(read.numpy() - (cell + ramp)).max() < 1e-5


def _read(upsampling, size, window, refine='last', convention=grid.GENERATOR_B):
    """Where, in samples of the coarse grid of [8, 16], the columns and rows of a picture read it."""
    _, fine = grids = refinement.plan(grid.lattice(size, size, window, convention), [8, 16], refine, convention, upsampling=upsampling)
    factor = max(size / (window[2] - window[0]) / 16, 1) if refine == 'all' else 1
    rows, cols = fine.parent
    lead = 0.25 * (1 - 1 / factor)
    at_u = grids[0].x.double() if not convention.centred else (grids[0].x.double() + 1) / 2
    at_v = grids[0].y.double() if not convention.centred else (1 - grids[0].y.double()) / 2 - 1 / 8 / factor
    near = 1 if convention.lower_corner else -1
    return (cols(at_u[None], dim=1)[0] * 8 + lead) * factor, (rows(at_v[:, None], dim=0)[:, 0] * 8 - near * lead) * factor


@pytest.mark.parametrize('convention', [grid.GENERATOR_A, grid.GENERATOR_B])
def test_linear_reads_double_the_trained_grid_as_pytorch_does(convention):
    expected = torch.nn.functional.interpolate(torch.arange(8.0)[None, None], scale_factor=2, mode='linear')[0, 0]
    for read in _read('linear', 16, grid.WHOLE, convention=convention):
        assert torch.allclose(read.float(), expected, atol=1e-6)
    for upsampling, options in (('linear', {}), ('bilinear', dict(align_corners=True))):
        axis = refinement.doubled(16, upsampling)
        expected = torch.nn.functional.interpolate(torch.arange(8.0)[None, None], scale_factor=2, mode='linear', **options)[0, 0]
        assert torch.allclose(axis(torch.arange(8.0), dim=0), expected, atol=1e-6)


@pytest.mark.parametrize('window', [grid.WHOLE, (-0.5, -0.5, 1.5, 1.5), (0.25, 0.25, 0.75, 0.75)])
@pytest.mark.parametrize('size', [16, 40, 64])
def test_linear_reads_are_a_function_of_the_point(window, size):
    """Whatever is drawn, the column at u reads at 8 u - 1/4, rows likewise; within the image no further than the border's samples."""
    x0, x1 = window[::2]
    step = (x1 - x0) / size
    u, v = x0 + step * np.arange(size), x0 + step * (np.arange(size) + 1)
    within = (u >= 0) & (u < 1), (v > 0) & (v <= 1)
    for read, place, inside in zip(_read('linear', size, window), (8 * u - 0.25, 8 * v - 0.75), within, strict=True):
        read = read.numpy()
        assert np.allclose(read[inside], np.clip(place, 0, 7)[inside], atol=1e-5)
        middle = (place < -1) | (place > 8)
        assert np.allclose(read[middle], place[middle], atol=1e-5)
        assert (np.diff(read) >= -1e-6).all() and np.diff(read).max() <= 8 * step * 4 + 1e-5  # at most four times as steep at the border


def test_linear_reads_of_all_grids_keep_the_leads():
    """Every grid twice as dense: reads stay a quarter of a cell behind, cells being half as wide, and grids move by the other quarter."""
    cols, rows = _read('linear', 32, grid.WHOLE, 'all')
    expected = torch.nn.functional.interpolate(torch.arange(16.0)[None, None], scale_factor=2, mode='linear')[0, 0].double()
    assert torch.allclose(cols, expected, atol=1e-5) and torch.allclose(rows, expected, atol=1e-5)


def test_an_unknown_refinement_is_refused():
    with pytest.raises(ValueError, match="unknown refinement 'best'"):
        refinement.plan(grid.lattice(4, 4), [4], 'best')


def test_rounding_does_not_decide_the_cell():
    """Points on a border in exact arithmetic, off it by rounding in float64."""
    from fractions import Fraction
    from math import floor

    window, width, cells = (-41.428571, 0.0, 26.142857, 1.0), 286, 64
    x0, x1 = (Fraction(str(v)) for v in (window[0], window[2]))
    exact = np.array([floor((x0 + (x1 - x0) * j / width) * cells) for j in range(width)])
    grids = refinement.plan(grid.lattice(4, width, window), [cells, 128], 'last')
    drawn = ((grids[0].x.double() + 1) / 2 * cells).round().long().numpy()[grids[1].parent[1].lo]
    assert np.array_equal(drawn, exact)


def test_rounding_does_not_decide_the_row():
    """Every third row of this picture is sampled on the border of a cell, or would be but for the last bit of a float64."""
    from fractions import Fraction
    from math import ceil

    exact = np.array([ceil((Fraction(6, 5) * (i + 1) / 48 - Fraction(1, 10)) * 32) - 1 for i in range(48)])
    grids = refinement.plan(grid.lattice(48, 48, (-0.1, -0.1, 1.1, 1.1)), [32, 64], 'last')
    drawn = ((1 - grids[0].y.double()) / 2 * 32 - 1).round().long().numpy()[grids[1].parent[0].lo]
    assert np.array_equal(drawn, exact)
