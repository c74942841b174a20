"""Rotating, shifting and scaling an image by its coordinates (INR-GAN, appendix D): f(W p) with another W draws another placement.

The map is composed with the first layer, the embedding of the coordinates; the points that are drawn stay where they are.
"""

import copy
import math
from dataclasses import replace

import torch
from torch import nn

from inr.fourier import plane


class Placed(nn.Module):
    """Coordinate features of matrix p + offset in place of p: W becomes W matrix, its phases W offset more. Called as the ones it wraps.

    matrix: [2, 2], offset: [2], in the model's coordinates
    """

    def __init__(self, coords, matrix, offset):
        super().__init__()
        self.coords, self.num_features = coords, coords.num_features
        self.register_buffer('matrix', matrix)
        self.register_buffer('offset', offset)

    def rows(self, w):
        rows, shift = self.coords.rows(w)
        moved = rows @ self.offset
        return rows @ self.matrix, moved if shift is None else shift + moved

    def forward(self, points, w):
        coordinates = torch.einsum('ij,njhw->nihw', self.matrix, plane(points)) + self.offset[:, None, None]
        return self.coords.features(points, *self.rows(w), coordinates)


def placement(convention, angle=0.0, shift=(0.0, 0.0), scale=1.0):
    """(matrix [2, 2], offset [2]): where a point of the moved picture is in the one it comes from, in the model's coordinates.

    angle: degrees, clockwise as the picture is seen, about its centre; scale: above 1 enlarges, about the centre
    shift: (right, down) in units of the image
    """
    turn = math.radians(angle)
    R = torch.tensor([[math.cos(turn), math.sin(turn)], [-math.sin(turn), math.cos(turn)]], dtype=torch.float64)  # back, y down
    extent = torch.tensor(convention.extent, dtype=torch.float64)
    centre, moved = extent / 2, torch.tensor(shift, dtype=torch.float64) * extent
    matrix, offset = R / scale, centre - R / scale @ (centre + moved)  # c + R (p - c - d) / s
    if convention.centred:
        flip = torch.tensor([2.0, -2.0], dtype=torch.float64)
        start = extent * flip / -2  # (2u - 1, 1 - 2v)
        matrix = flip[:, None] * matrix / flip[None]
        offset = flip * offset + start - matrix @ start
    return matrix.float(), offset.float()


def compose(G, matrix, offset):
    """A copy of a generator whose images are placed by a map of its coordinates (see Placed).

    Raises ValueError for a generator with learned constants: what belongs to the cells of a grid cannot turn with the coordinates.
    """
    moved = copy.deepcopy(G)
    for name in moved.synthesis.block_names:
        block = moved.synthesis.get_submodule(name)
        if block.coords is None:
            continue
        if getattr(getattr(block.coords, 'spec', None), 'constants', 0):
            raise ValueError('this generator has learned constants in the cells of its grids, which do not turn with the coordinates; '
                'paper, paper-tiny and inr-tiny have none')
        block.coords = Placed(block.coords, matrix.to(next(G.parameters())), offset.to(next(G.parameters())))
    return moved


def moved_points(points_per_grid, matrix, offset):
    """The points of all grids, mapped: what `compose` amounts to, done to the points instead."""
    moved = []
    for points in points_per_grid:
        x, y = torch.einsum('ij,jhw->ihw', matrix, plane(points)[0]) + offset[:, None, None]
        moved.append(replace(points, x=x, y=y))
    return moved
