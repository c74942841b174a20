"""Features of a coordinate: Fourier embedding e(p) = [sin(W p), cos(W p)] (INR-GAN, appendix C, eq. 1) and what the decoders add to it.

The rows of W come from four sources, in this order: a logarithmic basis, random fixed rows, learned rows, rows generated from w.
Columns of the result: [raw (x, y), sin(all rows), cos(all rows), learned constants of the grid's cells].

Legend: N images, E features, n rows, R resolution of the grid, H and W rows and columns of points.
"""

import math
from dataclasses import dataclass

import torch
from torch import nn

from training.networks import FullyConnectedLayer


@dataclass(frozen=True)
class FeatureSpec:
    """What the points of one grid know of their place.

    log: cap on the rows of the logarithmic basis, 0 for none; every direction loses its highest frequencies alike
    diagonal: the basis runs along both diagonals too
    random: random rows, fixed at construction
    learned: rows that are parameters
    generated: rows (and phases) generated from w for each image
    constants: learned constants for each of the grid's cells
    raw: the coordinates themselves
    cosine: cosines beside the sines
    scale: spread of the random, learned and generated rows at the start
    init: how random and learned rows are drawn, 'normal' or 'uniform' in +-1, times scale
    """

    log: int = 0
    diagonal: bool = False
    random: int = 0
    learned: int = 0
    generated: int = 0
    constants: int = 0
    raw: bool = False
    cosine: bool = True
    scale: float = math.sqrt(10)
    init: str = 'normal'

    def __post_init__(self):
        if min(self.log, self.random, self.learned, self.generated, self.constants) < 0:
            raise ValueError(f'a number of coordinate features is below 0: {self}')
        if self.init not in ('normal', 'uniform'):
            raise ValueError(f"unknown init '{self.init}' of Fourier rows; choose normal or uniform")


