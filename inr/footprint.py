"""Rows of a Fourier embedding that are finer than the trained cells, and how they fade where a pixel is too large for them.

Legend: N images, n rows.
"""

import math

import torch

FOOTPRINTS = (None, 'pixel', 'larger')  # None: none; 'larger': only in pixels larger than trained ones, and by what they are larger


def check(footprint):
    """Raises ValueError for one that is not in FOOTPRINTS."""
    if footprint not in FOOTPRINTS:
        raise ValueError(f"unknown footprint '{footprint}' of a pixel; choose {' or '.join(filter(None, FOOTPRINTS))}")


def octaves(count, reach):
    """Frequencies of `count` fine rows in units of half a period in a cell, [count]: spread over octaves up to `reach`."""
    return reach ** ((torch.arange(count) + 0.5) / max(count, 1))


def damping(count, reach):
    """Weights of fine rows that fall as their frequency rises, from about 1 on, [count]."""
    return 1 / octaves(count, reach)


def fine_rows(count, resolution, reach):
    """Rows [count, 2] in random directions, their frequencies spread over octaves from half a period in a cell to `reach` times that."""
    frequency = math.pi / 2 * resolution * octaves(count, reach)
    angle = torch.rand([count]) * math.pi
    return torch.stack([angle.cos(), angle.sin()], dim=1) * frequency[:, None]


def kept_by_pixels(rows, pixel):
    """What a pixel's area leaves of waves: exp(-(w_x^2 a^2 + w_y^2 b^2) / 24), a Gaussian as wide as the pixel (arXiv 2103.13415, eq. 13).

    rows: [N or 1, n, 2] in radians per unit; pixel: (a, b), width and height in these units, numbers or [N, 1]
    Returns [N or 1, n]: 0.66 of a wave of two pixels, 0.19 of one of one pixel.
    """
    return torch.exp(((rows[..., 0] * pixel[0]).square() + (rows[..., 1] * pixel[1]).square()) / -24)


def kept(footprint, rows, pixel, resolution):
    """The same as `footprint`, one of FOOTPRINTS, says for a grid of R x R cells; None where all is kept."""
    if footprint is None:
        return None
    if footprint == 'larger':
        pixel = [(torch.as_tensor(side) ** 2 - (2 / resolution) ** 2).clamp(min=0).sqrt().to(rows.device) for side in pixel]
    return kept_by_pixels(rows, pixel)
