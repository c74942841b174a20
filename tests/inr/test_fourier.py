"""Coordinate features: the public implementation's basis, the order of columns, generated rows by hand."""

import math

import numpy as np
import pytest
import torch

from inr.fourier import CoordinateFeatures, FeatureSpec, log_basis, phases
from inr.grid import Points, training_points
from inr.refinement import AxisRead
from tests.helpers import ROOT, relative_error

LAYERS = np.load(ROOT / 'tests/data/parity/inr_layers.npz')


@pytest.mark.parametrize('resolution', [16, 64, 256])
@pytest.mark.parametrize('diagonal', [False, True])
def test_log_basis_is_that_of_the_public_implementation(resolution, diagonal):
    assert relative_error(log_basis(resolution, diagonal), LAYERS[f'log_basis.{resolution}.diag{int(diagonal)}']) < 1e-7


def test_phases_are_dot_products():
    x, y, basis = torch.tensor([1.0, 2, 3]), torch.tensor([10.0, 20]), torch.tensor([[1.0, 0], [0.5, -2]])
    expected = torch.tensor([[[1.0, 2, 3], [1, 2, 3]], [[-19.5, -19, -18.5], [-39.5, -39, -38.5]]])
    assert torch.equal(phases(basis, Points(x, y)), expected)


def test_columns_stand_in_the_stated_order():
    features = CoordinateFeatures(FeatureSpec(log=4, random=2, learned=1, generated=1, constants=2, raw=True), 16, w_dim=4)
    points = training_points([16])[0]
    w = torch.randn(3, 4)
    result = features(points, w)
    assert result.shape == (3, features.num_features, 16, 16) and features.num_features == 2 + 2 * 8 + 2
    assert torch.equal(result[0, 0], points.x.expand(16, 16)) and torch.equal(result[0, 1], points.y[:, None].expand(16, 16))
    given = features.affine(w)  # row by row x, y, then the phases
    rows = torch.cat([features.log_basis, features.random_basis, features.shared_basis])
    for n in range(3):
        angles = torch.cat([phases(rows, points), phases(given[n, None, :2] * math.sqrt(10), points) + given[n, 2]])
        assert relative_error(result[n, 2:10], angles.sin()) < 1e-5 and relative_error(result[n, 10:18], angles.cos()) < 1e-5
    assert torch.equal(result[0, 18:], features.const_embs[0])


def test_log_caps_every_direction_alike_and_cosine_can_be_left_out():
    features = CoordinateFeatures(FeatureSpec(log=5, cosine=False), 64, w_dim=4)
    lowest = torch.tensor([[0, 1.0], [0, 2], [1, 0], [2, 0]]) * math.pi / 2
    assert features.num_features == 4 and torch.allclose(features.log_basis, lowest)
    assert torch.equal(log_basis(64, diagonal=True, max_rows=11), log_basis(4, diagonal=True))  # two octaves in four directions
    result = features(training_points([64])[0], torch.randn(1, 4))
    assert relative_error(result[0], phases(lowest, training_points([64])[0]).sin()) < 1e-6


def _xy(resolution):
    points = training_points([resolution])[0]
    return points.x, points.y


def test_constants_are_read_from_the_cells_asked_for():
    features = CoordinateFeatures(FeatureSpec(constants=1), 16, w_dim=4)
    rows = AxisRead(torch.tensor([3, 4]))
    cols = AxisRead(torch.tensor([0, 7]), torch.tensor([1, 8]), torch.tensor([0.25, 0.5]))
    result = features(Points(torch.zeros(2), torch.zeros(2), cells=(rows, cols)), torch.randn(1, 4))[0, 0]
    held = features.const_embs[0, 0]
    expected = torch.stack([torch.stack([held[r, 0] * 0.75 + held[r, 1] * 0.25, (held[r, 7] + held[r, 8]) / 2]) for r in (3, 4)])
    assert relative_error(result, expected) < 1e-6


def test_spread_of_drawn_rows_and_constants():
    spec = FeatureSpec(random=4000, learned=4000, init='uniform', scale=3.0, constants=64)
    features = CoordinateFeatures(spec, 32, 4)
    assert features.random_basis.abs().max() <= 3 and abs(features.random_basis.std().item() - math.sqrt(3)) < 0.05
    assert features.shared_basis.requires_grad and features.shared_basis.abs().max() <= 3
    assert abs(features.const_embs.std().item() - 1) < 0.02


def test_an_unknown_init_is_refused():
    with pytest.raises(ValueError, match="init 'cauchy'"):
        FeatureSpec(init='cauchy')


def test_numbers_below_zero_are_refused():
    with pytest.raises(ValueError, match='below 0'):
        FeatureSpec(random=-3)
