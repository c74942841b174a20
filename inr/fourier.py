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

FOOTPRINTS = (None, 'pixel', 'larger')  # None: none; 'larger': only in pixels larger than trained ones, and by what they are larger


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
    fine: further random rows, fixed at construction, of the frequencies that the grid's cells are too large for, all octaves alike
    reach: their highest frequency, in those of which the cells take half a period
    footprint: what becomes of rows where they vary within a pixel, one of FOOTPRINTS
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
    fine: int = 0
    reach: float = 8.0
    footprint: str | None = None

    def __post_init__(self):
        if min(self.log, self.random, self.learned, self.generated, self.constants, self.fine) < 0:
            raise ValueError(f'a number of coordinate features is below 0: {self}')
        if self.init not in ('normal', 'uniform'):
            raise ValueError(f"unknown init '{self.init}' of Fourier rows; choose normal or uniform")
        if self.footprint not in FOOTPRINTS:
            raise ValueError(f"unknown footprint '{self.footprint}' of a pixel; choose {' or '.join(filter(None, FOOTPRINTS))}")
        if not self.reach > 1:
            raise ValueError(f'fine rows reach to {self.reach:g} times the frequency of the cells; give more than 1')


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


def fine_rows(count, resolution, reach):
    """Rows [count, 2] in random directions, their frequencies spread over octaves from half a period in a cell to `reach` times that."""
    frequency = math.pi / 2 * resolution * reach ** ((torch.arange(count) + 0.5) / max(count, 1))
    angle = torch.rand([count]) * math.pi
    return torch.stack([angle.cos(), angle.sin()], dim=1) * frequency[:, None]


def on_circle(rows, periodic):
    """Rows [..., n, 2] with the nearest frequencies that have whole periods in the training image, along the axes that are periodic."""
    if not any(periodic):
        return rows
    whole = rows.sign() * (rows.abs() / math.pi + 0.5).floor() * math.pi
    return torch.where(torch.tensor(periodic, device=rows.device), whole, rows)


def kept_by_pixels(rows, pixel):
    """What a pixel's area leaves of waves: exp(-(w_x^2 a^2 + w_y^2 b^2) / 24), a Gaussian as wide as the pixel (arXiv 2103.13415, eq. 13).

    rows: [N or 1, n, 2] in radians per unit; pixel: (a, b), width and height in these units, numbers or [N, 1]
    Returns [N or 1, n]: 0.66 of a wave of two pixels, 0.19 of one of one pixel.
    """
    return torch.exp(((rows[..., 0] * pixel[0]).square() + (rows[..., 1] * pixel[1]).square()) / -24)


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
    kept: [N or 1, n] what sines and cosines are multiplied with, or None
    """

    raw: tuple | None
    phase_x: torch.Tensor
    phase_y: torch.Tensor
    cosine: bool
    constants: torch.Tensor | None
    kept: torch.Tensor | None = None

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
    periodic: whether the picture goes on at its beginning along (x, y): rows have whole periods in it, and a row that has one stands for
        the coordinate itself
    forward(points, w): grid.Points, w [N, w_dim] -> [1, E, H, W], or [N, E, H, W] where rows are generated.
    """

    def __init__(self, spec, resolution, w_dim, periodic=(False, False)):
        super().__init__()
        if any(periodic) and (spec.learned or spec.generated):
            raise ValueError('learned and generated rows of coordinate features have no whole periods: a periodic picture has none of them')
        self.spec, self.resolution, self.periodic = spec, resolution, periodic
        circle = torch.eye(2)[[axis for axis, wraps in enumerate(periodic) if wraps]] * math.pi
        self.register_buffer('log_basis', torch.cat([circle, log_basis(resolution, spec.diagonal, spec.log)]), persistent=False)
        if spec.random or spec.fine:
            drawn = self._draw_rows(spec.random)
            self.register_buffer('random_basis', torch.cat([drawn, fine_rows(spec.fine, resolution, spec.reach)]) if spec.fine else drawn)
        if spec.learned:
            self.shared_basis = nn.Parameter(self._draw_rows(spec.learned))
        if spec.generated:
            self.affine = FullyConnectedLayer(w_dim, spec.generated * 3)
        if spec.constants:
            self.const_embs = nn.Parameter(torch.randn([1, spec.constants, resolution, resolution]))
        rows = self.log_basis.shape[0] + spec.random + spec.fine + spec.learned + spec.generated
        self.num_features = (2 if spec.raw else 0) + rows * (2 if spec.cosine else 1) + spec.constants

    def _draw_rows(self, rows):
        drawn = torch.randn([rows, 2]) if self.spec.init == 'normal' else torch.rand([rows, 2]) * 2 - 1
        return drawn * self.spec.scale

    def rows(self, w):
        """W of w [N, w_dim]: rows [N or 1, n, 2] in radians per unit of the model's coordinates, and their phases [N, n] or None."""
        fixed = [self.log_basis]
        if hasattr(self, 'random_basis'):
            fixed.append(self.random_basis)
        if self.spec.learned:
            fixed.append(self.shared_basis)
        fixed = on_circle(torch.cat(fixed), self.periodic)[None]  # [1, n, 2]
        if not self.spec.generated:
            return fixed, None
        rows, shift = self.affine(w).split([self.spec.generated * 2, self.spec.generated], dim=1)
        rows = torch.cat([fixed.expand(len(w), -1, -1), rows.reshape(-1, self.spec.generated, 2) * self.spec.scale], dim=1)
        return rows, nn.functional.pad(shift, [fixed.shape[1], 0])  # [N, n, 2], [N, n]

    def features(self, points, rows, shift, coordinates):
        """All features, from W and its phases as `rows` gives them and the coordinates of the points [1, 2, H, W]."""
        angles, kept = phases(rows, points, shift), self.kept(rows, points)  # [N or 1, n, H, W]
        columns = [self._raw(coordinates)] if self.spec.raw else []
        columns += [wave(angles) if kept is None else wave(angles) * kept[:, :, None, None]
                    for wave in (torch.sin, torch.cos)[: 1 + self.spec.cosine]]
        if self.spec.constants:
            columns.append(read_cells(self.const_embs, points))  # [1, C, H, W]
        images = max(map(len, columns))
        return torch.cat([c.expand(images, -1, -1, -1) for c in columns], dim=1)

    def _raw(self, coordinates):
        """Coordinates [N or 1, 2, H, W] with 0 in place of those that jump where a periodic picture begins."""
        if not any(self.periodic):
            return coordinates
        return coordinates * torch.tensor([not wraps for wraps in self.periodic], device=coordinates.device)[:, None, None]

    def kept(self, rows, points):
        """What the points' pixels leave of the waves of rows [N or 1, n, 2], [N or 1, n]; None for all of them."""
        if self.spec.footprint is None:
            return None
        pixel = points.pixel
        if self.spec.footprint == 'larger':
            pixel = [(torch.as_tensor(side) ** 2 - (2 / self.resolution) ** 2).clamp(min=0).sqrt().to(rows.device) for side in pixel]
        return kept_by_pixels(rows, pixel)

    def axis_phases(self, points, w):
        """The same features as forward's in their parts."""
        rows, shift = self.rows(w)
        raw = tuple(axis * (not wraps) for axis, wraps in zip((points.x, points.y), self.periodic, strict=True)) if self.spec.raw else None
        return AxisPhases(raw, *phases_along_axes(rows, shift, points), self.spec.cosine, getattr(self, 'const_embs', None),
                          self.kept(rows, points))

    def forward(self, points, w):
        return self.features(points, *self.rows(w), plane(points))
