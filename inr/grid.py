"""Where pixels sit: sizes, windows, tiles, model coordinates and the cells of coarser grids. The one place that knows.

A picture is (height, width, window). `window = (x0, y0, x1, y1)` is in units of the training image: (0, 0, 1, 1) is the image, larger
windows zoom out, smaller ones zoom in, (x0, y0) is the top left, y down. A position u runs along x, v along y, both in these units.

A trained grid of R x R samples every cell at one corner. Generator B takes the lower left one, u = j/R and v = (i+1)/R, and calls
x = 2u - 1, y = 1 - 2v (y upward). Generator A takes the upper left one, u = j/R and v = i/R, and uses them as they are.

Legend: H, W rows and columns of points; R resolution of a trained grid; n points along one axis.
"""

from dataclasses import dataclass

import numpy as np
import torch

WHOLE = (0.0, 0.0, 1.0, 1.0)
REFINEMENTS = ('last', 'all', 'smooth')
_SNAP = 1e-9  # a position this close to a cell border lies on it: rounding must not decide the cell


@dataclass(frozen=True)
class Convention:
    """How a family of models samples its cells and names its coordinates.

    lower_corner: rows are sampled at v = (i+1)/R if true, at v = i/R if not
    centred: coordinates are (2u - 1, 1 - 2v) if true, (u, v) if not
    """

    lower_corner: bool
    centred: bool

    def coordinates(self, u, v):
        """Model coordinates (x [W], y [H]) of positions (u [W], v [H])."""
        return (2 * u - 1, 1 - 2 * v) if self.centred else (u, v)


GENERATOR_A = Convention(lower_corner=False, centred=False)
GENERATOR_B = Convention(lower_corner=True, centred=True)


@dataclass(frozen=True)
class Lattice:
    """Points of a picture: every pair of a column position u [W] and a row position v [H], float64; density: points per unit (x, y)."""

    u: np.ndarray
    v: np.ndarray
    density: tuple[float, float]

    def tile(self, top, left, height, width):
        """The part of the lattice under `height` x `width` pixels from (top, left): a slice, never recomputed."""
        return Lattice(self.u[left : left + width], self.v[top : top + height], self.density)


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


@dataclass(frozen=True)
class Points:
    """The points at which the blocks of one grid are evaluated, and where these points find what lies below them.

    x: float32 [W], y: float32 [H]  model coordinates
    below: (rows, columns) reads into the points of the next coarser grid; None where there is none or `doubled` says it all
    doubled: every row and column below is read twice, in order (the trained grids do)
    cells: (rows, columns) reads into the R x R cells of the grid itself, for learned constants; None for all cells in order
    """

    x: torch.Tensor
    y: torch.Tensor
    below: tuple[AxisRead, AxisRead] | None = None
    doubled: bool = False
    cells: tuple[AxisRead, AxisRead] | None = None

    @property
    def shape(self):
        return self.y.shape[0], self.x.shape[0]


def lattice(height, width, window=WHOLE, convention=GENERATOR_B):
    """Lattice of `height` x `width` points spread over `window`, sampled at the corner that `convention` says.

    Raises ValueError if a size is below 1 or the window has no area.
    """
    x0, y0, x1, y1 = window
    if height < 1 or width < 1:
        raise ValueError(f'a picture of {width}x{height} pixels has none; both sides must be at least 1')
    if not (np.isfinite(window).all() and x1 > x0 and y1 > y0):
        raise ValueError(f'window {tuple(window)} has no area; give x0,y0,x1,y1 with x0 < x1 and y0 < y1')
    shift = 1 if convention.lower_corner else 0
    u = x0 + (x1 - x0) * np.arange(width, dtype=np.float64) / width
    v = y0 + (y1 - y0) * (np.arange(height, dtype=np.float64) + shift) / height
    return Lattice(u, v, (width / (x1 - x0), height / (y1 - y0)))


def training_points(grids, convention=GENERATOR_B, device=None):
    """Points of the trained grids `grids` (resolutions, coarse to fine): all cells, each grid twice as fine as the one before."""
    levels = []
    for resolution in grids:
        index = torch.arange(resolution, device=device, dtype=torch.float32)
        shift = 1 if convention.lower_corner else 0
        x, y = convention.coordinates(index / resolution, (index + shift) / resolution)
        levels.append(Points(x, y, doubled=bool(levels)))
    return levels


