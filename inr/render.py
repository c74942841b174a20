"""Drawing at any size, in any window, for the pixels asked for and no others (INR-GAN, Figs. 2, 9, 14, 17).

The only place that knows size, window and tiles; grid.py knows where the points lie. A picture is drawn in bands of whole rows, so that
memory does not grow with its height, and every grid below is evaluated only at the cells a band reads.

Legend: N images, H and W rows and columns of the whole picture.
"""

import torch

from inr import grid, refinement

DEFAULT_REFINEMENT = 'all'
BAND_BYTES = 256 * 2**20  # working memory of one band
WHOLE_BYTES = 8 * 2**30  # the most a model that must be drawn whole may take


class CannotTile(ValueError):
    """The pixels of this model depend on each other: it is drawn whole or not at all."""


def supports(G):
    """Whether G draws by points, as the generators of this package do."""
    return hasattr(getattr(G, 'synthesis', None), 'draw')


def bytes_per_point(synthesis, density, refine):
    """Working memory of one drawn point, in bytes: the largest block's features and three copies of its channels, and the colours.

    density: drawn points per unit (x, y). A coarser grid is evaluated at no more points than are drawn and than it has.
    """
    finest, largest = synthesis.pyramid.sizes[-1], 0
    for block in map(synthesis.get_submodule, synthesis.block_names):
        points = 1
        for d in density:
            held = block.spec.grid * (max(d / finest, 1) if refine == 'all' else 1)
            points *= 1 if block.spec.grid == finest else min(held / d, 1)
        features = 0 if block.coords is None else block.coords.num_features
        largest = max(largest, points * (2 * features + 3 * block.spec.channels))
    return 4 * (largest + 3 * synthesis.img_channels)


def bands(G, ws, height, width, window=grid.WHOLE, refine=None, tile=None, max_bytes=BAND_BYTES, noise_mode='const', force_fp32=False):
    """Draw a picture from top to bottom in bands of rows, each in about `max_bytes` of working memory; long rows go in parts.

    G: generator of this package; ws: [N, num_ws, w_dim]
    height, width, window: the whole picture, see grid.py
    refine: see refinement.plan; None for DEFAULT_REFINEMENT
    tile: (top, left, height, width) in pixels of the whole picture, to draw that part alone; None for all of it
    noise_mode: of networks with spatial noise; 'const' keeps a pixel a function of its point, 'random' draws anew for every band
    Returns an iterator of (row, image [N, img_channels, h, w]); row counts from the top of what is drawn.
    Raises ValueError for a size, window or tile without area or outside the picture, CannotTile for a tile of a model that cannot.
    """
    synthesis = G.synthesis
    refine = DEFAULT_REFINEMENT if refine is None else refine
    refinement.check(refine)
    points = grid.lattice(height, width, window, synthesis.pyramid.convention)
    if tile is not None:
        points = _tile_of(points, tile, height, width)
    rows, columns = len(points.v), len(points.u)
    point_bytes = bytes_per_point(synthesis, points.density, refine) * max(len(ws), 1)
    if synthesis.pointwise:
        step = _part_shape(rows, columns, int(max_bytes // point_bytes), synthesis.pyramid.step)
    else:
        _check_whole(tile, rows * columns, point_bytes)
        step = rows, columns
    trained = (width, height) == synthesis.img_size and tuple(window) == grid.WHOLE and tile is None
    return _drawn(synthesis, ws, points, refine, step, trained and step == (rows, columns), noise_mode, force_fp32)


@torch.no_grad()
def _drawn(synthesis, ws, points, refine, step, trained, noise_mode, force_fp32):
    """The bands of `bands`, in parts of `step` = (rows, columns); trained: the picture is the training image in one part."""
    if trained:
        yield 0, synthesis.draw(ws, synthesis.pyramid.trained_points(ws.device), noise_mode, force_fp32)
        return
    rows, columns = len(points.v), len(points.u)
    for top in range(0, rows, step[0]):
        parts = []
        for left in range(0, columns, step[1]):
            part = points.tile(top, left, min(step[0], rows - top), min(step[1], columns - left))
            points_per_grid = synthesis.pyramid.plan(part, refine, ws.device)
            parts.append(synthesis.draw(ws, points_per_grid, noise_mode, force_fp32))
        yield top, parts[0] if len(parts) == 1 else torch.cat(parts, dim=3)


def _part_shape(rows, columns, max_points, cell):
    """(rows, columns) of the parts a picture is drawn in: about `max_points` points, whole rows if they fit.

    cell: finest points in a cell of the coarsest grid, along an axis. Parts end at its multiples where they can, so that next to no cell of
    a coarser grid is evaluated for two of them.
    """
    height = max_points // columns
    if height >= rows:
        return rows, columns
    if height >= cell:
        return height // cell * cell, columns
    height = min(rows, cell)
    width = max(max_points // height, 1)
    return height, min(columns, width // cell * cell or width)


def render(G, ws, height, width, window=grid.WHOLE, refine=None, tile=None, max_bytes=BAND_BYTES, noise_mode='const', force_fp32=False):
    """The picture that `bands` draws, in one tensor [N, img_channels, h, w]; arguments and errors as there."""
    parts = [image for _, image in bands(G, ws, height, width, window, refine, tile, max_bytes, noise_mode, force_fp32)]
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=2)


def _tile_of(points, tile, height, width):
    top, left, rows, columns = tile
    inside = 0 <= top and 0 <= left and top + rows <= height and left + columns <= width
    if rows < 1 or columns < 1 or not inside:
        raise ValueError(f'tile {tuple(tile)} (top, left, height, width) is empty or reaches outside the {width}x{height} picture')
    return points.tile(top, left, rows, columns)


def _check_whole(tile, points, point_bytes):
    """Raises CannotTile if a model that must be drawn whole is asked for a tile or for more than it may take."""
    if tile is not None:
        raise CannotTile('this model draws no tiles: its pixels depend on each other; ask for the whole picture')
    if points * point_bytes > WHOLE_BYTES:
        raise CannotTile(
            f'this model needs about {points * point_bytes / 2**30:.0f} GiB at once, since its pixels depend on each other; '
            f'ask for at most {WHOLE_BYTES / point_bytes / 1e6:.1f} megapixels'
        )
