"""Perceptual path length (StyleGAN, arXiv 1812.04948, section 4.1; StyleGAN2, arXiv 1912.04958, appendix B)."""

import numpy as np
import torch

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
    Raises ValueError when there is none or one is not finite.
    """
    lengths = np.asarray(distances, np.float64) / epsilon ** 2
    if not len(lengths) or not np.isfinite(lengths).all():
        raise ValueError(f'{len(lengths)} finite distances are needed')
    low, high = np.percentile(lengths, 1, method='lower'), np.percentile(lengths, 99, method='higher')
    return float(lengths[(lengths >= low) & (lengths <= high)].mean())


def prepared(images, crop):
    """What the distance is taken of: the middle of a face if asked, averaged down to 256 pixels.

    images: [N, C, R, R] in [-1, 1], R a power of two
    crop:   keep rows 3/8 to 7/8 and columns 2/8 to 6/8 (the FFHQ face)
    """
    if crop:
        eighth = images.shape[2] // 8
        images = images[:, :, 3 * eighth:7 * eighth, 2 * eighth:6 * eighth]
    factor = images.shape[2] // LARGEST_SIDE
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