def plan(points, grids, refine='last', convention=GENERATOR_B, device=None, aligned=False):
    """Points of every grid that drawing the lattice `points` needs, coarse to fine.

    points: Lattice to draw
    grids: resolutions of the trained grids, coarse to fine, each a multiple of the one before
    refine: 'last': the finest grid is sampled at `points`, coarser ones at those trained points whose cells are hit (paper, Fig. 14);
        'smooth': the same, but the finest grid reads the features below as a continuous function, linear between trained points;
        'all': every grid is refined by the factor by which the finest one is
    aligned: every grid reads the one below bilinearly, the corners of both aligned (models with bilinear upsampling); refine is ignored
    Whatever the refinement, the trained size and window give the trained points and what they read in training.
    Returns a list of Points, one a grid.
    """
    if refine not in REFINEMENTS:
        raise ValueError(f"unknown refinement '{refine}'; choose one of {', '.join(REFINEMENTS)}")
    refine = 'aligned' if aligned else refine
    axes_u = _plan_axis(points.u, points.density[0], grids, refine, False)
    axes_v = _plan_axis(points.v, points.density[1], grids, refine, convention.lower_corner)
    levels = []
    for resolution, (u, u_below, u_cells), (v, v_below, v_cells) in zip(grids, axes_u, axes_v, strict=True):
        x, y = (torch.as_tensor(t, dtype=torch.float32, device=device) for t in convention.coordinates(u, v))
        doubled = _is_doubling(u_below) and _is_doubling(v_below)
        whole = _is_identity(u_cells, resolution) and _is_identity(v_cells, resolution)
        below = None if u_below is None or doubled else (_to_torch(v_below, device), _to_torch(u_below, device))
        cells = None if whole else (_to_torch(v_cells, device), _to_torch(u_cells, device))
        levels.append(Points(x, y, below, doubled, cells))
    return levels


def _plan_axis(position, density, grids, refine, lower_corner):
    """One axis of `plan`: for each grid, coarse to fine, (positions, read of the grid below or None, read of its own cells)."""
    shift = 1 if lower_corner else 0
    axis = []
    for level in reversed(range(len(grids))):
        resolution = grids[level]
        index, frac = _trained_index(position, resolution, shift)
        lo, hi = (np.clip(i, 0, resolution - 1) for i in (index, index + 1))
        cells = (lo, hi, frac)
        if level == 0:
            axis.append((position, None, cells))
            break
        coarser = grids[level - 1]
        if refine == 'aligned':
            read, frac = _trained_index((index + frac.astype(np.float64)) * (coarser - 1) / (resolution - 1) / coarser, coarser, 0)
            needed, lo, hi = _needed(read, read + (frac > 0))
        elif refine == 'smooth' and level == len(grids) - 1 and frac.any():
            ratio = resolution // coarser
            needed, lo, hi = _needed(index // ratio, (index + (frac > 0)) // ratio)
        else:
            coarser = coarser * density / grids[-1] if refine == 'all' else coarser
            needed, lo, hi = _needed(_cell(position, coarser, lower_corner))
            frac = None
        axis.append((position, (lo, hi, frac), cells))
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


def _trained_index(position, resolution, shift):
    """Index of the last trained point at or before each position, unbounded, and the fraction of the way to the next one."""
    t = _snapped(position * resolution) - shift
    index = np.floor(t)
    return index.astype(np.int64), (t - index).astype(np.float32)


def _cell(position, resolution, lower_corner):
    """Cell of each position: the one whose sampled corner a position on a border belongs to."""
    t = _snapped(position * resolution)
    return (np.ceil(t) - 1 if lower_corner else np.floor(t)).astype(np.int64)


def _is_doubling(read):
    return read is not None and read[1] is None and len(read[0]) % 2 == 0 and np.array_equal(read[0], np.arange(len(read[0])) // 2)


def _is_identity(read, resolution):
    lo, _, frac = read
    return not frac.any() and np.array_equal(lo, np.arange(resolution))


def _to_torch(read, device):
    lo, hi, frac = read
    if frac is None or not frac.any():
        return AxisRead(torch.as_tensor(lo, device=device))
    return AxisRead(*(torch.as_tensor(a, device=device) for a in (lo, hi, frac)))
