"""Does a function of the coordinate stay itself when it is drawn at another size: PSNR and SSIM against the trained one."""

import time

import torch
import torch.nn.functional as F

from dnnlib.util import UserError
from metrics.collection import collect, from_main
from metrics.feature_stats import FeatureStats
from metrics.image_sources import weights_digest
from metrics.inputs import in_full_precision
from metrics.subject import ONE_SIZE, Score, size_text

WINDOW, SIGMA = 11, 1.5
LARGEST_PSNR = 100.0  # dB, given to images that are equal


def _pair(a, b):
    """Both in float32 at least. Raises ValueError unless they are floating point images of one shape."""
    if a.shape != b.shape or a.ndim != 4 or not (a.is_floating_point() and b.is_floating_point()):
        raise ValueError(f'images [N, C, H, W] in [-1, 1], twice, are needed, not {a.dtype} {list(a.shape)} and {b.dtype} {list(b.shape)}')
    return (x.to(torch.promote_types(x.dtype, torch.float32)) for x in (a, b))


def psnr(a, b):
    """Peak signal-to-noise ratio of images in pairs, dB, at most 100.  [N, C, H, W] in [-1, 1], twice -> [N]"""
    a, b = _pair(a, b)
    error = (a - b).square().mean(dim=(1, 2, 3))
    return (10 * torch.log10(4 / error.clamp(min=1e-30))).clamp(max=LARGEST_PSNR)


@in_full_precision
def ssim(a, b):
    """Structural similarity of images in pairs (Wang et al. 2004, eq. 13), Gaussian window of 11 pixels (less where images are smaller).

    a, b: [N, C, H, W] in [-1, 1];  returns [N], the mean over positions that hold the whole window, and over channels
    """
    a, b = _pair(a, b)
    size = min(WINDOW, *a.shape[2:])
    line = torch.exp(-(torch.arange(size, dtype=a.dtype, device=a.device) - (size - 1) / 2).square() / (2 * SIGMA ** 2))
    line = line / line.sum()
    channels = a.shape[1]

    def smooth(x):
        x = F.conv2d(x, line.reshape(1, 1, -1, 1).expand(channels, -1, -1, -1), groups=channels)
        return F.conv2d(x, line.reshape(1, 1, 1, -1).expand(channels, -1, -1, -1), groups=channels)

    mean_a, mean_b = smooth(a), smooth(b)
    var_a, var_b = smooth(a * a) - mean_a ** 2, smooth(b * b) - mean_b ** 2
    both = smooth(a * b) - mean_a * mean_b
    c1, c2 = (0.01 * 2) ** 2, (0.03 * 2) ** 2  # 2 is the range of the values
    index = (2 * mean_a * mean_b + c1) * (2 * both + c2) / ((mean_a ** 2 + mean_b ** 2 + c1) * (var_a + var_b + c2))
    return index.mean(dim=(1, 2, 3))


def compare(own, double, half):
    """Figures of each image: of the doubled size averaged back against its own, and of the halved size against its own averaged down.

    own: [N, C, R, R] in [-1, 1];  double: [N, C, 2R, 2R];  half: [N, C, R/2, R/2]
    Returns [N, 4]: squared-error PSNR and SSIM at 2x, the same at half.
    """
    own, double, half = (x.clamp(-1, 1) for x in (own, double, half))
    pairs = (F.avg_pool2d(double, 2), own), (half, F.avg_pool2d(own, 2))
    return torch.stack([measure(*pair) for pair in pairs for measure in (psnr, ssim)], dim=1)


def summary(figures):
    """Means over the images: [N, 4] -> four floats (PSNR in dB, SSIM, at 2x and at half)."""
    return [float(x) for x in figures.mean(axis=0, dtype='float64')]


# ---- Of a generator


def run(group, subject, _detector):
    """PSNR and SSIM of images drawn at 2x and at half the size."""
    (metric,), began, G = group, time.monotonic(), subject.G
    if subject.draw is None:
        raise UserError(f'scale_consistency {ONE_SIZE} {size_text(G)} only')
    latents = subject.latents()

    def work(numbers):
        z, c = latents(numbers)
        ws = G.mapping(z[0], c, truncation_psi=subject.psi)
        images = {scale: subject.draw(ws, scale).float() for scale in (1, 2, 0.5)}
        return compare(images[1], images[2], images[0.5]), None

    stats = FeatureStats(metric.num, moments=False, kept=metric.num)
    collect(work, stats, subject.batch, subject.device, 'scale_consistency', None, subject.say)
    names = [metric.score_name() + end for end in metric.outputs]
    values = from_main(lambda: dict(zip(names, summary(stats.features), strict=True)), names, subject.device)
    yield Score(metric, values, (), {'num': metric.num, 'psi': subject.psi, 'seed': subject.seed, 'images_digest': weights_digest(G),
                                     'seconds': time.monotonic() - began})
