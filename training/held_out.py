"""What D thinks of real images that it does not learn from, those that --subset leaves out.

r_v = (E[D(train)] - E[D(held out)]) / (E[D(train)] - E[D(fake)]) is 0 where D takes them for the images it knows and 1 where it takes them
for fakes (Karras et al. 2020, arXiv 2006.06676, section 3.1).
"""

import itertools
import math

import numpy as np
import torch

from torch_utils import distributed
from torch_utils.pixels import from_uint8
from training import growing
from training.augment import NUMBERS
from training.dataset import ImageDataset
from training.sampling import ClassGroupSampler

MOST = 64  # images: a standard error of an eighth of their deviation, and little work in a tick


class HeldOut:
    """Up to MOST of the images that a subset leaves out, read when first needed.

    batch:  how many D judges at once;  device: where D is
    group:  images of one class in a group of the minibatch deviation, as where D learns; 1: mixed
    """

    def __init__(self, dataset: ImageDataset, batch: int, device: torch.device | str = 'cpu', group: int = 1):
        self.rest, self.batch, self.device, self.resolution = dataset.left_out(MOST), batch, device, dataset.resolution
        self.group = math.gcd(batch, group)
        self._items: list | None = None

    @torch.no_grad()
    def scores(self, loss, means: dict[str, float], images: int) -> dict[str, float]:
        """{'Scores/held_out': mean logit, 'Overfitting/r_v'} of a tick, nothing where all images are learned from.

        loss:  GanLoss, whose `judge` and `stage` are those of training
        means: of the tick, with 'Scores/real' and 'Scores/fake';  images: seen, which decides how these are augmented
        """
        if self.rest is None:
            return {}
        if self._items is None:
            order = range(len(self.rest))
            if self.group > 1:
                order = itertools.islice(ClassGroupSampler(self.rest.item_classes, self.batch, self.group), len(self.rest))
            self._items = [self.rest[i] for i in order]
        random, logits = torch.Generator().manual_seed(distributed.mix_seed(images, 'held out')), []
        for first in range(0, len(self._items), self.batch):
            pixels, labels = (torch.from_numpy(np.stack(part)).to(self.device)
                              for part in zip(*self._items[first:first + self.batch], strict=True))
            reals = growing.fit(from_uint8(pixels), loss.stage, self.resolution)
            numbers = torch.rand(len(reals), NUMBERS, dtype=torch.float64, generator=random)
            logits.append(loss.judge(reals, labels, numbers).double())
        held_out, real, fake = torch.cat(logits).mean().item(), means['Scores/real'], means['Scores/fake']
        return {'Scores/held_out': held_out, **({'Overfitting/r_v': (real - held_out) / (real - fake)} if real != fake else {})}
