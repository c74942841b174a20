"""Painting with a trained generator, at any size and in any window where it is one of `inr`: the one place that asks whether it is."""

import zlib

import numpy as np
import torch

from dnnlib import image_io
from dnnlib.cli import Side
from dnnlib.util import UserError, optional
from inference import WHOLE
from torch_utils.misc import size_of
from torch_utils.pixels import to_uint8

STREAM_FROM = 2**26  # bytes of a picture from which on it is drawn alone, band by band


def draws_by_points(G):
    """Whether a generator is one of inr, which computes any pixel that is asked for."""
    return optional('inr.render', 'supports', lambda G: False)(G)


def drawing_at_scales(G):
    """(ws [N, num_ws, w_dim], scale) -> images [N, C, scale H, scale W] in [-1, 1]; None for a generator that does not draw by points."""
    if not draws_by_points(G):
        return None
    from inr.render import render

    return lambda ws, scale: render(G, ws, *(round(side * scale) for side in size_of(G)[::-1]), force_fp32=True)


def draws_tiles(G):
    """Whether any part of a picture can be drawn alone: a generator of inr whose pixels do not depend on each other."""
    return draws_by_points(G) and G.synthesis.pointwise


def points_in(G, box):
    """The points of all grids that a part of the trained picture needs, as synthesis.draw takes them; None where no parts are drawn.

    box: (rows, columns), two slices with start and stop
    """
    if not draws_tiles(G):
        return None
    rows, columns = box
    synthesis = G.synthesis
    points = synthesis.pyramid.lattice(G.img_resolution)
    part = points.tile(rows.start, columns.start, rows.stop - rows.start, columns.stop - columns.start)
    return synthesis.pyramid.plan(part, device=next(G.parameters()).device)


def draw_a_few_points(G, ws):
    """Draws with plain layers, module by module: for hooks. Few points, where the generator lets one choose."""
    if not draws_by_points(G):
        G.synthesis(ws, noise_mode='const', force_fp32=True)
        return
    points = G.synthesis.pyramid.plan(G.synthesis.pyramid.lattice(4), device=ws.device)
    G.synthesis.draw(ws, points, force_fp32=True, impl='ref')


def fitting_size(G, window=WHOLE, longer=None):
    """(width, height) of a window's picture with square pixels. longer: its longer side; None: as long as that of the trained image"""
    width, height = size_of(G)
    x, y = width * (window[2] - window[0]), height * (window[3] - window[1])
    return tuple(max(round((longer or max(width, height)) * side / max(x, y)), 1) for side in (x, y))


def asked_size(G, window, res):
    """(width, height) that --res asks for. res: a cli.Side, which is the longer side where the trained image is no square, else both"""
    if res is None or isinstance(res, Side) and len(set(size_of(G))) > 1:
        return fitting_size(G, window, res and res[0])
    return tuple(res)


def stretched(G, width, height, window):
    """'stretched to 1.17 times its width' or its height, of a picture whose pixels are no squares; '' for one where they are."""
    x, y = (side * (end - begin) for side, begin, end in zip(size_of(G), window[:2], window[2:], strict=True))
    if abs(width * y - height * x) <= max(x, y) * 1.001:  # within a pixel of a side
        return ''
    factor = width * y / (height * x)
    return f'stretched to {max(factor, 1 / factor):.3g} times its {"width" if factor > 1 else "height"}'


