"""Perceptual path length (StyleGAN, arXiv 1812.04948, section 4.1; StyleGAN2, arXiv 1912.04958, appendix B)."""

import time

import numpy as np
import torch

from metrics.collection import Clock, collect, from_main
from metrics.feature_stats import FeatureStats
from metrics.image_sources import synthesize, weights_digest
from metrics.inputs import array, in_full_precision
from metrics.subject import Score
from torch_utils import distributed

EPSILON = 1e-4
LARGEST_SIDE = 256


def slerp(a, b, t):
    """The point t of the way along the great circle from a to b, of unit length.  a, b: [N, D], not 0 nor opposite; t: [N, 1] -> [N, D]"""
    a, b = (x / x.norm(dim=1, keepdim=True) for x in (a, b))
    along = (a * b).sum(dim=1, keepdim=True)
    across = b - along * a
    across = across / across.norm(dim=1, keepdim=True)
    angle = t * along.clamp(-1, 1).acos()
    return a * angle.cos() + across * angle.sin()


def path_length(distances, epsilon=EPSILON):
    """Mean of distances / epsilon^2 without the outermost percent at each end.

    distances: [N], perceptual distances of images whose latents are `epsilon` apart, at least 0
    Returns a float. What is kept lies between the 1st percentile (the sample below it) and the 99th (the sample above it), ends included.
    Raises ValueError when there is none, or one is negative or not finite.
    """
    lengths = array(distances).astype(np.float64) / epsilon ** 2
    if lengths.ndim != 1 or not len(lengths) or not np.isfinite(lengths).all() or lengths.min() < 0:
        raise ValueError(f'distances [N], at least one, finite and not negative, are needed: {lengths.shape}')
    low, high = np.percentile(lengths, 1, method='lower'), np.percentile(lengths, 99, method='higher')
    return float(lengths[(lengths >= low) & (lengths <= high)].mean())


def prepared(images, crop):
    """What the distance is taken of: the middle of a face if asked, averaged down to 256 pixels.

    images: [N, C, H, W] in [-1, 1]
    crop:   keep rows 3/8 to 7/8 and columns 2/8 to 6/8 (the FFHQ face)
    What is averaged down to 256 is what is left after the crop, as in the scripts of both papers: a 1024 face is cut to 512 and halved.
    stylegan2-ada-pytorch divides by R / 256 instead and compares crops of 128 pixels from R = 512 on; its ppl_* differ there.
    """
    if crop:
        high, wide = (side // 8 for side in images.shape[2:])
        images = images[:, :, 3 * high:7 * high, 2 * wide:6 * wide]
    factor = min(images.shape[2:]) // LARGEST_SIDE
    return torch.nn.functional.avg_pool2d(images, factor) if factor > 1 else images


def path_pair(mapping, z, c, space, at_end, random, epsilon=EPSILON):
    """Codes at both ends of one short step on the path between two latents.

    mapping: (z, c) -> ws [N, num_ws, w_dim]
    z:       [2, N, z_dim], the ends of the paths;  c: [N, c_dim] or None
    space:   'w' (straight paths between codes) or 'z' (great circles between latents)
    at_end:  begin the step at the first latent; else at a random point of the path, drawn from `random` (torch.Generator)
    Returns (ws, ws), each [N, num_ws, w_dim].
    """
    count = z.shape[1]
    t = torch.zeros(count, 1) if at_end else torch.rand(count, 1, generator=random)
    t = t.to(z)
    if space == 'z':
        return tuple(mapping(slerp(z[0], z[1], at), c) for at in (t, t + epsilon))
    start, end = mapping(z[0], c), mapping(z[1], c)
    return tuple(start.lerp(end, at[:, :, None].to(start)) for at in (t, t + epsilon))


# ---- Of a generator


def run(group, subject, detector):
    """ppl2_wend and its kin: yields one `Score`.

    Images are drawn in float32 also where the network has layers in half precision: a step of 1e-4 is lost in their rounding.
    """
    (metric,), clock, began, G = group, Clock(), time.monotonic(), subject.G
    latents, at_end, space = subject.latents(), metric.variant.endswith('end'), metric.variant.partition('_')[2][0]
    half = max(subject.batch // 2, 1)

    @in_full_precision
    def work(numbers):
        clock.to('drawing', subject.device)
        z, c = latents(numbers, count=2)
        random = torch.Generator().manual_seed(distributed.mix_seed(subject.seed, numbers[0], metric.variant))
        pair = path_pair(lambda z, c: G.mapping(z, c), z, c, space, at_end, random)
        images = [prepared(synthesize(G, ws, numbers[0], force_fp32=True).float(), crop=metric.variant != 'ppl2_wend') for ws in pair]
        clock.to('features', subject.device)
        vectors = [detector.embed(x).double() for x in images]
        return (vectors[0] - vectors[1]).square().sum(dim=1, keepdim=True), None

    stats = FeatureStats(metric.num, moments=False, kept=metric.num)
    collect(work, stats, half, subject.device, f'{detector.name}, {metric.variant}', None, subject.say)
    clock.to(None)
    name = metric.score_name(detector.name)
    values = from_main(lambda: {name: path_length(stats.features[:, 0])}, [name], subject.device)
    yield Score(metric, values, (), {
        'detector': detector.name, 'detector_digest': detector.digest, 'num': metric.num, 'epsilon': EPSILON,
        'seed': subject.seed, 'images_digest': weights_digest(G), 'seconds': time.monotonic() - began, 'seconds_of': dict(clock.seconds)})
