"""Windows of pictures, for scores that look at detail which a small picture does not have (as the patch FID of arXiv 2204.07156 in kind).

Number n stands for one place, so that drawn and real windows come from the same ones: the part of `side` x `side` pixels from (left, top)
of the whole picture at size x size pixels.
"""

import hashlib

import numpy as np
import torch

from dnnlib.util import UserError
from metrics.image_sources import DataImages, synthesize, weights_digest
from torch_utils.misc import size_of
from torch_utils.pixels import quantized
from training.data.transforms import part_of_square


def places(numbers, size, side, step=1):
    """int64 [N, 3], (size, left, top) of the windows with these numbers; places are multiples of `step`."""
    count = (size - side) // step + 1
    return np.array([[size, *(np.random.default_rng([n, size]).integers(count, size=2) * step)] for n in numbers], np.int64)


class DataPatches(DataImages):
    """A window of each picture of a data set that is large enough, shrunk without aliasing to the size that the whole is seen at.

    dataset: training.dataset.ImageDataset;  most: windows at most, None: one of each picture
    size:    pixels of the whole picture;  side: of a window;  step: of which places are multiples
    """

    def __init__(self, dataset, most, size, side, step=1):
        super().__init__(dataset)
        self.size, self.side, self.step = size, side, step
        large = [i for i in range(len(dataset)) if dataset.side(i) >= size]
        if len(large) < 2:
            raise UserError(f'@{size}: {len(large)} of the {len(dataset)} images of {dataset.path} have so many pixels a side, 2 are '
                            f'needed; the largest have {dataset.sides()[-1]}')
        self.total = len(large) if most is None else min(most, len(large))
        self._items = np.array(large)[np.sort(np.random.RandomState(0).permutation(len(large))[:self.total])]
        self.digest = hashlib.sha256(f'{dataset.digest} {len(dataset)} {self.total} {size} {side} {step}'.encode()).hexdigest()

    def batch(self, numbers):
        """uint8 [N, C, side, side] of the windows with these numbers."""
        found = []
        for n, (size, left, top) in zip(numbers, places(numbers, self.size, self.side, self.step), strict=True):
            def read(name, flip, at=(size, left, top)):
                return part_of_square(self.dataset.picture(name), *at, self.side)

            found.append(self.dataset.take(int(self._items[n]), read)[0])
        return torch.from_numpy(np.stack(found))


class DrawnPatches:
    """Windows of a generator's pictures at another size than the trained one; no other pixels are drawn.

    latents, total, psi: as of image_sources.DrawnImages;  size: pixels of the whole picture
    """

    activity = 'drawing'

    def __init__(self, latents, total, psi, size):
        G = latents.G
        self.latents, self.total, self.psi, self.size, self.step = latents, total, psi, size, step_of(G)
        if not getattr(G.synthesis, 'draws_windows', False):
            raise UserError(f'@{size} takes a generator of inr that draws windows; this one draws {G.img_resolution} pixels: score a '
                            'folder of its pictures with --images and --res')
        if (whole := size_of(G))[0] != whole[1]:
            raise UserError(f'@{size} takes square windows; this generator draws {whole[0]}x{whole[1]} pixels: take scores without @')
        if size < G.img_resolution or size % self.step:
            raise UserError(f'@{size}: give {G.img_resolution} or more, a multiple of {self.step}, for this generator')
        self.digest = hashlib.sha256(f'{weights_digest(G)} {latents.digest} {total} {psi} @{size}'.encode()).hexdigest()

    def batch(self, numbers):
        """uint8 [N, C, R, R] of the windows with these numbers."""
        G = self.latents.G
        z, c = self.latents(numbers)
        windows = torch.from_numpy(places(numbers, self.size, G.img_resolution, self.step))
        images = synthesize(G, G.mapping(z[0], c, truncation_psi=self.psi), numbers[0], windows=windows)
        if not images.isfinite().all():
            raise ValueError(f'images {numbers[0]} and after are not all finite: the network is broken')
        return quantized(images).cpu()


def step_of(G):
    """Of which the places of a generator's windows are multiples; 1 for one that draws none."""
    pyramid = getattr(getattr(G, 'synthesis', None), 'pyramid', None)
    return 1 if pyramid is None else pyramid.step
