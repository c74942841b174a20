"""Reading between pixels: torch's own values and gradients, and the second order that torch does not have."""

import pytest
import torch
import torch.nn.functional as F

from torch_utils.ops.grid_sample import grid_sample


def make(dtype=torch.float64):
    x = torch.randn(2, 3, 5, 4, dtype=dtype, requires_grad=True)
    grid = torch.rand(2, 3, 6, 2, dtype=dtype) * 2.6 - 1.3   # some positions are outside
    return x, grid


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_values_and_gradient_are_those_of_torch(dtype):
    x, grid = make(dtype)
    dy = torch.randn(2, 3, 3, 6, dtype=dtype)
    found, expected = grid_sample(x, grid), F.grid_sample(x, grid, align_corners=False)
    assert torch.equal(found, expected)
    assert torch.equal(*(torch.autograd.grad(y, x, dy)[0] for y in (found, expected)))


def test_gradients_of_both_orders():
    x, grid = make()

    def squared(x):
        return grid_sample(x, grid).square()

    assert torch.autograd.gradcheck(squared, x)
    assert torch.autograd.gradgradcheck(squared, x)


def test_the_grid_is_a_constant():
    x, grid = make()
    grid.requires_grad_()
    assert torch.autograd.grad(grid_sample(x, grid).sum(), grid, allow_unused=True) == (None,)


def test_a_grid_of_another_type_is_taken():
    x, grid = make(torch.float32)
    assert torch.equal(grid_sample(x, grid.double()), grid_sample(x, grid))
