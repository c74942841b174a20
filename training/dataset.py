"""Images and labels for training, and the endless order in which they are drawn."""

import copy
import functools
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from dnnlib.util import UserError
from torch_utils import distributed
from training.data.files import BadImage, decode, fitting_resolution, shape_problem
from training.data.opening import Files, absolute, open_files
from training.data.order import LISTED, OrderedSampler, TwoLevelOrder, sample

KEEP_BYTES = 128 << 20  # a set whose pixels fit into this is decoded once
MOST_BAD = 100  # images in a row that may be unreadable


class DataError(UserError):
    """A mistake in the data, in one line also after a DataLoader worker has wrapped a traceback around it."""

    def __init__(self, message: str):
        super().__init__(message.strip().rpartition('\n')[2].rpartition('DataError: ')[2])


def expect_shape(files: Files, name: str, shape: tuple[int, int, int], first: tuple[int, int, int]) -> None:
    """Raises DataError unless an image has the (width, height, channels) of the set's first image and a size that training takes."""
    problem = shape_problem(shape, first, files.names[0])
    if problem is not None:
        raise DataError(f'{files.path}: {name} {problem}. Convert all: {files.conversion_command(fitting_resolution(*first[:2]))}')


def corrupt(files: Files, name: str, err: BadImage) -> DataError:
    """The error for an image that cannot be read."""
    return DataError(f'{files.path}: {name}: {err}. Every bad file is listed by: python dataset_tool.py check {files.path}')


def quick_check(path: str | Path, use_labels: bool = False, most: int | None = None) -> None:
    """Checks a data set without decoding it: headers of the first, the last and up to `most` images between them, and labels.

    most: None: as many as are quickly looked at where they lie

    Raises UserError that names the first bad file and says what to do.
    """
    with ImageDataset(path, use_labels=use_labels) as dataset:
        files = dataset.files
        left_out = files.left_out()
        if left_out:
            distributed.print0(f'Note: {len(left_out)} files in {path} are left out, such as {left_out[0][0]}: {left_out[0][1]}')
        first = (dataset.resolution, dataset.resolution, dataset.num_channels)
        most = min(most or files.most_checked, len(files.names))
        for i in np.unique(np.linspace(0, len(files.names) - 1, most).round().astype(int)):
            try:
                shape = files.header(files.names[i])
            except BadImage as err:
                raise corrupt(files, files.names[i], err) from err
            expect_shape(files, files.names[i], shape, first)


