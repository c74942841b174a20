"""Bilinear reading of images at given positions, differentiable in the images to any order.

torch's own grid_sample has no second derivative, which R1 needs through an augmentation. Reading is linear in the image, and the transpose
of it, adding every value to the pixels it was read from, is linear too: each is the other's derivative.
"""

import torch
import torch.nn.functional as F


def grid_sample(x, grid):
    """Values of images at positions between their pixels; what is outside counts as zero.

    x:    [N, C, H, W]
    grid: [N, rows, columns, 2] of (x, y), -1 to 1 from the left or upper edge to the other one. A constant: it gets no gradient
    Returns [N, C, rows, columns].
    """
    return _Read.apply(x, grid.detach().to(x.dtype))


class _Read(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, grid):
        ctx.save_for_backward(grid)
        ctx.shape = x.shape
        return F.grid_sample(x, grid, mode='bilinear', padding_mode='zeros', align_corners=False)

    @staticmethod
    def backward(ctx, dy):
        return _Add.apply(dy, *ctx.saved_tensors, ctx.shape), None


class _Add(torch.autograd.Function):
    """The transpose of `_Read`: each value is added to the four pixels around its position, by their shares."""

    @staticmethod
    def forward(ctx, y, grid, shape):
        ctx.save_for_backward(grid)
        bilinear = zeros = 0  # in the order of torch's own enumerations
        like = y.new_zeros(1).expand(shape)  # only its shape counts where the grid gets no gradient
        return torch.ops.aten.grid_sampler_2d_backward(y.contiguous(), like, grid, bilinear, zeros, False, [True, False])[0]

    @staticmethod
    def backward(ctx, dx):
        return _Read.apply(dx, *ctx.saved_tensors), None, None
