"""Parts of larger pictures, one for each image of a batch: which points training draws of them.

Legend: N images, n points along one axis.
"""

from dataclasses import dataclass, replace

import torch

from inr.grid import Points
from inr.refinement import held_cells, moved


@dataclass(frozen=True)
class ImageReads:
    """refinement.AxisRead where every image has its own: lo, hi int64 [N, n] and frac float32 [N, n] in [0, 1]."""

    lo: torch.Tensor
    hi: torch.Tensor
    frac: torch.Tensor

    def __call__(self, held, dim):
        """held [N or 1, C, h, w], dim 2 or 3 -> [N, C, n, w] or [N, C, h, n]"""
        shares = self.frac.new_zeros([*self.lo.shape, held.shape[dim]])  # [N, n, h or w]
        for index, share in ((self.lo, 1 - self.frac), (self.hi, self.frac)):
            shares.scatter_add_(2, index[:, :, None], share[:, :, None])
        shares = shares.to(held.dtype)[:, None]
        return shares @ held if dim == 2 else held @ shares.mT


def packed(points_per_grid):
    """The tensors of what window_points returns, in two flat ones: float32 and int64."""
    flat = list(_tensors(points_per_grid))
    return tuple(torch.cat([each.flatten() for each in flat if each.dtype == dtype]) for dtype in (torch.float32, torch.int64))


def unpacked(parts, like):
    """Points with the tensors of `packed`, as views of them; like: points of the same shapes."""
    flat = list(_tensors(like))
    if any(part.numel() != sum(each.numel() for each in flat if each.dtype == part.dtype) for part in parts):
        raise ValueError('what is given in place of windows is of another number of images')
    begin, found = [0, 0], []
    for each in flat:
        which = int(each.dtype == torch.int64)
        found.append(parts[which][begin[which] : begin[which] + each.numel()].view(each.shape))
        begin[which] += each.numel()
    tensors = iter(found)
    return [_points(each, tensors) for each in like]


def _tensors(points_per_grid):
    for each in points_per_grid:
        yield from (each.x, each.y, *(part for read in each.cells for part in (read.lo, read.hi, read.frac)), *each.pixel)


def _points(like, tensors):
    x, y = next(tensors), next(tensors)
    cells = tuple(ImageReads(next(tensors), next(tensors), next(tensors)) for _ in like.cells)
    return replace(like, x=x, y=y, cells=cells, pixel=tuple(next(tensors) for _ in like.pixel))


def window_points(windows, grids, convention, device=None, upsampling='nearest'):
    """Points of parts of pictures, one part for each image: those of refinement.plan with refine='all', for all images at once.

    windows: int64 [N, 3], (size, left, top) of each: as many pixels as the training image has, from (left, top) of the whole picture drawn
        size / grids[-1] times as large. All are multiples of grids[-1] / grids[0], so that a part has as many cells of every grid as the
        training image; size is at least grids[-1]. A part may go on at the beginning of a picture that is periodic
    upsampling: 'nearest' or 'linear'; the latter reads cells around the part, which are then evaluated too
    Returns a list of Points, one a grid, coarse to fine.
    """
    size, *first = windows.to('cpu', torch.float64)[:, :, None].unbind(1)  # [N, 1]
    ends = [size * side - (1 if wraps else grids[-1] * side)  # the last places where a part may begin
            for side, wraps in zip(convention.extent, convention.periodic, strict=True)]
    outside = any(((start < 0) | (start > end)).any() for start, end in zip(first, ends, strict=True))
    if outside or (size < grids[-1]).any() or (windows % (grids[-1] // grids[0]) != 0).any():
        raise ValueError(f'windows {windows.tolist()} (size, left, top) do not lie in their pictures, on cells of the {grids[0]} grid')
    factor, points_per_grid = size / grids[-1], []
    for level, resolution in enumerate(grids):
        margin = 1 if upsampling == 'linear' and level < len(grids) - 1 else 0
        positions, cells = [], []
        counts = convention.shape(resolution)[::-1]
        for start, far_corner, wraps, count in zip(first, (False, convention.lower_corner), convention.periodic, counts, strict=True):
            shift = 1 if far_corner else 0
            index = torch.arange(-margin, count + margin) + start * resolution / grids[-1]  # [N, n]
            if not wraps:
                index = index.clamp(min=0).minimum(factor * count - 1)  # at the image's ends the last cell is read twice
            sampled = (index + shift) / (factor * resolution) + moved(level, grids, factor, far_corner, convention.middles)
            positions.append(sampled)
            low = (sampled * resolution - shift).floor()
            lo, hi = (held_cells(cell, count, wraps).long().to(device) for cell in (low, low + 1))
            cells.append(ImageReads(lo, hi, (sampled * resolution - shift - low).to(device, torch.float32)))
        x, y = (t.to(device, torch.float32) for t in convention.coordinates(*positions))
        crop = 2 - margin if upsampling == 'linear' and level else 0  # of twice as many cells as the grid below has, its margin among them
        pixel = (convention.unit / (factor * resolution)).to(device, torch.float32)  # [N, 1]
        points_per_grid.append(Points(x[:, None, None], y[:, None, :, None], None, level > 0, tuple(cells[::-1]), crop, (pixel, pixel)))
    return points_per_grid
