"""Bilinear grid sampling with derivatives of every order, which torch's own operator lacks."""

import torch


def grid_sample(input, grid):
    """Read an image at given points: bilinear, zeros outside, align_corners=False.

    input: [N, C, H, W]
    grid:  [N, H_out, W_out, 2], (x, y) with -1 and 1 the outer edges of the image
    Returns [N, C, H_out, W_out], differentiable in both arguments.
    """
    N, C, H, W = input.shape
    H_out, W_out = grid.shape[1:3]
    x = ((grid[..., 0] + 1) * W - 1) / 2  # [N, H_out, W_out], in pixels
    y = ((grid[..., 1] + 1) * H - 1) / 2
    left, top = x.detach().floor(), y.detach().floor()
    pixels = input.flatten(2)  # [N, C, H*W]
    out = torch.zeros_like(input[:, :, :1, :1])
    for column, row in ((left, top), (left + 1, top), (left, top + 1), (left + 1, top + 1)):
        inside = (column >= 0) & (column < W) & (row >= 0) & (row < H)
        index = row.clamp(0, H - 1).long() * W + column.clamp(0, W - 1).long()
        corner = pixels.gather(2, index.flatten(1)[:, None].expand(-1, C, -1))  # [N, C, H_out*W_out]
        weight = (1 - (x - column).abs()) * (1 - (y - row).abs()) * inside
        out = out + corner.reshape(N, C, H_out, W_out) * weight[:, None].to(input.dtype)
    return out
