"""Sliced Wasserstein distance over patches of a Laplacian pyramid (Karras et al. 2018, arXiv 1710.10196, section 5). No network is asked.

    from metrics.sliced_wasserstein import swd
    swd(real, fake)    # uint8 [N, C, R, R] and [M, C, R, R], tensors or arrays
    {'swd': 17.2, 'swd_64': 12.1, 'swd_32': 16.0, 'swd_16': 23.5}    # the mean over the levels, and each level by its size; times 1000

Each level of the pyramid holds one octave of frequencies, the last one (16 pixels) all that is left. Of each image and level 128 patches of
7x7 pixels are taken, both sets are normalized by their own mean and deviation of each channel (so brightness and contrast of a whole set do
not count), and projected onto 512 random directions, along which the Wasserstein-1 distance is that of sorted numbers.
Two finite samples of one distribution are not at 0: compare with what halves of the real set have, and with equal numbers only.
"""

import time
import zlib

import numpy as np
import torch
import torch.nn.functional as F

from dnnlib.util import UserError
from metrics.collection import Clock, collect, from_main
from metrics.feature_stats import FeatureStats
from metrics.image_sources import DataImages, DrawnImages
from metrics.inputs import images as checked
from metrics.inputs import in_full_precision
from torch_utils.misc import size_of

SIDE = 7                  # of a patch
SMALLEST_LEVEL = 16
PATCHES = 128             # of an image and level
DIRECTIONS = 512
MOST_PATCHES = 2 ** 19    # kept of a set and level, 154 MB; sets of more than 4096 images give fewer patches an image
BINOMIAL = (1, 4, 6, 4, 1)
SCALE = 1000


