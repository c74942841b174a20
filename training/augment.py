"""Augmentations of what a discriminator judges, each with probability p and for each image apart (Karras et al. 2020, arXiv 2006.06676).

As long as p is well below 1, D learns what images look like without them and G does not imitate them (section 2.2 there). Order, strengths
and the groups of `config.PIPES` are those of appendix B; the transforms are in augment_ops.py. A batch costs what its chosen images cost.
"""

import math
from collections.abc import Callable

import torch

from training import augment_ops as ops
from training.options import PIPES

TRANSFORMS = {  # name: (group, random numbers beside the one that decides whether it happens)
    'flip': ('blit', 1), 'quarter turn': ('blit', 1), 'whole shift': ('blit', 2),
    'scale': ('geom', 1), 'turn before': ('geom', 1), 'stretch': ('geom', 1), 'turn after': ('geom', 1), 'shift': ('geom', 2),
    'brightness': ('color', 1), 'contrast': ('color', 1), 'luma flip': ('color', 1), 'hue': ('color', 1), 'saturation': ('color', 1),
    'band 0': ('filter', 1), 'band 1': ('filter', 1), 'band 2': ('filter', 1), 'band 3': ('filter', 1),
    'noise': ('noise', 2), 'cutout': ('cutout', 2),
}  # fmt: skip
COLUMNS = {name: sum(1 + count for _, count in list(TRANSFORMS.values())[:i]) for i, name in enumerate(TRANSFORMS)}
NUMBERS = sum(1 + count for _, count in TRANSFORMS.values())  # random numbers of an image, whatever p and the groups are

SHIFT = 1 / 8           # whole shifts up to this share of the width; standard deviation of the others
SCALE = 0.2             # standard deviations in octaves of scale and stretch ...
CONTRAST = 0.5          # ... of contrast ...
SATURATION = BAND = 1   # ... of saturation and of a band's gain
BRIGHTNESS = 0.2        # standard deviation
NOISE = 0.1             # of the noise's deviation, half of a normal distribution


class Dice:
    """A batch's random numbers, by transform.

    numbers: [N, NUMBERS] float64 in [0, 1);  p: chance of a transform;  groups: those that are on
    """

    def __init__(self, numbers: torch.Tensor, p: float, groups: tuple[str, ...]):
        self.numbers, self.p, self.groups = numbers, p, groups

    def happens(self, name: str, chance: float | None = None) -> torch.Tensor:
        """[N] bool: which images get the transform, each with this chance (None: p)."""
        on = TRANSFORMS[name][0] in self.groups
        return self.numbers[:, COLUMNS[name]] < ((self.p if chance is None else chance) if on else 0)

    def uniform(self, name: str, i: int = 0) -> torch.Tensor:
        """[N] in [0, 1): the transform's i-th number."""
        return self.numbers[:, COLUMNS[name] + 1 + i]

    def normal(self, name: str, i: int = 0) -> torch.Tensor:
        """[N], of mean 0 and deviation 1."""
        return torch.special.ndtri(self.uniform(name, i).clamp(min=1e-12))

    def factor(self, name: str, octaves: float) -> torch.Tensor:
        """[N]: 2 to a normal number of so many octaves, where the transform happens; else 1."""
        return torch.where(self.happens(name), torch.exp2(self.normal(name) * octaves), 1.0)


class AugmentPipe(torch.nn.Module):
    """Augments images, [N, C, H, W] in [-1, 1] of 1, 3 or 4 channels and any floating type; twice differentiable in them.

    pipe: a name in PIPES;  p: chance of each transform, a buffer in [0, 1]; 0 returns the images themselves
    Colour and noise leave a fourth channel, alpha, alone; what moves or filters pixels takes it along, and so does cutout.
    """

    def __init__(self, pipe: str = 'bgc', p: float = 0.0):
        super().__init__()
        self.groups = PIPES[pipe]
        self.register_buffer('p', torch.tensor(p, dtype=torch.float64))

    def forward(self, images: torch.Tensor, numbers: torch.Tensor | None = None) -> torch.Tensor:
        """numbers: [N, NUMBERS] float64 in [0, 1) on the CPU that decide everything; None draws them."""
        if not (images.ndim == 4 and images.shape[1] in (1, 3, 4) and min(images.shape[2:]) > 1):
            raise ValueError(f'augmentation takes images of shape [N, 1, 3 or 4, H, W], it was given {list(images.shape)}')
        if not images.is_floating_point():
            raise ValueError(f'augmentation takes images in [-1, 1] of a floating type, it was given {images.dtype}')
        p = self.p.item()
        if p <= 0:
            return images
        if numbers is None:
            numbers = torch.rand(len(images), NUMBERS, dtype=torch.float64)
        dice, dtype = Dice(numbers, p, self.groups), images.dtype
        with torch.autocast(images.device.type, enabled=False):
            images = images if dtype == torch.float64 else images.float()
            for stage in (move, colour, sharpen, corrupt):
                images = stage(images, dice)
            return images.to(dtype)


# ---- The stages, in their order


