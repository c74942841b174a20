"""Beyond the frame, closer and at other sizes (INR-GAN, Figs. 2, 9, 14, 17): windows, the trained image in them, the work of drawing."""

import torch

from inr.render import DEFAULT_REFINEMENT

WINDOWS = ((0, 0, 1, 1), (-0.3, -0.3, 1.3, 1.3), (-0.5, -0.5, 1.5, 1.5))  # the paper's figures 2 and 9 zoom out so far


def trained_box(window, width, height):
    """(left, top, right, bottom) of the trained image in a picture of `window`, in pixels with right and bottom outside; may reach beyond.

    window: (x0, y0, x1, y1) in units of the training image
    """
    x0, y0, x1, y1 = window
    return tuple(round((edge - start) / (end - start) * pixels)
                 for edge, start, end, pixels in ((0, x0, x1, width), (0, y0, y1, height), (1, x0, x1, width), (1, y0, y1, height)))


def path(first, last, frames):
    """Windows from `first` to `last` and back, each a little wider or narrower than the one before in the same proportion.

    Edges move so that the width changes by a constant factor a frame, which looks like a steady zoom.
    """
    there = max(frames // 2, 1)
    widths = [window[2] - window[0] for window in (first, last)]
    shares = []
    for step in range(there + 1):
        width = widths[0] * (widths[1] / widths[0]) ** (step / there)
        shares.append(step / there if widths[0] == widths[1] else (width - widths[0]) / (widths[1] - widths[0]))
    steps = shares + shares[-2:0:-1]
    return [tuple(a + (b - a) * share for a, b in zip(first, last, strict=True)) for share in steps]


def drawing_macs(G, size, count, refine=DEFAULT_REFINEMENT):
    """Multiply-accumulates of one square picture of the whole window: trunk or mapping, weights, and every grid at the points it needs.

    G: generator, on any device; on the meta device nothing is computed
    size: pixels a side; count: function that counts those of a callable; refine: see refinement.plan
    """
    device = next(G.parameters()).device
    points = G.synthesis.pyramid.plan(G.synthesis.pyramid.lattice(size), refine, device)
    z, c = torch.zeros([1, G.z_dim], device=device), torch.zeros([1, G.c_dim], device=device)
    return count(lambda: G.synthesis.draw(G.mapping(z, c), points))
