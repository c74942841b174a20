"""The grids of a network, and the points of each that a picture needs: the trained one, a smaller one, parts of larger ones, any."""

from dataclasses import dataclass

from inr import grid, refinement
from inr.windows import window_points


@dataclass(frozen=True)
class Pyramid:
    """Trained grids, coarse to fine, and how each reads the one below.

    sizes: resolutions; convention: of their points; upsampling: see refinement.plan
    Points are given as SynthesisNetwork.draw takes them: a list of grid.Points, one a grid.
    """

    sizes: tuple
    convention: grid.Convention
    upsampling: str = 'nearest'

    def trained_points(self, device=None, sizes=None):
        """Those of the trained grids; sizes: the first of the network's own, all if None."""
        sizes = sizes or self.sizes
        if any(self.convention.periodic) and self.upsampling == 'linear':  # cells at an end are read with those at the other
            return self.plan(self.lattice(sizes[-1]), device=device, sizes=sizes)
        return grid.training_points(sizes, self.convention, device)

    @property
    def step(self):
        """Finest points in a cell of the coarsest grid, along an axis."""
        return self.sizes[-1] // self.sizes[0]

    def lattice(self, resolution):
        """The grid.Lattice of a whole picture of that resolution."""
        return grid.lattice(*self.convention.shape(resolution), convention=self.convention)

    def plan(self, points, refine='all', device=None, sizes=None):
        """Those that drawing a grid.Lattice needs; refine: see refinement.plan; sizes: the first of the network's own, all if None."""
        return refinement.plan(points, sizes or self.sizes, refine, self.convention, device, self.upsampling)

    def points(self, device=None, resolution=None, windows=None):
        """Those of the trained picture, of one of another resolution, or of windows; see SynthesisNetwork.forward. Raises ValueError."""
        if windows is not None:
            return window_points(windows, self.sizes, self.convention, device, self.upsampling)
        if resolution is None or resolution in self.sizes:
            return self.trained_points(device, self.sizes[: None if resolution is None else self.sizes.index(resolution) + 1])
        if 4 <= resolution < self.sizes[0]:
            return self.plan(self.lattice(resolution), device=device, sizes=self.sizes[:1])
        raise ValueError(f'resolution={resolution}: this network draws {", ".join(map(str, self.sizes))} and less than the first')
