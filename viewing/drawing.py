"""Drawing what a page asks for: the networks of a run, w of a view, tiles and pictures. All of it happens in one thread, in turn."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from dnnlib import image_io
from dnnlib.util import UserError
from inference import WHOLE, opening
from inference.directions import COUNT, find, load
from inference.latents import Walk, label_of_seed, latents_of, network_digest
from inference.painter import Painter, draws_tiles
from torch_utils.misc import size_of
from training.checkpoint import images_of, load_networks, snapshots
from viewing import MARGIN, MAX_SAVED, TILE, whole
from viewing.kept import Kept
from viewing.state import Limits, View, tile_window

KEPT_NETWORKS = 3
KEPT_LATENTS = 256
KEPT_PICTURES = 2**26  # bytes
BAND_BYTES = 32 * 2**20  # working memory of a saved picture's band: a fraction of a second, between which tiles are drawn
SIDE = TILE + 2 * MARGIN


class Drawing:
    """A network and the other snapshots its run keeps, ready to be drawn from.

    given, device: as for opening.open_network; directions: a file of them, or None for those of SeFa
    A network whose pixels cannot be drawn alone draws whole pictures, of which parts are shown. Raises UserError where there is none.
    """

    def __init__(self, given, device, directions=None):
        self.device = device
        self.G, self.meta = opening.open_network(given, device)
        self.draws_parts = draws_tiles(self.G)
        self.networks, self.latents = Kept(KEPT_NETWORKS), Kept(KEPT_LATENTS)
        self.pictures = Kept(KEPT_PICTURES, lambda image: image.nbytes)
        self.path, self.opened = Path(self.meta['path']), images_of(Path(self.meta['path']))
        self.snapshots = self.look_for_snapshots()
        self.directions = None if directions is None else load(directions, self.G)
        self.digest = network_digest(self.G)[:16]

    def look_for_snapshots(self):
        """{images seen: path} of the snapshots that lie beside the network, earliest first."""
        return {images_of(path): path for path in snapshots(self.path.parent)}

    def limits(self):
        return Limits(self.G.num_ws, self.G.c_dim, self.count_directions(), self.snapshots)

    def count_directions(self):
        return min(COUNT, self.G.w_dim) if self.directions is None else len(self.directions)

    def info(self):
        """What the page needs to know, as JSON would hold it; looks for snapshots that came since."""
        self.snapshots = self.look_for_snapshots()
        G, data = self.G, self.meta['dataset']
        return {
            'name': f'{self.meta["cfg"]}, {self.meta["kimg"]:g} kimg', 'digest': self.digest, 'size': size_of(G),
            'num_ws': G.num_ws, 'c_dim': G.c_dim, 'classes': data['classes'], 'opened': self.opened, 'snapshots': list(self.snapshots),
            'directions': self.count_directions(), 'most_pixels': MAX_SAVED,
            'whole': not self.draws_parts,
        }

    def network(self, images=None):
        """The generator after that many images; the opened one for None. Raises UserError for one that cannot be read or is another."""
        if images in (None, self.opened):
            return self.G
        G = self.networks.get(images)
        if G is None:
            path = self.snapshots.get(images)
            if path is None:
                raise UserError(f'the snapshot after {images} images is gone')
            G = load_networks(path, self.device, only=['G_ema'])['G_ema']
            if type(G) is not type(self.G) or G.init_kwargs != self.G.init_kwargs:
                raise UserError(f'{path.name} is not of the same run: it is built otherwise')
            self.networks.put(images, G)
        return G

    @torch.no_grad()
    def ws(self, view):
        """w of a view, [1, num_ws, w_dim]."""
        found = self.latents.get(view)
        return self.latents.put(view, self._ws(view)) if found is None else found

    def _ws(self, view):
        G = self.network(view.snapshot)

        def label(seed):
            if not view.label:
                return label_of_seed(G, seed, names=self.meta['dataset']['classes'])
            numbers = torch.zeros([1, G.c_dim], device=self.device)
            for index, weight in view.label:
                numbers[0, index] = weight
            return numbers

        if view.to is None:
            ws = latents_of(G, view.seed, label(view.seed), view.psi, view.cutoff)
        else:
            stops = view.seed, view.to
            ws = Walk(G, stops, [label(seed) for seed in stops], view.psi, view.space, view.cutoff).at(0, view.share)
        ws = ws.clone()
        if view.style is not None and view.layers:
            ws[:, view.layers] = latents_of(G, view.style, label(view.style), view.psi, view.cutoff)[:, view.layers]
        if view.directions:
            self.directions = self.directions or find(self.G)
            ws = self.directions.moved(ws, view.directions)
        return ws

    def in_image(self, window):
        """A window of the page's plane, where the trained image lies in the middle of a square of side 1, in units of the image."""
        size = size_of(self.G)
        if size[0] == size[1]:
            return window
        longer = max(size)
        x0, y0, x1, y1 = ((edge - 0.5) * longer / side + 0.5 for edge, side in zip(window, size * 2, strict=True))
        return x0, y0, x1, y1

    def tile(self, view, level, x, y):
        """A tile as the bytes of a PNG."""
        window = self.in_image(tile_window(level, x, y))
        if self.draws_parts:
            painter = Painter(self.network(view.snapshot), SIDE, SIDE, window, view.refine)
            pixels = painter.whole(self.ws(view))[0]
        else:
            pixels = np.concatenate(list(whole.bands(self.picture(view), window, SIDE, SIDE)))
        return image_io.quick_png(pixels)

    def picture(self, view):
        """uint8 [H, W, C], all that a network draws that cannot draw parts."""
        view = replace(view, refine=None)
        found = self.pictures.get(view)
        if found is None:
            G = self.network(view.snapshot)
            painter = Painter(G, *size_of(G), WHOLE)
            found = self.pictures.put(view, painter.whole(self.ws(view))[0])
        return found

    def bands(self, view, picture):
        """(channels, iterator of bands uint8 [rows, width, channels]) of a state.Picture."""
        G, window = self.network(view.snapshot), self.in_image(picture.window)
        if not self.draws_parts:
            return G.img_channels, whole.bands(self.picture(view), window, picture.width, picture.height)
        painter = Painter(G, picture.width, picture.height, window, view.refine, band_bytes=BAND_BYTES)
        return painter.channels, (band[0] for band in painter.bands(self.ws(view)))

    def warm_up(self):
        """Draws what a page begins with, so that compiled code and memory are there."""
        self.tile(View(), 4, 8, 8)
