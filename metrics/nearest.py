"""Which training images a generator's images are nearest to, and whether they are copies of them. Flipped training images count too.

    from metrics.nearest import assess, pixel_vectors
    report = assess(pixel_vectors(samples), pixel_vectors(reals), pixel_vectors(reals.flip(3)))
    report.numbers         # {'copies': 0.0, 'closer': 0.4, 'median_ratio': 1.1, 'copies_of_reals': 0.01, 'closer_of_reals': 0.5}

A distance means something only beside another one: that of the training image to its own nearest other training image. Where a sample is
less than half as far from a training image as any other training image is, it is called a copy of it.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from metrics.inputs import images as checked
from metrics.inputs import in_full_precision

SIDE = 32    # pixels are compared at no more than this: sharp edges a pixel apart would hide a copy
COPY = 0.5   # of the distance between training images
BLOCK = 512  # rows compared at once
SPARE = 4    # candidates beyond those asked for, whose distances are computed again without cancellation


@dataclass(frozen=True)
class Neighbours:
    """The nearest training images of N rows, in order, [N, k] each. items: their numbers; mirrored: whether the flipped one is nearer."""

    distances: np.ndarray
    items: np.ndarray
    mirrored: np.ndarray


@dataclass(frozen=True)
class Report:
    """What `assess` finds: the neighbours of each sample, its ratio [N] (below 1/2: a copy), and the figures by name."""

    found: Neighbours
    ratios: np.ndarray
    numbers: dict


def pixel_vectors(images, side=SIDE):
    """uint8 [N, 1 | 3 | 4, H, W] -> float32 [N, 3 * side * side], whose Euclidean distances are RMS differences of pixels in 0..255."""
    images = checked(images).float()
    if max(images.shape[2:]) > side:
        images = F.interpolate(images, size=(side, side), mode='area')
    x = images.flatten(1)
    return x / x.shape[1] ** 0.5


def feature_vectors(images, detector, batch=32, device='cpu'):
    """Features of uint8 images [N, C, H, W] by a metrics.detectors.Detector: float32 [N, D]."""
    with torch.no_grad():
        return torch.cat([detector.features(part.to(device)).float().cpu() for part in torch.as_tensor(images).split(batch)])


@in_full_precision
def neighbours(rows, bank, flipped, k=1, leave_out=None):
    """The k nearest training images of each row, an image counting once, as it is or flipped, whichever is nearer.

    rows:      [N, D];  bank, flipped: [M, D], the training images and the same flipped left to right
    leave_out: int [N, L], training images that do not count for a row; None: all do
    Returns `Neighbours` with min(k, M) columns. Raises ValueError for shapes that do not fit, too few images, numbers that are not finite.
    """
    rows, bank, flipped = (torch.as_tensor(x).detach().float() for x in (rows, bank, flipped))
    left = 0 if leave_out is None else np.shape(leave_out)[1]
    if rows.ndim != 2 or bank.ndim != 2 or flipped.shape != bank.shape or rows.shape[1] != bank.shape[1] or not rows.numel():
        raise ValueError(f'rows [N, D] and twice [M, D] are needed, not {[list(x.shape) for x in (rows, bank, flipped)]}')
    if len(bank) <= left:
        raise ValueError(f'{len(bank)} training images, at least {left + 1} are needed')
    if not all(x.isfinite().all() for x in (rows, bank, flipped)):
        raise ValueError('numbers must be finite')
    centre = bank.mean(dim=0)  # a large common offset would cost digits
    both, parts = [x - centre for x in (bank, flipped)], []
    for first in range(0, len(rows), BLOCK):
        part = rows[first:first + BLOCK] - centre
        rough = torch.stack([x.square().sum(dim=1) - 2 * part @ x.T for x in both]).amin(dim=0)       # [n, M]
        if left:
            rough.scatter_(1, torch.as_tensor(np.asarray(leave_out[first:first + BLOCK])).long(), torch.inf)
        places = rough.topk(min(k + SPARE, len(bank) - left), largest=False).indices                   # [n, k + SPARE]
        exact = torch.stack([(part[:, None] - x[places]).square().sum(dim=2).sqrt() for x in both])    # [2, n, k + SPARE]
        nearer, which = exact.min(dim=0)
        order = nearer.argsort(dim=1, stable=True)[:, :k]
        parts.append([x.gather(1, order).numpy() for x in (nearer, places, which)])
    distances, items, which = (np.concatenate(x) for x in zip(*parts, strict=True))
    return Neighbours(distances, items, which == 1)


def assess(samples, bank, flipped, k=3, seed=0):
    """Nearest training images of samples, and how near they are for training images.

    samples: [N, D];  bank, flipped: [M, D], M at least 3, as in `neighbours`;  k: neighbours of each sample to report
    seed:    of the training images, at most N, that are looked at in the same way
    Returns `Report`. The ratio of a sample is its distance to the nearest training image over the distance of that image to its own nearest
    other one. numbers: 'copies', the share of samples with a ratio below 1/2; 'closer', below 1; 'median_ratio', the median distance of
    samples over that of training images left out in turn; 'copies_of_reals' and 'closer_of_reals', the shares for those.
    """
    bank, flipped = torch.as_tensor(bank), torch.as_tensor(flipped)
    found = neighbours(samples, bank, flipped, k)
    ratios = _ratio(found.distances[:, 0], bank, flipped, found.items[:, :1])
    chosen = np.sort(np.random.RandomState(seed).permutation(len(bank))[:len(samples)])[:, None]
    own = neighbours(bank[chosen[:, 0]], bank, flipped, 1, chosen)
    of_reals = _ratio(own.distances[:, 0], bank, flipped, np.concatenate([own.items, chosen], axis=1))
    numbers = {'copies': (ratios < COPY).mean(), 'closer': (ratios < 1).mean(),
               'median_ratio': np.median(found.distances[:, 0]) / max(np.median(own.distances), 1e-9),
               'copies_of_reals': (of_reals < COPY).mean(), 'closer_of_reals': (of_reals < 1).mean()}
    return Report(found, ratios, {name: float(value) for name, value in numbers.items()})


def _ratio(distances, bank, flipped, left_out):
    """distances [N] over that of the training images left_out[:, 0] to the nearest other one that is not left out."""
    own = neighbours(bank[left_out[:, 0]], bank, flipped, 1, left_out).distances[:, 0]
    return distances / np.maximum(own, 1e-9)