def level_sizes(resolution):
    """Sides of the pyramid's levels, the finest first: halved as long as 16 pixels are left and the side is even."""
    sizes = [resolution]
    while sizes[-1] % 2 == 0 and sizes[-1] // 2 >= SMALLEST_LEVEL:
        sizes.append(sizes[-1] // 2)
    return sizes


def smoothed(x):
    """The binomial filter 1 4 6 4 1 along both axes, borders mirrored.  [N, C, H, W] -> the same shape"""
    line = torch.tensor(BINOMIAL, dtype=x.dtype, device=x.device) / sum(BINOMIAL)
    kernel = (line[:, None] * line).expand(x.shape[1], 1, -1, -1)
    return F.conv2d(F.pad(x, (2, 2, 2, 2), mode='reflect'), kernel, groups=x.shape[1])


@in_full_precision
def laplacian_pyramid(images):
    """Levels [N, C, S, S] of the sizes of `level_sizes`, float32, whose enlarged sum is the image.

    images: [N, C, R, R]. Each level but the last is what the next smaller one, enlarged, does not say.
    """
    levels, x = [], images.float()
    for _size in level_sizes(x.shape[-1])[1:]:
        below = smoothed(x)[:, :, ::2, ::2]
        levels.append(x - enlarged(below))
        x = below
    return [*levels, x]


def enlarged(x):
    """Twice the size: zeros between the pixels, smoothed.  [N, C, S, S] -> [N, C, 2S, 2S]"""
    large = x.new_zeros(*x.shape[:2], 2 * x.shape[2], 2 * x.shape[3])
    large[:, :, ::2, ::2] = 4 * x
    return smoothed(large)


@in_full_precision
def patches(images, count=PATCHES):
    """Random patches of every level of images.

    images: uint8 [N, C, R, R], R at least 7
    count:  patches of an image and level. Where they are follows from the image's own bytes: the order of a set does not matter
    Returns [N, levels, count, C * 49] float32. Raises ValueError for other images.
    """
    images = checked(images)
    if images.shape[2] != images.shape[3] or images.shape[3] < SIDE:
        raise ValueError(f'images [N, C, R, R] with R >= {SIDE} are needed, not {list(images.shape)}')
    randoms = [np.random.default_rng(zlib.crc32(image.tobytes())) for image in images.cpu().numpy()]
    found = []
    for level in laplacian_pyramid(images):
        windows = level.unfold(2, SIDE, 1).unfold(3, SIDE, 1)                                   # [N, C, S - 6, S - 6, 7, 7]
        places = np.stack([random.integers(windows.shape[2], size=(2, count)) for random in randoms])
        y, x = torch.from_numpy(places).to(images.device).unbind(1)                             # [N, count]
        each = torch.arange(len(images), device=images.device)[:, None]
        found.append(windows[each, :, y, x].flatten(2))                                         # [N, count, C * 49]
    return torch.stack(found, dim=1)


def normalized(x, channels):
    """Patches with mean 0 and deviation 1 of each channel over the set; a channel without any spread becomes 0.

    x: [K, channels * 49] -> the same, float32
    """
    x = x.float().reshape(len(x), channels, -1)
    mean = x.mean(dim=(0, 2), keepdim=True, dtype=torch.float64)
    x = x - mean.float()
    deviation = x.square().mean(dim=(0, 2), keepdim=True, dtype=torch.float64).sqrt()
    return (x / torch.where(deviation > 1e-6, deviation, 1).float()).flatten(1)


def random_directions(dim, count=DIRECTIONS, seed=0):
    """Unit vectors, evenly over the sphere: float32 [count, dim]."""
    x = np.random.RandomState(seed).randn(count, dim)
    return torch.from_numpy(x / np.linalg.norm(x, axis=1, keepdims=True)).float()


@in_full_precision
def sliced_wasserstein(a, b, directions, block=32):
    """Mean over directions of the Wasserstein-1 distance of the projections of two sets of points.

    a, b:       [N, D] and [M, D], float32
    directions: [K, D]
    block:      directions at once; memory is about 2 * block * (N + M) numbers
    Returns a float. Raises ValueError for empty sets, shapes that do not fit, and numbers that are not finite.
    """
    if a.ndim != 2 or b.ndim != 2 or not len(a) or not len(b) or not a.shape[1] == b.shape[1] == directions.shape[1]:
        raise ValueError(f'points [N, D] and [M, D] are needed, not {list(a.shape)} and {list(b.shape)}')
    weights, of_a, of_b = _common_steps(len(a), len(b), a.device)
    total = 0.0
    for part in directions.to(a).split(block):
        lines = [_sorted(part @ x.T) for x in (a, b)]                                           # [block, N], [block, M]
        apart = lines[0] - lines[1] if weights is None else (lines[0][:, of_a] - lines[1][:, of_b]) * weights
        total += apart.abs().mean(dim=1, dtype=torch.float64).sum().item()
    if not np.isfinite(total):
        raise ValueError('points must be finite')
    return total / len(directions)


def _common_steps(n, m, device):
    """Where the quantile functions of n and of m sorted numbers are both constant: (weights, rows of n, rows of m), [n + m - 1] at most.

    Weights have mean 1. For n = m they are None: row by row.
    """
    if n == m:
        return None, None, None
    ends = np.unique(np.concatenate([np.arange(1, n + 1) * m, np.arange(1, m + 1) * n]))        # in units of 1 / (n m)
    widths = np.diff(ends, prepend=0)
    weights = torch.from_numpy(widths / (n * m) * len(ends)).float()
    return tuple(x.to(device) for x in (weights, torch.from_numpy((ends - 1) // m), torch.from_numpy((ends - 1) // n)))


def _sorted(x):
    """Rows [K, N] in order. NumPy's sort takes a tenth of the time of torch's on a CPU."""
    return torch.from_numpy(np.sort(x.numpy(), axis=1)) if x.device.type == 'cpu' else x.sort(dim=1).values


def patches_each(total):
    """Patches to take of an image and level in a set of `total` images."""
    return max(min(PATCHES, MOST_PATCHES // max(total, 1)), 1)


@in_full_precision
def distances(real, fake, sizes, device='cpu'):
    """{level's size: distance times 1000} of the patches of two sets.

    real, fake: [N, levels, count, D] and [M, levels, count, D], tensors or arrays, float16 or float32
    """
    directions = random_directions(real.shape[-1]).to(device)
    found = {}
    for level, size in enumerate(sizes):
        points = [normalized(torch.as_tensor(x[:, level]).to(device).flatten(0, 1), real.shape[-1] // SIDE ** 2) for x in (real, fake)]
        found[size] = SCALE * sliced_wasserstein(*points, directions)
    return found


def named(found, name='swd'):
    """{NAME: mean over the levels, NAME_64: of a level, ...} of {size: distance}."""
    return {name: float(np.mean(list(found.values()))), **{f'{name}_{size}': value for size, value in found.items()}}


@in_full_precision
@torch.no_grad()
def swd(real, fake, count=None, device='cpu', batch=64):
    """Sliced Wasserstein distance of two sets of images.

    real, fake: uint8 [N, C, R, R] and [M, C, R, R] of the same R, tensors or arrays; grey is repeated, alpha dropped
    count:      patches of an image and level; None: 128, fewer for more than 4096 images
    device:     where to compute;  batch: images at once on the way to patches
    Returns {'swd': mean over the levels, 'swd_64': of the level of 64 pixels, ...}, times 1000; 0 for equal sets. Raises ValueError for
    other images and empty sets.
    """
    real, fake = (torch.as_tensor(x) for x in (real, fake))
    if not len(real) or not len(fake):
        raise ValueError(f'{len(real)} and {len(fake)} images: at least one of each is needed')
    if real.shape[2:] != fake.shape[2:]:
        raise ValueError(f'images of one size are needed, not {list(real.shape)} and {list(fake.shape)}')
    count = count or patches_each(max(len(real), len(fake)))
    found = [torch.cat([patches(part.to(device), count).half().cpu() for part in x.split(batch)]) for x in (real, fake)]
    return named(distances(*found, level_sizes(real.shape[-1]), device))


# ---- Of a generator or a data set


def run(group, subject, _detector):
    """The scores of a group of swd metrics, which differ in nothing: yields one `Score`."""
    from metrics.subject import Score

    (metric,), clock, began = group, Clock(), time.monotonic()
    width, size = subject.dataset.size
    if (drawn := subject.images.size if subject.G is None else size_of(subject.G)) != (width, size):
        raise ValueError('the real images are {}x{}, the others {}x{}: they must be of one size'.format(width, size, *drawn))
    if width != size:
        raise UserError(f'swd halves square images, these are {width}x{size}: take scores of features, such as fid5k')
    real, count = DataImages(subject.dataset, metric.num), patches_each(metric.num)
    if subject.G is None:
        fake = DataImages(subject.images, metric.num)
        metric = metric.with_num(fake.total)
    else:
        fake = DrawnImages(subject.latents(), metric.num, subject.psi)
    kept = [_patches_of(source, count, subject, clock, title) for source, title in ((real, 'real images'), (fake, 'images'))]
    sizes, name = level_sizes(size), metric.score_name()
    clock.to('mathematics')
    values = from_main(lambda: named(distances(*kept, sizes, subject.device), name), [name, *(f'{name}_{size}' for size in sizes)],
                       subject.device)
    clock.to(None)
    notes = [f'{count} patches of an image and level, not {PATCHES}'] if count < PATCHES else []
    if real.total != fake.total:
        notes.append(f'{real.total} real images against {fake.total}')
    yield Score(metric, values, tuple(notes), {
        'num': fake.total, 'num_real': real.total, 'patches': count, 'directions': DIRECTIONS, 'psi': subject.psi, 'seed': subject.seed,
        'data_digest': getattr(subject.dataset, 'digest', None), 'images_digest': fake.digest,
        'seconds': time.monotonic() - began, 'seconds_of': dict(clock.seconds)})


def _patches_of(source, count, subject, clock, title):
    """[N, levels, count, C * 49], float16, in the main process; None in the others."""
    shape = []

    def work(numbers):
        clock.to(source.activity, subject.device)
        images = source.batch(numbers).to(subject.device)
        clock.to('patches', subject.device)
        found = patches(images, count)
        shape[:] = found.shape[1:]
        return found.flatten(1), None

    stats = FeatureStats(source.total, moments=False, kept=source.total, dtype=np.float16)
    collect(work, stats, subject.batch, subject.device, f'swd, {title}', None, subject.say)
    clock.to(None)
    return None if stats.features is None else stats.features.reshape(-1, *shape)
