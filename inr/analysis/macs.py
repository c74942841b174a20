"""Work of drawing at other sizes than the trained one (INR-GAN, appendix G, Fig. 17)."""

import torch

from inr import grid, refinement
from inr.render import DEFAULT_REFINEMENT


def drawing_macs(G, size, count, refine=DEFAULT_REFINEMENT):
    """Multiply-accumulates of one square picture of the whole window: trunk or mapping, weights, and every grid at the points it needs.

    G: generator, on any device; on the meta device nothing is computed
    size: pixels a side; count: function that counts those of a callable; refine: see refinement.plan
    """
    device = next(G.parameters()).device
    synthesis = G.synthesis
    points = grid.lattice(size, size, convention=synthesis.convention)
    levels = refinement.plan(points, synthesis.grids, refine, synthesis.convention, device, synthesis.upsampling)
    z, c = torch.zeros([1, G.z_dim], device=device), torch.zeros([1, G.c_dim], device=device)
    return count(lambda: synthesis.draw(G.mapping(z, c), levels))
