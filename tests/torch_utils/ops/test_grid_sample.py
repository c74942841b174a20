"""Tests of grid_sample: torch's own operator as the oracle for values and first order, gradgradcheck for the second."""

import pytest
import torch
import torch.nn.functional as F

from tests.helpers import relative_error
from torch_utils.ops.grid_sample import grid_sample


@pytest.mark.parametrize('dtype,tolerance', [(torch.float64, 1e-12), (torch.float32, 1e-5)])
@pytest.mark.parametrize('size', [(5, 8), (1, 3), (6, 2)])
def test_values_and_gradients_against_torch(size, dtype, tolerance):
    image = torch.randn(2, 3, *size, dtype=dtype, requires_grad=True)
    grid = (torch.rand(2, 4, 7, 2, dtype=dtype) * 3 - 1.5).requires_grad_()  # a third of it outside
    ours, theirs = grid_sample(image, grid), F.grid_sample(image, grid, mode='bilinear', padding_mode='zeros', align_corners=False)
    assert ours.dtype == dtype
    assert relative_error(ours, theirs) < tolerance
    cotangent = torch.randn_like(ours)
    gradients = (torch.autograd.grad(y, (image, grid), cotangent) for y in (ours, theirs))
    for a, b in zip(*gradients, strict=True):
        assert relative_error(a, b) < 10 * tolerance


def test_both_orders_in_image_and_grid():
    image = torch.randn(1, 2, 4, 3, dtype=torch.float64, requires_grad=True)
    grid = (torch.rand(1, 3, 2, 2, dtype=torch.float64) * 2.4 - 1.2).requires_grad_()
    assert torch.autograd.gradcheck(grid_sample, (image, grid))
    assert torch.autograd.gradgradcheck(grid_sample, (image, grid))


def test_pixel_centres_return_the_image_and_far_points_zero():
    image = torch.randn(1, 2, 4, 4)
    centres = (torch.arange(4) + 0.5) / 2 - 1
    grid = torch.stack(torch.meshgrid(centres, centres, indexing='xy'), dim=-1)[None]
    assert torch.equal(grid_sample(image, grid), image)
    assert torch.equal(grid_sample(image, grid + 1e9), torch.zeros_like(image))
    assert torch.equal(grid_sample(image, torch.full_like(grid, -1e30)), torch.zeros_like(image))
