"""Which points of every trained grid a picture needs: three ways to draw more pixels than were trained (INR-GAN, Fig. 14).

A pixel reads the cell of the next coarser grid it lies in, that cell is evaluated at its own point, and so on down. Only cells that are
read are evaluated, and every pixel can be computed alone.

Legend: n points along one axis.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional as F

from inr import REFINEMENTS
from inr.grid import GENERATOR_B, Points
from inr.ops.layer import double

UPSAMPLINGS = ('nearest', 'linear', 'bilinear')
_SNAP = 1e-9  # a position this close to a cell border lies on it: rounding must not decide the cell


@dataclass(frozen=True)
class AxisRead:
    """How the points along one axis read values held along another: value = (1 - frac) * held[lo] + frac * held[hi].

    lo, hi: int64 [n] indices into what is held; frac: float32 [n] in [0, 1), or None where the read is held[lo] alone (hi is None too).
    """

    lo: torch.Tensor
    hi: torch.Tensor | None = None
    frac: torch.Tensor | None = None

    def __call__(self, held, dim):
        low = held.index_select(dim, self.lo)
        if self.frac is None:
            return low
        frac = self.frac.to(held.dtype).reshape([-1 if d == dim % held.ndim else 1 for d in range(held.ndim)])
        return torch.lerp(low, held.index_select(dim, self.hi), frac)


def doubled(size, upsampling, device=None):
    """AxisRead of the `size` points of a trained axis out of half as many; the trained grids themselves use F.interpolate."""
    index = np.arange(size)
    if upsampling == 'nearest':
        return AxisRead(torch.arange(size, device=device) // 2)
    low, frac = _split(_aligned(index, size, size // 2) if upsampling == 'bilinear' else np.clip(index / 2 - 0.25, 0, size // 2 - 1))
    return _to_torch((low, low + (frac > 0), frac), device)


@dataclass(frozen=True)
class ParentUpsample:
    """How values at the points of the grid below, [N, C, h, w], reach `points`: [N, C, H, W]. upsampling: see plan."""

    points: Points
    upsampling: str = 'nearest'

    @property
    def doubling(self):
        """'nearest' or 'linear' where grids are doubled whole, in one of ops.layer.DOUBLINGS; else None."""
        return self.upsampling if self.points.doubled and self.upsampling != 'bilinear' and not self.points.crop else None

    @property
    def axes(self):
        """The same as (rows, columns), two AxisRead."""
        if not self.points.doubled:
            return self.points.parent
        return tuple(doubled(size, self.upsampling, self.points.x.device) for size in self.points.shape)

    def __call__(self, x):
        if self.doubling is not None:
            return double(x, self.doubling)
        if crop := self.points.crop:
            return double(x, self.upsampling)[:, :, crop:-crop, crop:-crop]
        if self.points.doubled:
            return F.interpolate(x, scale_factor=2, mode='bilinear', align_corners=True)
        rows, cols = self.points.parent
        return rows(cols(x, dim=3), dim=2)


def check(refine):
    """Raises ValueError for a refinement that is not one of REFINEMENTS."""
    if refine not in REFINEMENTS:
        raise ValueError(f"unknown refinement '{refine}'; choose one of {', '.join(REFINEMENTS)}")


def plan(points, grids, refine='all', convention=GENERATOR_B, device=None, upsampling='nearest'):
    """Points of every grid that drawing the lattice `points` needs, coarse to fine.

    points: Lattice to draw
    grids: resolutions of the trained grids, coarse to fine, each a multiple of the one before
    refine: what becomes denser where `points` are denser than the finest grid by a factor s > 1
        'last': the finest grid alone; coarser ones are evaluated at those trained points whose cells are hit
        'smooth': the same, but the finest grid reads the features below bilinearly, from s = 2 on without a step
        'all': every grid by the factor s, so that a cell stays as many pixels wide as it was in training
    upsampling: how the model reads the grid below a point p
        'nearest': the cell p lies in
        'linear': between the four nearest samples, as far behind p as the centres of finer cells lie behind those of coarser ones, which
            is what 'nearest' does on average and doubles the trained grids with weights 3/4 and 1/4. Within the image no sample outside
            of it is read: the border's own reaches to its edge; from there the first sample outside takes over
        'bilinear': the same with the corners of both trained grids aligned; refine is ignored
    Up to the trained density all refinements are the same, and the trained size and window give the trained points and reads.
    Returns a list of Points, one a grid.
    """
    check(refine)
    axes_u, axes_v = (
        _plan_axis(position, density, grids, refine, far_corner, upsampling, convention.middles, wraps, extent)
        for position, density, far_corner, wraps, extent in zip(
            (points.u, points.v), points.density, (False, convention.lower_corner), convention.periodic, convention.extent, strict=True
        )
    )  # fmt: skip
    points_per_grid = []
    for resolution, (u, u_parent, u_cells), (v, v_parent, v_cells) in zip(grids, axes_u, axes_v, strict=True):
        x, y = (torch.as_tensor(t, dtype=torch.float32, device=device) for t in convention.coordinates(u, v))
        is_doubled = _is_doubling(u_parent) and _is_doubling(v_parent)
        rows, columns = convention.shape(resolution)
        all_cells = _is_identity(u_cells, columns) and _is_identity(v_cells, rows)
        parent = None if u_parent is None or is_doubled else (_to_torch(v_parent, device), _to_torch(u_parent, device))
        cells = None if all_cells else (_to_torch(v_cells, device), _to_torch(u_cells, device))
        pixel = tuple(convention.unit / _fineness(resolution, grids[-1], density, refine, upsampling) for density in points.density)
        points_per_grid.append(Points(x, y, parent, is_doubled, cells, pixel=pixel))
    return points_per_grid


def _fineness(resolution, finest, density, refine, upsampling):
    """Cells per unit of a grid as it is drawn: no more than pixels, and where these are finer than trained as `refine` says."""
    factor = max(density / finest, 1) if resolution == finest or (refine == 'all' and upsampling != 'bilinear') else 1
    return min(density, resolution * factor)


def moved(level, grids, factor, far_corner, middles):
    """How far the points of a grid that is drawn `factor` > 1 times as fine move from where its finer cells are sampled.

    The finest points lie a lead behind the point of the coarse cell they read, on average; finer cells must not change that. With `middles`
    all move on, so that the middles of finer cells lie as far behind their points as those of trained ones.
    """
    finest = grids[-1]
    lead = 0.5 / grids[level] - 0.5 / finest + (0.5 / finest if middles else 0)
    return (lead if far_corner else -lead) * (1 - 1 / factor)


def held_cells(index, count, wraps):
    """Indices, of an array or a tensor, of the `count` cells that are held: outside of the image the nearest one, or the next round."""
    return index % count if wraps else index.clip(0, count - 1)


def _plan_axis(position, density, grids, refine, far_corner, upsampling, middles, wraps, extent):
    """One axis of `plan`: for each grid, coarse to fine, (positions, read of the parent grid or None, read of its own cells).

    far_corner: cells are sampled at the end of the axis, not at its start (rows of generator B)
    middles: see grid.Convention; wraps: whether it is periodic; extent: of the image along it
    """
    finest = grids[-1]
    factor = 1 if upsampling == 'bilinear' else max(_snapped(density / finest).item(), 1)
    shift, axis = 1 if far_corner else 0, []
    if middles and (factor == 1 or refine == 'smooth'):  # cells and shares are those of the place that is sampled
        position, middles = position + (0.5 / density - 0.5 / finest) * (-1 if far_corner else 1), False
    for level in reversed(range(len(grids))):
        resolution = grids[level]
        moves = refine == 'all' or (middles and level == len(grids) - 1)
        sampled = position + moved(level, grids, factor, far_corner, middles) if moves else position
        index, frac = _trained_index(sampled, resolution, shift)
        lo, hi = (held_cells(i, round(resolution * extent), wraps) for i in (index, index + 1))
        cells = (lo, hi, frac)
        if level == 0:
            axis.append((sampled, None, cells))
            break
        coarser = grids[level - 1] * (factor if refine == 'all' else 1)
        middle = (0.5 / grids[level - 1] - 0.5 / resolution) * (-1 if far_corner else 1)  # of the points that read a cell, from its own
        if upsampling == 'bilinear':
            read, frac = _split(_aligned(_snapped(position * resolution) - shift, resolution * extent, coarser * extent))
        elif upsampling == 'linear':
            behind, ends = middle * grids[level - 1] + shift, np.array([0, coarser * extent])
            t = _snapped(position * coarser) - behind
            read, frac = _split(t if wraps else _within(t, *(ends - behind), np.ceil(coarser * extent) - 1))
        elif refine == 'smooth' and level == len(grids) - 1 and factor > 1:
            read, frac = _trained_index(position - middle, coarser, shift)
            frac = np.clip((frac - 0.5) / min(factor - 1, 1) + 0.5, 0, 1).astype(np.float32)
        else:
            read, frac = _cell(position, coarser, far_corner), None
        needed, lo, hi = _needed(read) if frac is None else _needed(read, read + (frac > 0))
        axis.append((sampled, (lo, hi, frac), cells))
        position = (needed + shift) / coarser
    return axis[::-1]


def _needed(*indices):
    """Sorted distinct indices and, for each array given (the second may be missing), where its entries stand among them."""
    needed, inverse = np.unique(np.stack(indices), return_inverse=True)
    lo, *hi = inverse.reshape(len(indices), -1)
    return needed, lo, hi[0] if hi else None


def _snapped(t):
    nearest = np.rint(t)
    return np.where(np.abs(t - nearest) <= _SNAP * np.maximum(1, np.abs(t)), nearest, t)


def _split(t):
    """(int64 index of the last sample at or before t, float32 fraction of the way to the next one); t counts samples."""
    t = _snapped(t)
    index = np.floor(t)
    return index.astype(np.int64), (t - index).astype(np.float32)


def _trained_index(position, resolution, shift):
    """`_split` of positions among the samples of a trained axis, unbounded."""
    return _split(_snapped(position * resolution) - shift)


def _aligned(t, size, coarser):
    """t, which counts the samples of an axis of `size`, in samples of one of `coarser` with the same ends."""
    return t * (coarser - 1) / (size - 1)


def _within(t, first, end, last):
    """t with the samples 0 and `last` held up to the image's ends, at t = first < 0 and t = end; beyond, the next one takes over."""
    t = np.where((t > -1) & (t < 0), np.minimum((t + 1) / (first + 1) - 1, 0), t)
    return np.where((t > last) & (t < last + 1), last + np.maximum(t - end, 0) / (last + 1 - end), t) if last < end < last + 1 else t


def _cell(position, resolution, far_corner):
    """Cell of each position: the one whose sampled corner a position on a border belongs to."""
    t = _snapped(position * resolution)
    return (np.ceil(t) - 1 if far_corner else np.floor(t)).astype(np.int64)


def _is_doubling(read):
    return read is not None and read[1] is None and len(read[0]) % 2 == 0 and np.array_equal(read[0], np.arange(len(read[0])) // 2)


def _is_identity(read, count):
    lo, _, frac = read
    return not frac.any() and np.array_equal(lo, np.arange(count))


def _to_torch(read, device):
    lo, hi, frac = read
    if frac is None or not frac.any():
        return AxisRead(torch.as_tensor(lo, device=device))
    return AxisRead(*(torch.as_tensor(a, device=device) for a in (lo, hi, frac)))
