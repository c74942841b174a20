"""Projection: find the w whose image is nearest to a given one (StyleGAN2, arXiv 1912.04958, section 5 and appendix D).

Starting at the mean w, Adam minimizes the distance between drawn and given image. Noise is added to w while the search is young, the
learning rate rises and falls by a fixed ramp. The distance is handed in as an embedding, see `project`. INR-GAN projects
with noise maps left alone (paper, appendix B.2), which is the default here.
"""

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F


@dataclass(frozen=True)
class Options:
    """The procedure's numbers; the defaults are StyleGAN2's.

    steps:          optimization steps
    space:          'w', one vector for all layers, or 'w+', one for each
    learning_rate:  Adam's, at the top of its ramp
    rampdown:       share of the steps over which it falls to 0 at the end, along a cosine
    rampup:         share of the steps over which it rises from 0 at the start, linearly
    initial_noise:  noise added to w at the first step, in standard deviations of w
    noise_ramp:     share of the steps after which no noise is added any more
    noise_maps:     whether the generator's constant noise maps are optimized too
    noise_weight:   weight of their regularizer
    """

    steps: int = 1000
    space: str = 'w'
    learning_rate: float = 0.1
    rampdown: float = 0.25
    rampup: float = 0.05
    initial_noise: float = 0.05
    noise_ramp: float = 0.75
    noise_maps: bool = False
    noise_weight: float = 1e5


@dataclass(frozen=True)
class Step:
    """One step of the search: what was drawn before the update, and the w after it.

    index:    number of the step, from 0
    distance: distance of the image drawn at the noisy w, a float
    image:    that image, [1, C, H, W] in [-1, 1]
    ws:       w after the step, without noise, [1, num_ws, w_dim]
    """

    index: int
    distance: float
    image: torch.Tensor
    ws: torch.Tensor


def learning_rate(options, index):
    """Learning rate of step `index`: the linear rise times the cosine fall."""
    t = index / options.steps
    fall = min(1.0, (1 - t) / options.rampdown) if options.rampdown > 0 else 1.0
    rise = min(1.0, t / options.rampup) if options.rampup > 0 else 1.0
    return options.learning_rate * (0.5 - 0.5 * math.cos(fall * math.pi)) * rise


def noise_scale(options, index):
    """Noise on w at step `index`, in standard deviations of w: falls with the square of the time left to its end."""
    t = index / options.steps
    return options.initial_noise * max(0.0, 1 - t / options.noise_ramp) ** 2 if options.noise_ramp > 0 else 0.0


def w_statistics(mapping, z_dim, label=None, samples=10_000, seed=123, batch=1000):
    """Mean and spread of w over random z.

    label: [1, c_dim], the class all samples have; None for a model without classes
    Returns (mean [1, 1, w_dim], deviation): deviation is a float, the root of the mean squared distance from the mean, as StyleGAN2 has it.
    """
    device = next(mapping.parameters()).device
    random = torch.Generator().manual_seed(seed)
    ws = []
    with torch.no_grad():
        for first in range(0, samples, batch):
            z = torch.randn(min(batch, samples - first), z_dim, generator=random).to(device)
            c = label.expand(len(z), -1) if label is not None else None
            ws.append(mapping(z, c)[:, :1])  # all layers get the same w
    ws = torch.cat(ws)  # [samples, 1, w_dim]
    mean = ws.mean(dim=0, keepdim=True)
    return mean, (ws - mean).square().sum(dim=(1, 2)).mean().sqrt().item()


def composite(image, target, mask):
    """Both images of a masked comparison: outside the mask each is the drawn image, cut off from gradients, so that nothing differs there.

    image, target: [1, C, H, W];  mask: [1, 1, H, W], 1 where the target counts and 0 where it does not
    Returns (image, target).
    """
    drawn = image.detach()
    return torch.where(mask > 0.5, image, drawn), torch.where(mask > 0.5, target, drawn)


