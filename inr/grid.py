"""Where pixels sit: sizes, windows, tiles, model coordinates and the cells of coarser grids. The one place that knows.

A picture is (height, width, window). `window = (x0, y0, x1, y1)` is in units of the training image along each axis: (0, 0, 1, 1) is the
image, larger windows zoom out, smaller ones zoom in, (x0, y0) is the top left, y down.

A position u runs along x, v along y, both from the image's top left and in one unit, R trained pixels, so that pixels are squares and a
circle is one. A square image is one unit wide and high; another is as many as its extent says, 2 and 1 for 128x64 pixels of R = 64.

A trained grid of resolution R samples every cell at one corner. Generator B takes the lower left one, u = j/R and v = (i+1)/R, and calls
x = 2u - 1, y = 1 - 2v (y upward), 0 in the middle of an image of any extent. Generator A takes the upper left one, u = j/R and v = i/R, and
uses them as they are.

Legend: H, W rows and columns of points; R resolution of a trained grid; n points along one axis.
"""

from dataclasses import dataclass

import numpy as np
import torch

WHOLE = (0.0, 0.0, 1.0, 1.0)
FARTHEST = 1000.0  # images away from the trained one that a window may reach


@dataclass(frozen=True)
class Convention:
    """How a family of models samples its cells and names its coordinates.

    lower_corner: rows are sampled at v = (i+1)/R if true, at v = i/R if not
    centred: coordinates are (2u - 1, 1 - 2v) if true, (u, v) if not
    middles: what a pixel of another size than the trained one has its middle on is what a trained pixel with that middle samples, so that
        smaller and larger pictures lie on each other; if not, all pixels are sampled at their corners, as in the paper's figures
    periodic: whether the picture goes on at its beginning along (x, y)
    extent: sides (x, y) of the training image in units
    """

    lower_corner: bool
    centred: bool
    middles: bool = False
    periodic: tuple = (False, False)
    extent: tuple = (1, 1)

    @property
    def unit(self):
        """Length of a unit in the model's coordinates."""
        return 2.0 if self.centred else 1.0

    def coordinates(self, u, v):
        """Model coordinates (x [W], y [H]) of positions (u [W], v [H])."""
        wide, high = self.extent
        u, v = (t % side if periodic else t for t, side, periodic in zip((u, v), self.extent, self.periodic, strict=True))
        return (2 * u - wide, high - 2 * v) if self.centred else (u, v)

    def shape(self, resolution):
        """(rows, columns) of the trained grid of a resolution."""
        return shape_of(resolution, self.extent)


def extent_of(img_resolution, img_size=None):
    """Extent of images of (width, height) pixels, None for squares of img_resolution. Raises ValueError where cells do not fit."""
    if img_size is None:
        return 1, 1
    if len(img_size) != 2 or any(side < img_resolution or 4 * side % img_resolution for side in img_size):
        raise ValueError(f'img_size={list(img_size)}: (width, height), both of {img_resolution} or more in steps of {img_resolution / 4:g}')
    return tuple(side / img_resolution for side in img_size)


def shape_of(resolution, extent):
    """(rows, columns) of the grid of a resolution in an image of this extent."""
    return round(resolution * extent[1]), round(resolution * extent[0])


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
class Points:
    """The points at which the blocks of one grid are evaluated, and where these points find what lies below them.

    x: float32 [W], y: float32 [H]  model coordinates; both [H, W] where the points are no lattice along the axes; [N, 1, 1, W] and
        [N, 1, H, 1] where every image has its own
    parent: (rows, columns), two refinement.AxisRead of the points of the next coarser grid; None where `doubled` says it all
    doubled: every row and column below is read twice, in order (the trained grids do)
    crop: rows and columns of these that are left out at each end
    cells: (rows, columns) reads into the cells of the grid itself, for learned constants; None for all cells in order
    pixel: (width, height) of the cell that a point stands for, in model coordinates; floats, or [N, 1] where every image has its own
    """

    x: torch.Tensor
    y: torch.Tensor
    parent: tuple | None = None
    doubled: bool = False
    cells: tuple | None = None
    crop: int = 0
    pixel: tuple = (0.0, 0.0)

    @property
    def shape(self):
        return self.y.shape[-2] if self.y.ndim > 1 else len(self.y), self.x.shape[-1]

    @property
    def plane(self):
        """(x [1, W], y [H, 1]), both [H, W], or (x [N, 1, 1, W], y [N, 1, H, 1]): what broadcasts to the coordinates of all points."""
        return (self.x[None], self.y[:, None]) if self.x.ndim == 1 else (self.x, self.y)


def lattice(height, width, window=WHOLE, convention=GENERATOR_B):
    """Lattice of `height` x `width` points spread over `window`, sampled at the corner that `convention` says.

    Raises ValueError if a size is below 1 or the window has no area.
    """
    x0, y0, x1, y1 = window
    if height < 1 or width < 1:
        raise ValueError(f'a picture of {width}x{height} pixels has none; both sides must be at least 1')
    if not (np.isfinite(window).all() and x1 > x0 and y1 > y0):
        raise ValueError(f'window {tuple(window)} has no area; give x0,y0,x1,y1 with x0 < x1 and y0 < y1')
    if max(map(abs, window)) > FARTHEST:
        raise ValueError(f'window {tuple(window)} reaches too far; float32 coordinates tell points apart up to {FARTHEST:g}')
    shift = 1 if convention.lower_corner else 0
    (x0, x1), (y0, y1) = ([side * end for end in ends] for side, ends in zip(convention.extent, ((x0, x1), (y0, y1)), strict=True))
    u = x0 + (x1 - x0) * np.arange(width, dtype=np.float64) / width
    v = y0 + (y1 - y0) * (np.arange(height, dtype=np.float64) + shift) / height
    return Lattice(u, v, (width / (x1 - x0), height / (y1 - y0)))


def training_points(grids, convention=GENERATOR_B, device=None):
    """Points of the trained grids `grids` (resolutions, coarse to fine): all cells, each grid twice as fine as the one before."""
    points_per_grid = []
    for resolution in grids:
        rows, columns = (torch.arange(size, device=device, dtype=torch.float32) for size in convention.shape(resolution))
        shift = 1 if convention.lower_corner else 0
        x, y = convention.coordinates(columns / resolution, (rows + shift) / resolution)
        points_per_grid.append(Points(x, y, doubled=bool(points_per_grid), pixel=(convention.unit / resolution,) * 2))
    return points_per_grid