def move(images: torch.Tensor, dice: Dice) -> torch.Tensor:
    """Pixel blitting, then geometry: an image that is warped takes its whole shift along, so that it is mirrored once. One that is no
    square is turned by halves in place of quarters."""
    size = images.shape[:1:-1]
    R, turn = min(size), 1 if size[0] == size[1] else 2
    flip = dice.happens('flip') & (dice.uniform('flip') < 0.5)
    turns = torch.where(dice.happens('quarter turn'), (dice.uniform('quarter turn') * (4 // turn)).floor() * turn, 0.0)
    shift = torch.stack([((2 * dice.uniform('whole shift', i) - 1) * SHIFT * side).round() for i, side in enumerate(size)], dim=1)
    shift = torch.where(dice.happens('whole shift')[:, None], shift, 0.0)
    warped, inverse = geometry(dice, shift / R, [side / R for side in size])
    shift = torch.where(warped[:, None], 0.0, shift)
    blitted = flip | (turns != 0) | (shift != 0).any(1)
    images = _change(images, blitted, lambda part, which: ops.blit(part, flip[which], turns[which], shift[which]))
    return _change(images, warped, lambda part, which: ops.warp(part, inverse[which]))


def geometry(dice: Dice, shift: torch.Tensor, extent=(1, 1)) -> tuple[torch.Tensor, torch.Tensor]:
    """(which images are warped [N], from where each of their points comes [N, 2, 3]).

    shift: [N, 2] that happens before, in shorter sides;  extent: (width, height) of the images in these
    """
    turn_chance = 1 - math.sqrt(1 - min(dice.p, 1))   # either of the two turns happens with probability p
    before, after = (torch.where(dice.happens(name, turn_chance), (2 * dice.uniform(name) - 1) * math.pi, 0.0)
                     for name in ('turn before', 'turn after'))
    scale, stretch = dice.factor('scale', SCALE), dice.factor('stretch', SCALE)
    moved = torch.stack([dice.normal('shift', i) * SHIFT * side for i, side in enumerate(extent)], dim=1)
    moved = torch.where(dice.happens('shift')[:, None], moved, 0.0)
    warped = dice.happens('scale') | dice.happens('stretch') | dice.happens('shift')
    warped = warped | dice.happens('turn before', turn_chance) | dice.happens('turn after', turn_chance)
    back = (_affine(x=-shift[:, 0], y=-shift[:, 1]) @ _affine(1 / scale, 1 / scale) @ _affine(turn=-before) @ _affine(1 / stretch, stretch)
            @ _affine(turn=-after) @ _affine(x=-moved[:, 0], y=-moved[:, 1]))
    return warped, back[:, :2]


def _affine(wide=1.0, high=1.0, turn=0.0, x=0.0, y=0.0) -> torch.Tensor:
    """[N, 3, 3] float64: scale, then turn (radians, with the clock), then shift. Each a number or [N]."""
    wide, high, turn, x, y = torch.broadcast_tensors(*(torch.as_tensor(value, dtype=torch.float64) for value in (wide, high, turn, x, y)))
    one, zero, cos, sin = torch.ones_like(x), torch.zeros_like(x), turn.cos(), turn.sin()
    return torch.stack([wide * cos, -high * sin, x, wide * sin, high * cos, y, zero, zero, one], dim=-1).unflatten(-1, (3, 3))


def colour(images: torch.Tensor, dice: Dice) -> torch.Tensor:
    """Brightness, contrast, luma flip; hue and saturation where there is colour."""
    names = ('brightness', 'contrast', 'luma flip') + (('hue', 'saturation') if images.shape[1] > 1 else ())
    chosen = torch.stack([dice.happens(name) for name in names]).any(0)
    values = (torch.where(dice.happens('brightness'), dice.normal('brightness') * BRIGHTNESS, 0.0), dice.factor('contrast', CONTRAST),
              dice.happens('luma flip') & (dice.uniform('luma flip') < 0.5),
              torch.where(dice.happens('hue'), (2 * dice.uniform('hue') - 1) * math.pi, 0.0), dice.factor('saturation', SATURATION))
    return _change(images, chosen, lambda part, which: ops.recolour(part, *(value[which] for value in values)))


def sharpen(images: torch.Tensor, dice: Dice) -> torch.Tensor:
    """Louder and softer frequency bands."""
    bands = [f'band {i}' for i in range(4)]
    amplified = torch.stack([dice.happens(name) for name in bands], dim=1)
    gains = ops.band_gains(amplified, torch.stack([dice.factor(name, BAND) for name in bands], dim=1))
    return _change(images, amplified.any(1), lambda part, which: ops.amplify(part, gains[which]))


def corrupt(images: torch.Tensor, dice: Dice) -> torch.Tensor:
    """Noise and cutout."""
    deviation, seeds = dice.normal('noise').abs() * NOISE, (dice.uniform('noise', 1) * 2 ** 53).long()
    images = _change(images, dice.happens('noise'), lambda part, which: ops.add_noise(part, deviation[which], seeds[which]))
    centre = torch.stack([dice.uniform('cutout', i) for i in (0, 1)], dim=1)
    return _change(images, dice.happens('cutout'), lambda part, which: ops.cut_out(part, centre[which]))


def _change(images: torch.Tensor, chosen: torch.Tensor, change: Callable) -> torch.Tensor:
    """Images with `change(those chosen, their numbers)` in the place of those chosen. chosen: [N] bool on the CPU."""
    if not chosen.any():
        return images
    which = chosen.nonzero()[:, 0]
    if len(which) == len(images):
        return change(images, which)
    place = which.to(images.device)
    return images.index_copy(0, place, change(images.index_select(0, place), which))