class ImageDataset(torch.utils.data.Dataset):
    """Square images of one size from a zip, a folder, several of them or shards, with labels where there are any.

    path: zip, folder, 'demo', or what else `training.data.opening.open_files` takes.
    use_labels: hand out the labels of dataset.json; else every label is empty.
    mirror: append every image flipped left to right (the second half of the set).
    subset: use that many images only, chosen by `seed`; None uses all.
    Item i is (uint8 [C, H, W], float32 [label_dim]); a class index becomes a one-hot label.
    Raises UserError (one line, naming the file) for data that training cannot take. Pixels are only looked at when asked for: an image that
    turns out to be unreadable then is named on stderr and left out, the next one, with its label, takes its place.
    """

    def __init__(self, path: str | Path, use_labels: bool = False, mirror: bool = False, subset: int | None = None, seed: int = 0):
        self.files = open_files(path, sparse=subset is not None)
        self.path, self.name = self.files.path, self.files.title
        self.place = absolute(path)
        self.labels = self.files.labels()
        self.has_labels = self.labels is not None
        self.use_labels = use_labels
        self.mirror = mirror
        self._kept: dict[str, np.ndarray] = {}
        self._told: set[str] = set()
        name, shape = self._first_header()
        expect_shape(self.files, name, shape, first=shape)
        self.resolution, _, self.num_channels = shape
        if use_labels:
            self._expect_labels()
        self.label_dim = self.labels.dim if use_labels else 0
        self.class_names = self.labels.classes if self.has_labels else None
        self._chosen = range(len(self.files.names))
        if subset is not None:
            if not 1 <= subset <= len(self._chosen):
                raise UserError(f'subset {subset}: {self.path} has {len(self._chosen)} images, so give 1 to {len(self._chosen)}')
            self._chosen = sample(len(self._chosen), subset, seed)

    def _first_header(self) -> tuple[str, tuple[int, int, int]]:
        """(name, (width, height, channels)) of the first image whose header can be read."""
        problem = None
        for name in self.files.names[:MOST_BAD]:
            try:
                return name, self.files.header(name)
            except BadImage as err:
                problem = problem or corrupt(self.files, name, err)
        raise problem

    def _expect_labels(self) -> None:
        if not self.has_labels:
            raise UserError(f'{self.path} has no labels: train without --cond, or make a set with labels from one folder for each class: '
                            f'python dataset_tool.py convert FOLDER DEST.zip --resolution={self.resolution}')
        for name in () if self.labels.complete else self.files.names:
            if name not in self.labels.by_name:
                raise UserError(f'{self.path}: {name} has no label in dataset.json: add ["{name}", CLASS] to its "labels" or remove it')

    @functools.cached_property
    def digest(self) -> str:
        """Hex digest of the whole set's content (images and labels); the same for a zip and a folder of the same files, not for shards."""
        return self.files.digest(self.labels)

    def __len__(self) -> int:
        return len(self._chosen) * (2 if self.mirror else 1)

    def __getitem__(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        i = range(len(self))[i]  # negative indices count from the end; IndexError past it
        for step in range(min(MOST_BAD, len(self._chosen))):
            taken = (i + step) % len(self)
            name, flip = self._locate(taken)
            try:
                image = self._pixels(name)                                                     # [C, H, W]
            except BadImage as err:
                self._tell(corrupt(self.files, name, err), name)
                continue
            except UserError as err:
                raise DataError(str(err)) from err
            return (image[:, :, ::-1] if flip else image).copy(), self.get_label(taken)
        raise DataError(f'{self.path}: {step + 1} images in a row cannot be used, from {self._locate(i)[0]} on: is the disk still there? '
                        f'Every bad file is listed by: python dataset_tool.py check {self.path}')

    def _pixels(self, name: str) -> np.ndarray:
        """uint8 [C, H, W] of an image, kept where the whole set fits into KEEP_BYTES. Raises BadImage, also for another size."""
        if name in self._kept:
            return self._kept[name]
        image = decode(self.files.read(name))
        first = (self.resolution, self.resolution, self.num_channels)
        problem = shape_problem((*image.shape[:0:-1], len(image)), first, 'the first')
        if problem is not None:
            raise BadImage(problem)
        if image.nbytes * len(self._chosen) <= KEEP_BYTES:
            self._kept[name] = image
        return image

    def _tell(self, problem: DataError, name: str) -> None:
        """Says once on stderr that an image is left out."""
        if name not in self._told:
            self._told.add(name)
            print(f'Left out, the next image takes its place: {problem}', file=sys.stderr, flush=True)

    def __getstate__(self):
        return {**self.__dict__, '_kept': {}}

    def _locate(self, i: int) -> tuple[str, bool]:
        """(name of the file, whether to flip it) of item i."""
        i = range(len(self))[i]
        return self.files.names[self._chosen[i % len(self._chosen)]], i >= len(self._chosen)

    def get_label(self, i: int) -> np.ndarray:
        """float32 [label_dim]: the label of item i, without reading the image."""
        label = np.zeros(self.label_dim, np.float32)
        if self.use_labels:
            value = self.labels.by_name[self._locate(i)[0]]
            if isinstance(value, tuple):
                label[:] = value
            else:
                label[value] = 1
        return label

    def drawn_label(self, i: int) -> np.ndarray:
        """float32 [label_dim]: a label by a number below len(self); all numbers together give each label as often as the items have it.

        Where the set knows how many of each class it has, no image's own label is looked up, which would ask for another part of it each.
        """
        if not self.label_dim or self.labels.up_to is None or len(self._chosen) < len(self.files.names):
            return self.get_label(i)
        label = np.zeros(self.label_dim, np.float32)
        label[np.searchsorted(self.labels.up_to, i % len(self._chosen), side='right')] = 1
        return label

    def left_out(self, most: int) -> 'ImageDataset | None':
        """Up to `most` of the images that `subset` leaves out, without flips; None where it leaves out none."""
        total = len(self.files.names)
        if total == len(self._chosen):
            return None
        rest = np.setdiff1d(np.arange(total) if total <= LISTED else sample(total, len(self._chosen) + most, 0), self._chosen)
        other = copy.copy(self)
        other.mirror, other._chosen = False, rest[np.linspace(0, len(rest) - 1, min(most, len(rest))).round().astype(int)]
        return other

    def close(self) -> None:
        """Closes the zip; reading opens it again."""
        self.files.close()

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        self.close()


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


def block_order(dataset, seed: int) -> TwoLevelOrder | None:
    """The order of a data set that comes in several files; None for one whose items are permuted as one."""
    if getattr(dataset, 'files', None) is None or dataset.files.block is None:
        return None
    return TwoLevelOrder(len(dataset) // (2 if dataset.mirror else 1), dataset.files.block, seed, dataset.mirror)


def make_sampler(dataset: ImageDataset, seed: int, rank: int, world_size: int, start: int) -> InfiniteSampler | OrderedSampler:
    """The endless order of a data set for one process."""
    order = block_order(dataset, seed)
    if order is None:
        return InfiniteSampler(len(dataset), seed, rank, world_size, start)
    return OrderedSampler(order, rank, world_size, start)


def some_items(dataset, most: int, seed: int) -> np.ndarray:
    """int64: up to `most` different items by chance; those of a set in shards come from few places, which can be read quickly."""
    order = block_order(dataset, seed)
    if order is None:
        return np.random.RandomState(seed).permutation(len(dataset))[:most]
    return order(np.arange(min(most, len(dataset))))


def batches(dataset: ImageDataset, settings, images: int, pin: bool) -> Iterator[list[torch.Tensor]]:
    """This process's share of each batch, endlessly, from the position after `images`. settings: config.Config; pin: for a GPU."""
    rank, world = distributed.rank(), distributed.world_size()
    sampler = make_sampler(dataset, settings.run.seed, rank, world, start=images)
    loader = torch.utils.data.DataLoader(dataset, batch_size=settings.run.batch // world, sampler=sampler, pin_memory=pin,
                                         num_workers=settings.run.workers, worker_init_fn=_ignore_signals)
    iterator = iter(loader)
    try:
        while True:
            yield next(iterator)
    except Exception as err:
        problem = err.with_traceback(None)
    del iterator  # ends the processes; frames of a traceback that hold it would keep them, deaf as they are, past the end of this one
    if 'DataLoader worker' in str(problem):
        problem = UserError(f'a process that loads data ended ({" ".join(str(problem).split())}): lower --workers')
    raise problem


def _ignore_signals(worker: int) -> None:
    """Leaves it to the main process to answer Ctrl-C and SIGTERM, which may go to all processes; it still wants a batch or none."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
