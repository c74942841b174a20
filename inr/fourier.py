"""Features of a coordinate: Fourier embedding e(p) = [sin(W p), cos(W p)] (INR-GAN, appendix C, eq. 1) and what the decoders add to it.

The rows of W come from four sources, in this order: a logarithmic basis, random fixed rows, learned rows, rows generated from w.
Columns of the result: [raw (x, y), sin(all rows), cos(all rows), learned constants of the grid's cells].

Legend: N images, E features, n rows, R resolution of the grid, H and W rows and columns of points.
"""

import math
from dataclasses import dataclass, fields

import torch
from torch import nn

from inr import footprint, periodic
from inr.grid import shape_of
from inr.ops.block_cpu import AxisPhases
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
    fine: further random rows, fixed at construction, of the frequencies that the grid's cells are too large for, all octaves alike
    reach: their highest frequency, in those of which the cells take half a period
    footprint: what becomes of rows where they vary within a pixel, one of footprint.FOOTPRINTS
    damped: fine rows are weighted down by their frequency, as the spectra of pictures fall
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
    damped: bool = False

    @classmethod
    def of(cls, given, default):
        """From a dict of fields, empty for no features at all (None); `default` if it is None."""
        if not given:
            return default if given is None else None
        known = [field.name for field in fields(cls)]
        if unknown := [key for key in given if key not in known]:
            raise ValueError(f"unknown coordinate feature '{unknown[0]}'; known are {', '.join(known)}")
        return cls(**given)

    def __post_init__(self):
        if min(self.log, self.random, self.learned, self.generated, self.constants, self.fine) < 0:
            raise ValueError(f'a number of coordinate features is below 0: {self}')
        if self.init not in ('normal', 'uniform'):
            raise ValueError(f"unknown init '{self.init}' of Fourier rows; choose normal or uniform")
        footprint.check(self.footprint)
        if not self.reach > 1:
            raise ValueError(f'fine rows reach to {self.reach:g} times the frequency of the cells; give more than 1')


def log_basis(resolution, diagonal=False, max_rows=None, extent=1):
    """Logarithmic basis: frequencies 2^k * 2 pi / 4, k = 0 .. log2(R) - 1, along y, x and, if asked, both diagonals.

    A diagonal's two components are half as long. The highest frequency has a period of four cells.
    max_rows: cap on the rows, kept by leaving out the highest frequencies of every direction; None for all
    extent: longest side of the image in units; above 2 octaves below k = 0 tell all of its places apart
    Returns [n, 2], columns x, y.
    """
    octaves = int(math.log2(resolution))
    if max_rows is not None:
        octaves = min(octaves, max_rows // (4 if diagonal else 2))
    lower = max(math.ceil(math.log2(extent)) - 1, 0) if octaves else 0
    frequency = 2.0 ** torch.arange(-lower, octaves) * (math.pi / 2)
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


def _renew(features, _keys):
    """Buffers that no state dict holds are what they were made as, also in a network that was built on 'meta' and emptied."""
    with torch.no_grad():
        features.log_basis.copy_(features._fixed_rows())
        if hasattr(features, 'damping'):
            features.damping.copy_(features._damping(len(features.damping)))


class CoordinateFeatures(nn.Module):
    """Features of the points of one grid: see the module's docstring for their order.

    spec: FeatureSpec
    resolution: R of the trained grid
    w_dim: width of w, needed by generated rows
    wraps: whether the picture goes on at its beginning along (x, y), see periodic.py; extent: its sides, see grid.Convention
    forward(points, w): grid.Points, w [N, w_dim] -> [1, E, H, W], or [N, E, H, W] where rows are generated.
    """

    def __init__(self, spec, resolution, w_dim, wraps=(False, False), extent=(1, 1)):
        super().__init__()
        periodic.check_rows(spec, wraps)
        self.spec, self.resolution, self.wraps, self.extent = spec, resolution, wraps, extent
        self.register_buffer('log_basis', self._fixed_rows(), persistent=False)
        if spec.random or spec.fine:
            drawn = self._draw_rows(spec.random), footprint.fine_rows(spec.fine, resolution, spec.reach)
            self.register_buffer('random_basis', torch.cat(drawn))
        if spec.learned:
            self.shared_basis = nn.Parameter(self._draw_rows(spec.learned))
        if spec.generated:
            self.affine = FullyConnectedLayer(w_dim, spec.generated * 3)
        if spec.constants:
            self.const_embs = nn.Parameter(torch.randn([1, spec.constants, *shape_of(resolution, extent)]))
        rows = self.log_basis.shape[0] + spec.random + spec.fine + spec.learned + spec.generated
        self.num_features = (2 if spec.raw else 0) + rows * (2 if spec.cosine else 1) + spec.constants
        if spec.damped and spec.fine:
            self.register_buffer('damping', self._damping(rows), persistent=False)
        self.register_load_state_dict_post_hook(_renew)

    def _fixed_rows(self):
        basis = log_basis(self.resolution, self.spec.diagonal, self.spec.log, max(self.extent))
        return torch.cat([periodic.once_around(self.wraps, self.extent), basis])

    def _damping(self, rows):
        weights, first = torch.ones(rows), len(self.log_basis) + self.spec.random
        weights[first : first + self.spec.fine] = footprint.damping(self.spec.fine, self.spec.reach)
        return weights

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
        fixed = periodic.on_circle(torch.cat(fixed), self.wraps, self.extent)[None]  # [1, n, 2]
        if not self.spec.generated:
            return fixed, None
        rows, shift = self.affine(w).split([self.spec.generated * 2, self.spec.generated], dim=1)
        rows = torch.cat([fixed.expand(len(w), -1, -1), rows.reshape(-1, self.spec.generated, 2) * self.spec.scale], dim=1)
        return rows, nn.functional.pad(shift, [fixed.shape[1], 0])  # [N, n, 2], [N, n]

    def kept(self, rows, points):
        """What the points' pixels, and their frequency, leave of the waves of rows [N or 1, n, 2], [N or 1, n]; None for all of them."""
        kept, damping = footprint.kept(self.spec.footprint, rows, points.pixel, self.resolution), getattr(self, 'damping', None)
        if damping is None:
            return kept
        return damping[None] if kept is None else kept * damping

    def features(self, points, rows, shift, coordinates):
        """All features, from W and its phases as `rows` gives them and the coordinates of the points [N or 1, 2, H, W]."""
        angles, kept = phases(rows, points, shift), self.kept(rows, points)  # [N or 1, n, H, W], [N or 1, n]
        columns = [torch.stack(periodic.without_jumps(*coordinates.unbind(1), self.wraps), dim=1)] if self.spec.raw else []
        for wave in (torch.sin, torch.cos)[: 1 + self.spec.cosine]:
            columns.append(wave(angles) if kept is None else wave(angles) * kept[:, :, None, None])
        if self.spec.constants:
            columns.append(read_cells(self.const_embs, points))  # [1, C, H, W]
        images = max(map(len, columns))
        return torch.cat([c.expand(images, -1, -1, -1) for c in columns], dim=1)

    def axis_phases(self, points, w):
        """The same features as forward's in their parts."""
        rows, shift = self.rows(w)
        raw = periodic.without_jumps(points.x, points.y, self.wraps) if self.spec.raw else None
        constants = self.const_embs if self.spec.constants else None
        return AxisPhases.of(points, rows, shift, raw, self.spec.cosine, constants, self.kept(rows, points))

    def forward(self, points, w):
        return self.features(points, *self.rows(w), plane(points))