def noise_roughness(noise_map):
    """How much a noise map correlates with itself one pixel on, at all scales down to 8: the regularizer of StyleGAN2's projection.

    noise_map: [H, W];  returns a scalar, 0 for white noise in the mean
    """
    x = noise_map[None, None]
    total = 0.0
    while True:
        total = total + sum((x * x.roll(1, dims=axis)).mean().square() for axis in (2, 3))
        if min(x.shape[2:]) <= 8:
            return total
        x = F.avg_pool2d(x, 2)


def project(synthesis, start, deviation, target, embed, options=Options(), mask=None, seed=0,  # noqa: B008 (frozen)
            draw=None) -> Iterator[Step]:
    """Search the w of an image, one `Step` at a time, so that the caller may look, stop or save at any of them.

    synthesis: G.synthesis; its weights should not require gradients. With options.noise_maps its buffers named *noise_const are
               replaced while the search runs and keep what it found, whether it ends or is closed early
    start:     w to start from, [1, 1, w_dim];  deviation: spread of w, a float (both from `w_statistics`)
    target:    [1, C, H, W] in [-1, 1], of the size that is drawn
    embed:     images [N, C, H, W] -> [N, F], whose squared distances are the distances of the images
    mask:      [1, 1, H, W], 1 where the target counts, 0 where it does not; None: it counts everywhere
    seed:      of the noise on w and of the initial noise maps
    draw:      ws [1, num_ws, w_dim] -> image [1, C, H, W] to compare, with gradients; None: all that synthesis draws
    Raises ValueError when noise maps are to be optimized and the model has none, and for a target of another type or shape than is drawn.
    """
    if not target.is_floating_point() or target.ndim != 4 or len(target) != 1:
        raise ValueError(f'the target must be one image [1, C, H, W] in [-1, 1], got {target.dtype} {list(target.shape)}')
    random = torch.Generator().manual_seed(seed)
    num_ws = synthesis.num_ws
    draw = functools.partial(synthesis, noise_mode='const', force_fp32=True) if draw is None else draw
    w = start.detach().repeat(1, num_ws if options.space == 'w+' else 1, 1).requires_grad_()  # [1, 1 | num_ws, w_dim]
    noise_maps = _random_noise_maps(synthesis, random) if options.noise_maps else []
    optimizer = torch.optim.Adam([w, *noise_maps], betas=(0.9, 0.999), lr=options.learning_rate)
    with torch.no_grad():
        wanted = embed(target) if mask is None else None
    try:
        for index in range(options.steps):
            for group in optimizer.param_groups:
                group['lr'] = learning_rate(options, index)
            noise = torch.randn(w.shape, generator=random).to(w.device) * (deviation * noise_scale(options, index))
            image = draw((w + noise).expand(-1, num_ws, -1))
            if image.shape != target.shape:
                raise ValueError(f'the target is {list(target.shape)}, what is drawn {list(image.shape)}')
            compared = image
            if mask is not None:
                compared, filled = composite(image, target, mask)
                with torch.no_grad():
                    wanted = embed(filled)
            distance = (embed(compared) - wanted).square().sum()
            loss = distance + options.noise_weight * sum(noise_roughness(x) for x in noise_maps)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            _normalize(noise_maps)
            yield Step(index, distance.item(), image.detach(), w.detach().expand(-1, num_ws, -1).clone())
    finally:
        for noise_map in noise_maps:
            noise_map.requires_grad_(False)


def _random_noise_maps(synthesis, random):
    """Fill the model's constant noise maps with white noise and have them collect gradients; returns them."""
    noise_maps = [buffer for name, buffer in synthesis.named_buffers() if name.endswith('noise_const')]
    if not noise_maps:
        raise ValueError('this model has no noise maps to optimize')
    for noise_map in noise_maps:
        noise_map.copy_(torch.randn(noise_map.shape, generator=random))
        noise_map.requires_grad_()
    return noise_maps


@torch.no_grad()
def _normalize(noise_maps):
    """Bring each map back to mean 0 and mean square 1."""
    for noise_map in noise_maps:
        noise_map -= noise_map.mean()
        noise_map *= noise_map.square().mean().rsqrt()