class Painter:
    """Draws one size and window of a generator as bands of uint8 pixels.

    Generators of `inr` compute every pixel asked for; any other draws its own size, which is then resized.
    force_fp32: whether blocks that learned in half precision draw in float32
    band_bytes: about the working memory of one band of the former; None for that of inr.render
    """

    def __init__(self, G, width, height, window, refine=None, noise_mode='const', force_fp32=True, band_bytes=None):
        self.G, self.width, self.height, self.channels = G, width, height, G.img_channels
        self.window, self.refine = window, refine
        self.band_options = {'max_bytes': band_bytes} if band_bytes else {}
        self.synthesis_options = {'noise_mode': noise_mode, 'force_fp32': force_fp32}
        self.by_points = draws_by_points(G)
        if not self.by_points and (window != WHOLE or refine):
            raise UserError('--window and --refine need a generator of inr; this network draws its own image only, give --res alone')

    @property
    def bytes(self):
        """Size of a picture in memory."""
        return self.width * self.height * self.channels

    @property
    def streams(self):
        """Whether a picture is so large that it is drawn and written band by band."""
        return self.bytes > STREAM_FROM

    def say_how(self):
        own = size_of(self.G)
        how = stretched(self.G, self.width, self.height, self.window) if own[0] != own[1] else ''
        if not self.by_points and (self.width, self.height) != own:
            print(f'This network draws {own[0]}x{own[1]} only: resized to {self.width}x{self.height} (Lanczos)' + (how and f', {how}'))
        elif how:
            print(f'The picture of {own[0]}x{own[1]} is {how}; --res={max(self.width, self.height)} alone keeps it, and so does a --window '
                  f'of {self.width}:{self.height}, which shows more of the plane')

    def bands(self, ws):
        """ws [N, num_ws, w_dim] -> uint8 [N, rows, width, channels], top to bottom. Raises UserError for a picture out of reach."""
        if not self.by_points:
            yield self._resized(to_uint8(self._own(ws)))
            return
        from inr import render

        try:
            self._seed_noise(ws)
            options = self.synthesis_options | self.band_options
            for _row, band in render.bands(self.G, ws, self.height, self.width, self.window, self.refine, **options):
                yield to_uint8(band)
        except render.CannotTile as error:
            raise UserError(f'--res={self.width}x{self.height}: {error}') from None

    def whole(self, ws):
        """ws [N, num_ws, w_dim] -> uint8 [N, height, width, channels]."""
        return np.concatenate(list(self.bands(ws)), axis=1)

    def drawing(self, ws):
        """A function of (top, left, height, width) that draws that part of the picture of ws [1, num_ws, w_dim], uint8 [height, width, C].

        What does not draw by points, or not in parts, is drawn whole once. Raises UserError for a picture out of reach.
        """
        if not (self.by_points and self.G.synthesis.pointwise):
            whole = self.whole(ws)[0]
            return lambda top, left, height, width: whole[top:top + height, left:left + width]
        from inr import render

        def part(*tile):
            self._seed_noise(ws, tile)
            drawn = render.bands(self.G, ws, self.height, self.width, self.window, self.refine, tile, **self.synthesis_options)
            return np.concatenate([to_uint8(band)[0] for _row, band in drawn])

        return part

    def function(self, ws, source):
        """The inr.fixed.Function of ws [1, num_ws, w_dim]; source: what it says it was taken from. Raises UserError where there is none."""
        try:
            from inr import fixed, render
        except ModuleNotFoundError:
            raise UserError('only generators of inr draw functions, and there is no inr/ here') from None
        refine = self.refine or render.DEFAULT_REFINEMENT
        try:
            return fixed.function_of(self.G, ws, self.synthesis_options['noise_mode'], refine=refine, window=self.window, source=source)
        except fixed.NoFunction as error:
            raise UserError(str(error)) from None

    def _own(self, ws):
        self._seed_noise(ws)
        with torch.no_grad():
            return self.G.synthesis(ws, **self.synthesis_options)

    @staticmethod
    def _seed_noise(ws, place=()):
        """Makes random noise the same for the same w and place."""
        torch.manual_seed(zlib.crc32(ws.cpu().numpy().tobytes() + bytes(str(place or ''), 'ascii')))

    def _resized(self, images):
        if images.shape[1:3] == (self.height, self.width):
            return images
        return np.stack([image_io.resized(image, self.width, self.height) for image in images])


def picture(G, ws, size=None, window=WHOLE, refine=None):
    """uint8 [H, W, C] of ws [1, num_ws, w_dim]; size: of the longer side, None is the trained one."""
    width, height = fitting_size(G, longer=size)
    return Painter(G, width, height, window, refine).whole(ws)[0]
