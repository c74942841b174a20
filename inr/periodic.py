"""Pictures that go on at their beginning along x, y or both: a panorama, a texture that tiles.

`wraps` is (along x, along y) everywhere, `extent` the sides of the picture, see grid.Convention. Rows of a Fourier embedding get whole
periods in the picture; a row that has one stands for the coordinate itself, which would jump.

Legend: N images, n rows, H and W rows and columns of points.
"""

import math

import torch

from inr import PERIODIC


def wrapping_axes(periodic, upsampling, noise):
    """(along x, along y) of an option, one of PERIODIC. Raises ValueError for another, and for what ends at a picture's borders."""
    if periodic not in PERIODIC:
        raise ValueError(f"unknown periodic '{periodic}'; choose one of {', '.join(PERIODIC)}")
    if periodic != 'none' and (upsampling == 'bilinear' or noise):
        raise ValueError(f"periodic '{periodic}': aligned bilinear reads and stored noise end at the image's borders; leave them out")
    return tuple(axis in periodic for axis in 'xy')


def check_rows(spec, wraps):
    """Raises ValueError for rows of a fourier.FeatureSpec that cannot be rounded to whole periods."""
    if any(wraps) and (spec.learned or spec.generated):
        raise ValueError('learned and generated rows of coordinate features have no whole periods: a periodic picture has none of them')


def once_around(wraps, extent=(1, 1)):
    """Rows [0 to 2, 2] of one period in the training image of generator B, along the axes that wrap."""
    return torch.eye(2)[[axis for axis, wrap in enumerate(wraps) if wrap]] * math.pi / torch.tensor(extent)


def on_circle(rows, wraps, extent=(1, 1)):
    """Rows [..., n, 2] with the nearest frequencies that have whole periods in the training image, along the axes that wrap."""
    if not any(wraps):
        return rows
    sides = torch.tensor(extent, dtype=rows.dtype, device=rows.device)
    whole = rows.sign() * (rows.abs() * sides / math.pi + 0.5).floor() * math.pi / sides
    return torch.where(torch.tensor(wraps, device=rows.device), whole, rows)


def without_jumps(x, y, wraps):
    """Coordinates (x, y), of any shape, with 0 in place of those that jump where the picture begins."""
    return tuple(axis * (not wrap) for axis, wrap in zip((x, y), wraps, strict=True))
