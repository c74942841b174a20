"""The endless order in which a run draws its images: a pure function of the seed and the position, so a resumed run is in its place."""

from collections.abc import Iterator

import numpy as np
import torch

from training.data.order import OrderedSampler, TwoLevelOrder
from training.dataset import ImageDataset, by_class


class InfiniteSampler(torch.utils.data.Sampler):
    """Endless shuffled indices; the n-th is a pure function of (size, seed, n), so a resumed run goes on where it was.

    size: number of items. Each run of `size` positions is a permutation of all items.
    rank, world_size: rank r of w takes the positions start + r, start + r + w, ...
    start: first position, for example the number of images that all ranks together have seen.
    """

    def __init__(self, size: int, seed: int = 0, rank: int = 0, world_size: int = 1, start: int = 0):
        assert size > 0 and start >= 0 and 0 <= rank < world_size, (size, start, rank, world_size)
        self.size, self.seed, self.rank, self.world_size, self.start = size, seed, rank, world_size, start

    def __iter__(self) -> Iterator[int]:
        position, epoch = self.start + self.rank, -1
        while True:
            if position // self.size != epoch:
                epoch = position // self.size
                order = np.random.RandomState([self.seed, epoch]).permutation(self.size)  # a stream that numpy promises never to change
            yield int(order[position % self.size])
            position += self.world_size


class ClassGroupSampler(torch.utils.data.Sampler):
    """Endless shuffled indices in batches that hold groups of one class each; the n-th is a pure function of the arguments and n.

    classes: [number of items], the class of each
    batch, group: images of a step, and of a group, which divides it; image i of a batch is in group i mod (batch / group), as the minibatch
             deviation has it, also of what every P-th image makes, of P processes or passes
    rank, world_size, start: as of InfiniteSampler

    In an epoch every item comes once, but for some that fill the last group of their class and come again. An unreadable picture's stand-in
    may be of another class.
    """

    def __init__(self, classes: np.ndarray, batch: int, group: int, seed: int = 0, rank: int = 0, world_size: int = 1, start: int = 0):
        assert len(classes) and batch % group == 0 and start >= 0 and 0 <= rank < world_size, (len(classes), batch, group, start, rank)
        self.classes, self.batch, self.group, self.seed = classes, batch, group, seed
        self.rank, self.world_size, self.start = rank, world_size, start
        self.size = groups_of(by_class(classes, np.arange(len(classes))), group).sum()

    def groups(self, epoch: int) -> np.ndarray:
        """The groups of an epoch: int64 [number of groups, group], indices of items."""
        random = np.random.RandomState([self.seed, epoch])
        members = by_class(self.classes, random.permutation(len(self.classes)))
        counts = groups_of(members, self.group)
        return random.permutation(np.concatenate([np.resize(own, (n, self.group)) for own, n in zip(members, counts, strict=True)]))

    def __iter__(self) -> Iterator[int]:
        position, epoch, in_batch = self.start + self.rank, -1, self.batch // self.group
        while True:
            step, place = divmod(position, self.batch)
            now, number = divmod(step * in_batch + place % in_batch, self.size)
            if now != epoch:
                epoch, groups = now, self.groups(now)
            yield int(groups[number, place // in_batch])
            position += self.world_size


def groups_of(members: list[np.ndarray], group: int) -> np.ndarray:
    """How many groups of one class an epoch has of each. members: the items of each class"""
    return np.array([-(-len(own) // group) for own in members])


def items_of_groups(dataset: ImageDataset, batch: int, group: int, random: torch.Generator) -> list[int]:
    """Items for the places of a batch that has groups of one class, each class as often as ClassGroupSampler has it."""
    weights = torch.from_numpy(groups_of(dataset.members, group)).double()
    classes = torch.multinomial(weights, batch // group, replacement=True, generator=random).tolist()
    shares = torch.rand(batch, generator=random, dtype=torch.float64).tolist()
    members = [dataset.members[classes[place % (batch // group)]] for place in range(batch)]
    return [int(own[int(share * len(own))]) for own, share in zip(members, shares, strict=True)]


def block_order(dataset, seed: int) -> TwoLevelOrder | None:
    """The order of a data set that comes in several files; None for one whose items are permuted as one."""
    if getattr(dataset, 'files', None) is None or dataset.files.block is None:
        return None
    return TwoLevelOrder(len(dataset) // (2 if dataset.mirror else 1), dataset.files.block, seed, dataset.mirror)


def make_sampler(dataset: ImageDataset, seed: int, rank: int, world_size: int, start: int, batch: int = 1,
                 group: int = 1) -> torch.utils.data.Sampler:
    """The endless order of a data set for one process. batch, group: see ClassGroupSampler; a group of 1 asks for no classes."""
    order = block_order(dataset, seed)
    if group > 1:
        return ClassGroupSampler(dataset.item_classes, batch, group, seed, rank, world_size, start)
    if order is not None:
        return OrderedSampler(order, rank, world_size, start)
    return InfiniteSampler(len(dataset), seed, rank, world_size, start)


def some_items(dataset, most: int, seed: int) -> np.ndarray:
    """int64: up to `most` different items by chance; those of a set in shards come from few places, which can be read quickly."""
    order = block_order(dataset, seed)
    if order is None:
        return np.random.RandomState(seed).permutation(len(dataset))[:most]
    return order(np.arange(min(most, len(dataset))))