def log_basis(resolution, diagonal=False, max_rows=None):
    """Logarithmic basis: frequencies 2^k * 2 pi / 4, k = 0 .. log2(R) - 1, along y, x and, if asked, both diagonals.

    A diagonal's two components are half as long. The highest frequency has a period of four cells.
    max_rows: cap on the rows, kept by leaving out the highest frequencies of every direction; None for all
    Returns [n, 2], columns x, y.
    """
    octaves = int(math.log2(resolution))
    if max_rows is not None:
        octaves = min(octaves, max_rows // (4 if diagonal else 2))
    frequency = 2.0 ** torch.arange(octaves) * (math.pi / 2)
    zero = torch.zeros_like(frequency)
    rows = [torch.stack([zero, frequency], 1), torch.stack([frequency, zero], 1)]
    if diagonal:
        rows += [torch.stack([-frequency / 2, frequency / 2], 1), torch.stack([frequency / 2, frequency / 2], 1)]
    return torch.cat(rows)


def phases(basis, points, shift=None):
    """W p + shift at every point: basis [..., n, 2], shift [..., n] or None, points a grid.Points of H x W -> [..., n, H, W]."""
    x, y = points.plane
    angles = basis[..., 0, None, None] * x + basis[..., 1, None, None] * y
    return angles if shift is None else angles + shift[..., None, None]


@dataclass(frozen=True)
class AxisPhases:
    """Features of the points of a lattice in the parts they are made of: sin(a x + b y) comes from the sines and cosines of a x and b y.

    raw: (x [W], y [H]), or None; cosine: whether there are cosines beside the sines
    phase_x [N or 1, n, W], phase_y [N or 1, n, H]: a x, and b y with the phases of the rows, in radians
    constants: learned ones of the grid's cells [1, C, R, R], or None
    """

    raw: tuple | None
    phase_x: torch.Tensor
    phase_y: torch.Tensor
    cosine: bool
    constants: torch.Tensor | None

    @property
    def count(self):
        """E."""
        constants = 0 if self.constants is None else self.constants.shape[1]
        return 2 * (self.raw is not None) + self.phase_x.shape[1] * (1 + self.cosine) + constants


def phases_along_axes(basis, shift, points):
    """(phase_x, phase_y) of `AxisPhases` for rows [N or 1, n, 2] and their phases [N, n] or None."""
    along_y = basis[..., 1:] * points.y
    return basis[..., :1] * points.x, along_y if shift is None else along_y + shift[..., None]


def read_cells(values, points):
    """What is learned for every cell of a grid, values [N, C, R, R], read at its points: [N, C, H, W]."""
    if points.cells is None:
        return values
    rows, cols = points.cells
    return cols(rows(values, dim=2), dim=3)


def plane(points):
    """The coordinates (x, y) of every point: [1, 2, H, W], or [N, 2, H, W] where every image has its own."""
    if points.x.ndim == 4:
        return torch.cat([part.expand(-1, -1, *points.shape) for part in points.plane], dim=1)
    return torch.stack([part.expand(points.shape) for part in points.plane])[None]


class CoordinateFeatures(nn.Module):
    """Features of the points of one grid: see the module's docstring for their order.

    spec: FeatureSpec
    resolution: R of the trained grid
    w_dim: width of w, needed by generated rows
    forward(points, w): grid.Points, w [N, w_dim] -> [1, E, H, W], or [N, E, H, W] where rows are generated.
    """

    def __init__(self, spec, resolution, w_dim):
        super().__init__()
        self.spec, self.resolution = spec, resolution
        self.register_buffer('log_basis', log_basis(resolution, spec.diagonal, spec.log), persistent=False)
        if spec.random:
            self.register_buffer('random_basis', self._draw_rows(spec.random))
        if spec.learned:
            self.shared_basis = nn.Parameter(self._draw_rows(spec.learned))
        if spec.generated:
            self.affine = FullyConnectedLayer(w_dim, spec.generated * 3)
        if spec.constants:
            self.const_embs = nn.Parameter(torch.randn([1, spec.constants, resolution, resolution]))
        rows = self.log_basis.shape[0] + spec.random + spec.learned + spec.generated
        self.num_features = (2 if spec.raw else 0) + rows * (2 if spec.cosine else 1) + spec.constants

    def _draw_rows(self, rows):
        drawn = torch.randn([rows, 2]) if self.spec.init == 'normal' else torch.rand([rows, 2]) * 2 - 1
        return drawn * self.spec.scale

    def rows(self, w):
        """W of w [N, w_dim]: rows [N or 1, n, 2] in radians per unit of the model's coordinates, and their phases [N, n] or None."""
        fixed = [self.log_basis]
        if self.spec.random:
            fixed.append(self.random_basis)
        if self.spec.learned:
            fixed.append(self.shared_basis)
        fixed = torch.cat(fixed)[None]  # [1, n, 2]
        if not self.spec.generated:
            return fixed, None
        rows, shift = self.affine(w).split([self.spec.generated * 2, self.spec.generated], dim=1)
        rows = torch.cat([fixed.expand(len(w), -1, -1), rows.reshape(-1, self.spec.generated, 2) * self.spec.scale], dim=1)
        return rows, nn.functional.pad(shift, [fixed.shape[1], 0])  # [N, n, 2], [N, n]

    def features(self, points, rows, shift, coordinates):
        """All features, from W and its phases as `rows` gives them and the coordinates of the points [1, 2, H, W]."""
        angles = phases(rows, points, shift)  # [N or 1, n, H, W]
        columns = [coordinates] if self.spec.raw else []
        columns.append(angles.sin())
        if self.spec.cosine:
            columns.append(angles.cos())
        if self.spec.constants:
            columns.append(read_cells(self.const_embs, points))  # [1, C, H, W]
        return torch.cat([c.expand(len(angles), -1, -1, -1) for c in columns], dim=1)

    def axis_phases(self, points, w):
        """The same features as forward's in their parts."""
        phases = phases_along_axes(*self.rows(w), points)
        return AxisPhases((points.x, points.y) if self.spec.raw else None, *phases, self.spec.cosine, getattr(self, 'const_embs', None))

    def forward(self, points, w):
        return self.features(points, *self.rows(w), plane(points))
