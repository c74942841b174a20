"""What the images of a phase of a training step are drawn from, and how it follows from (seed, images seen): see training_loop.py."""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import numpy as np
import torch

from torch_utils import distributed
from training.augment import NUMBERS
from training.config import Config
from training.dataset import ImageDataset
from training.sampling import items_of_groups
from training.windows import NUMBERS as WINDOW_NUMBERS
from training.windows import Windows


@dataclass(frozen=True)
class Latents:
    """What the images of a phase are drawn from.

    z: [N, z_dim];  z_mix: the same, or None without style mixing;  c: [N, c_dim]
    chance, mix_position: [N] in [0, 1), whether and where styles are mixed
    numbers: [N, 2, augment.NUMBERS] on the CPU, what the augmentations of the phase's fakes and reals follow from; None without any
    windows: int64 [N, 3] on the CPU, which part of each fake is drawn (training.windows); None for all of it
    places: what G's synthesis.places makes of windows, to be used in place of them in a recorded phase; else None
    looks: [N, K], of the real pictures that the fakes stand for (training.instances), zero where they say nothing; None without any
    """

    z: torch.Tensor
    z_mix: torch.Tensor | None
    chance: torch.Tensor
    mix_position: torch.Tensor
    c: torch.Tensor
    numbers: torch.Tensor | None = None
    windows: torch.Tensor | None = None
    places: tuple[torch.Tensor, torch.Tensor] | None = None
    looks: torch.Tensor | None = None

    @property
    def parts(self) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor] | None:
        """Which part of each image G is to draw, as G takes it."""
        return self.windows if self.places is None else self.places

    def _each(self, change: Callable[[torch.Tensor], torch.Tensor]) -> 'Latents':
        values = {field.name: getattr(self, field.name) for field in fields(self) if field.name != 'places'}
        return Latents(**{name: None if value is None else change(value) for name, value in values.items()})

    def numbers_of(self, images: str) -> torch.Tensor | None:
        """The augmentations' numbers for 'fake' or 'real' images, [N, augment.NUMBERS]."""
        return None if self.numbers is None else self.numbers[:, ('fake', 'real').index(images)]

    def strided_slice(self, first: int, step: int) -> 'Latents':
        """Every `step`-th image from `first` on."""
        return self._each(lambda value: value[first::step])

    def to(self, device: torch.device) -> 'Latents':
        """The same on a device, the augmentations' numbers and the windows apart."""
        moved = replace(self, numbers=None, windows=None)._each(lambda value: value.to(device))
        return replace(moved, numbers=self.numbers, windows=self.windows)


def draw_latents(settings: Config, dataset: ImageDataset, images: int, phase: str, windows: Windows | None = None) -> Latents:
    """This process's latents for a phase of the step after `images`: its share of what one process alone would draw.

    windows: of the pictures in the data set, None for whole ones
    """
    batch, z_dim = settings.run.batch, settings.generator.z_dim
    random = torch.Generator().manual_seed(distributed.mix_seed(settings.run.seed, images, phase))
    z, z_mix = torch.randn([2, batch, z_dim], generator=random)
    chance, mix_position = torch.rand([2, batch], generator=random)
    if settings.class_group > 1:
        items = items_of_groups(dataset, batch, settings.class_group, random)
    else:
        items = torch.randint(len(dataset), [batch], generator=random).tolist()
    c = torch.from_numpy(np.stack([dataset.drawn_label(i) for i in items]))
    numbers = torch.rand(batch, 2, NUMBERS, generator=random, dtype=torch.float64) if settings.augment.kind != 'noaug' else None
    parts = None
    if windows is not None:
        parts = windows.of_items(items, torch.rand(batch, WINDOW_NUMBERS, generator=random, dtype=torch.float64).numpy(), images)
    latents = Latents(z, z_mix if settings.loss.style_mixing else None, chance, mix_position, c, numbers, parts)
    return latents.strided_slice(distributed.rank(), distributed.world_size())
