"""Images and labels for training."""

import copy
import functools
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dnnlib.util import UserError
from torch_utils import distributed
from training.data.files import BadImage, decode, fitting_resolution, native_problem, shape_problem
from training.data.opening import Files, absolute, open_files
from training.data.order import LISTED, sample
from training.data.shapes import as_text, resolution_of
from training.data.transforms import part_of_square

KEEP_BYTES = 128 << 20  # a set whose pixels fit into this is decoded once
MOST_BAD = 100  # images in a row that may be unreadable


def spread(count: int, most: int) -> np.ndarray:
    """Up to `most` of range(count), the first and the last among them."""
    return np.unique(np.linspace(0, count - 1, min(most, count)).round().astype(int))


def flipped(image: np.ndarray, flip: bool) -> np.ndarray:
    """An image [C, H, W], flipped left to right if `flip`."""
    return image[:, :, ::-1] if flip else image


def by_class(classes: np.ndarray, order: np.ndarray) -> list[np.ndarray]:
    """The items of each class that has any, in their order. classes: [number of items], the class of each;  order: int64, of all items"""
    grouped = order[np.argsort(classes[order], kind='stable')]
    return np.split(grouped, np.flatnonzero(np.diff(classes[grouped])) + 1)


def balanced(classes: np.ndarray, strength: float, seed: int) -> np.ndarray:
    """Indices of items, an item of a class of n repeated (N / n)^strength times where N is the size of the largest.  int64 [M]

    classes:  [number of items], the class of each
    strength: 0: each once; 0.5: square-root sampling (arXiv 1910.09217); 1: every class as often
    What is left of a whole number of repeats is of items that `seed` chooses.
    """
    members = by_class(classes, np.random.RandomState(seed).permutation(len(classes)))
    largest = max(map(len, members))
    return np.sort(np.concatenate([np.resize(own, round(len(own) * (largest / len(own)) ** strength)) for own in members]))


class DataError(UserError):
    """A mistake in the data, in one line also after a DataLoader worker has wrapped a traceback around it."""

    def __init__(self, message: str):
        super().__init__(message.strip().rpartition('\n')[2].rpartition('DataError: ')[2])


class AnySize(UserError):
    """A set of pictures as they were was opened without the resolution to see them at."""


def open_set(path: str | Path, seen_at: int | None, **options) -> 'ImageDataset':
    """ImageDataset of a path; pictures of any size as they are seen at `seen_at` pixels. Raises AnySize for those where it is None."""
    try:
        return ImageDataset(path, **options)
    except AnySize:
        if seen_at is None:
            raise
        return ImageDataset(path, **{**options, 'resolution': seen_at})


def expect_shape(files: Files, name: str, shape: tuple[int, int, int], first: tuple[int, int, int], least: int | None = None) -> None:
    """Raises DataError unless an image has the (width, height, channels) of the set's first image and a size that training takes.

    least: of pictures of any size, which their shorter sides must have
    """
    problem = shape_problem(shape, first, files.names[0]) if least is None else native_problem(shape, first[2], least)
    if problem is not None:
        side = fitting_resolution(*first[:2]) if least is None else least
        way = files.conversion_command(side) + (' --native' if least else '')
        raise DataError(f'{files.path}: {name} {problem}. Convert all: {way}')


def corrupt(files: Files, name: str, err: BadImage) -> DataError:
    """The error for an image that cannot be read."""
    return DataError(f'{files.path}: {name}: {err}. Every bad file is listed by: python dataset_tool.py check {files.path}')


def quick_check(path: str | Path, use_labels: bool = False, most: int | None = None,
                resolution: int | None = None) -> None:
    """Checks a data set without decoding it: headers of the first, the last and up to `most` images between them, and labels.

    resolution: as of ImageDataset;  most: None: as many as are quickly looked at where they lie

    Raises UserError that names the first bad file and says what to do.
    """
    with ImageDataset(path, use_labels=use_labels, resolution=resolution) as dataset:
        files = dataset.files
        left_out = files.left_out()
        if left_out:
            distributed.print0(f'Note: {len(left_out)} files in {path} are left out, such as {left_out[0][0]}: {left_out[0][1]}')
        first = (*dataset.size, dataset.num_channels)
        for i in spread(len(files.names), most or files.most_checked):
            try:
                shape = files.header(files.names[i])
            except BadImage as err:
                raise corrupt(files, files.names[i], err) from err
            expect_shape(files, files.names[i], shape, first, resolution)


class ImageDataset(torch.utils.data.Dataset):
    """Images of one size from a zip, a folder, several of them or shards, with labels where there are any.

    path: zip, folder, 'demo', or what else `training.data.opening.open_files` takes.
    use_labels: hand out the labels of dataset.json; else every label is empty.
    mirror: append every image flipped left to right (the second half of the set).
    subset: use that many images only, chosen by `seed`; None uses all.
    class_balance: from 0, every image once, to 1, images of every class (of 'animals/3' the group) as often, see `balanced`.
    resolution: side of the images that pictures of any size become, cut to squares and shrunk as they are read; None: all have one size.
    The attribute size is their (width, height), resolution what their pyramid is called by (data.shapes).
    Item i is (uint8 [C, H, W], float32 [label_dim]); a class index becomes a one-hot label.
    Raises UserError (one line, naming the file) for data that training cannot take. Pixels are only looked at when asked for: an image that
    turns out to be unreadable then is named on stderr and left out, the next one, with its label, takes its place.
    """

    def __init__(self, path: str | Path, use_labels: bool = False, mirror: bool = False, subset: int | None = None, seed: int = 0,
                 resolution: int | None = None, class_balance: float = 0):
        self.files = open_files(path, sparse=subset is not None)
        self.path, self.name = self.files.path, self.files.title
        self.place = absolute(path)
        self.labels = self.files.labels()
        self.has_labels = self.labels is not None
        self.use_labels = use_labels
        self.mirror = mirror
        self._kept: dict[str, np.ndarray] = {}
        self._told: set[str] = set()
        self._sides: dict[str, int] = {}
        self.least = resolution
        name, shape = self._first_header()
        if resolution is None and self.files.least_side():
            raise AnySize(f'{self.path} holds pictures as they were: say how large training sees them with --res=N, or make a set of '
                            f'one size: {self.files.conversion_command()}')
        expect_shape(self.files, name, shape, shape, resolution)
        self.size, self.num_channels = (resolution, resolution) if resolution else shape[:2], shape[2]
        self.resolution = resolution or resolution_of(*self.size)
        if use_labels:
            self._expect_labels('--cond')
        self.label_dim = self.labels.dim if use_labels else 0
        self.class_names = self.labels.classes if self.has_labels else None
        self._chosen = range(len(self.files.names))
        if subset is not None:
            if not 1 <= subset <= len(self._chosen):
                raise UserError(f'subset {subset}: {self.path} has {len(self._chosen)} images, so give 1 to {len(self._chosen)}')
            self._chosen = sample(len(self._chosen), subset, seed)
        self.images = len(self._chosen)
        if class_balance:
            self._chosen = self._repeated(class_balance, seed)

    def _first_header(self) -> tuple[str, tuple[int, int, int]]:
        """(name, (width, height, channels)) of the first image whose header can be read."""
        problem = None
        for name in self.files.names[:MOST_BAD]:
            try:
                return name, self.files.header(name)
            except BadImage as err:
                problem = problem or corrupt(self.files, name, err)
        raise problem

    def _expect_labels(self, wanted: str) -> None:
        if not self.has_labels:
            raise UserError(f'{self.path} has no labels: train without {wanted}, or make a set with labels from one folder for each class: '
                            f'python dataset_tool.py convert FOLDER DEST.zip --resolution={as_text(self.size)}')
        for name in () if self.labels.complete else self.files.names:
            if name not in self.labels.by_name:
                raise UserError(f'{self.path}: {name} has no label in dataset.json: add ["{name}", CLASS] to its "labels" or remove it')

    def _repeated(self, strength: float, seed: int) -> np.ndarray:
        """The chosen images, those of small classes several times. Raises UserError where classes are not known without a look at all."""
        option = f'--class-balance={strength:g}'
        if self.files.block is not None:
            raise UserError(f'{option}: {self.path} is read in blocks, each image once; give one zip or folder')
        self._expect_labels(option)
        classes = self._labels_of(self._chosen)
        if isinstance(classes[0], tuple):
            raise UserError(f'{option}: the labels of {self.path} are lists of numbers, not classes')
        return np.asarray(self._chosen)[balanced(np.array(self.labels.groups)[classes], strength, seed)]

    @functools.cached_property
    def digest(self) -> str:
        """Hex digest of the whole set's content (images and labels); the same for a zip and a folder of the same files, not for shards."""
        return self.files.digest(self.labels)

    def __len__(self) -> int:
        return len(self._chosen) * (2 if self.mirror else 1)

    def __getitem__(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        return self.take(i, lambda name, flip: flipped(self._pixels(name), flip).copy())

    def take(self, i: int, read: Callable[[str, bool], Any]) -> tuple[Any, np.ndarray]:
        """(what `read` makes of item i, its label): read(name of the file, whether to flip it) may raise BadImage."""
        i = range(len(self))[i]  # negative indices count from the end; IndexError past it
        bad = set()
        for step in range(len(self)):
            taken = (i + step) % len(self)
            name, flip = self._locate(taken)
            if name in bad:  # a repeat
                continue
            try:
                return read(name, flip), self.get_label(taken)
            except BadImage as err:
                self._tell(corrupt(self.files, name, err), name)
            except UserError as err:
                raise DataError(str(err)) from err
            bad.add(name)
            if len(bad) == MOST_BAD:
                break
        raise DataError(f'{self.path}: {len(bad)} images in a row cannot be used, from {self._locate(i)[0]} on: is the disk still there? '
                        f'Every bad file is listed by: python dataset_tool.py check {self.path}')

    def _pixels(self, name: str) -> np.ndarray:
        """uint8 [C, H, W] of an image, kept where the whole set fits into KEEP_BYTES. Raises BadImage, also for another size."""
        if name in self._kept:
            return self._kept[name]
        image = self._decoded(name)
        image = image if self.least is None else part_of_square(image, self.resolution, 0, 0, self.resolution)
        if image.nbytes * self.images <= KEEP_BYTES:
            self._kept[name] = image
        return image

    def pixels(self, name: str) -> np.ndarray:
        """uint8 [C, H, W] of an image by its name. Raises DataError where it cannot be read; no other takes its place."""
        try:
            return self._pixels(name)
        except BadImage as err:
            raise corrupt(self.files, name, err) from err

    def _decoded(self, name: str) -> np.ndarray:
        """uint8 [C, H, W] of an image in its own size. Raises BadImage, also for a size that is not the set's."""
        image = decode(self.files.read(name))
        shape = (*image.shape[:0:-1], len(image))
        if self.least is None:
            problem = shape_problem(shape, (*self.size, self.num_channels), 'the first')
        else:
            problem = native_problem(shape, self.num_channels, self.least)
        if problem is not None:
            raise BadImage(problem)
        return image

    def picture(self, name: str) -> np.ndarray:
        """`_decoded`; some that fit into KEEP_BYTES together are kept."""
        key = f'{name} in its own size'
        if key not in self._kept:
            image = self._decoded(name)
            if sum(kept.nbytes for kept in self._kept.values()) + image.nbytes > KEEP_BYTES:
                return image
            self._kept[key] = image
        return self._kept[key]

    def side(self, i: int) -> int:
        """Pixels of the shorter side of item i; the set's resolution where its header cannot be read."""
        name, _ = self._locate(i)
        if name not in self._sides:
            try:
                self._sides[name] = max(min(self.files.header(name)[:2]), self.resolution)
            except BadImage:
                self._sides[name] = self.resolution
        return self._sides[name]

    def spread(self, most: int) -> np.ndarray:
        """Up to `most` items from all over the set, none of them a repeat of class_balance."""
        numbers = spread(self.distinct, most)
        if len(self._chosen) == self.images:
            return numbers
        first = np.unique(self._chosen, return_index=True)[1]
        return first[numbers % self.images] + numbers // self.images * len(self._chosen)

    def sides(self) -> list[int]:
        """`side` of as many items, spread over all, as are looked at before a run, in ascending order."""
        return sorted(self.side(int(i)) for i in spread(len(self._chosen), self.files.most_checked))

    def drawn_side(self, i: int) -> int:
        """`side` of an item by a number below len(self); where looking it up would fetch its neighbours too, one of `sides`."""
        return (sides := self.sides())[i % len(sides)] if self.files.whole_blocks else self.side(i)

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

    def _labels_of(self, places: Iterable[int]) -> list[int | tuple[float, ...]]:
        """What dataset.json says of images by their places in the whole set."""
        return [self.labels.by_name[self.files.names[i]] for i in places]

    @property
    def distinct(self) -> int:
        """Items without those that class_balance repeats."""
        return self.images * (2 if self.mirror else 1)

    @property
    def can_group(self) -> bool:
        """Whether `item_classes` are known: labels are classes, and those of a set in blocks would take a look at every block."""
        return bool(self.label_dim) and self.files.block is None and not self.labels.vectors

    @functools.cached_property
    def item_classes(self) -> np.ndarray:
        """int64 [len(self)]: the class of each item, where `can_group`; of classes in groups ('animals/3') the group."""
        return np.array(self.labels.groups)[self._labels_of(self._chosen) * (2 if self.mirror else 1)]

    @functools.cached_property
    def members(self) -> list[np.ndarray]:
        """The items of each class that has any, where `can_group`."""
        return by_class(self.item_classes, np.arange(len(self)))

    @property
    def class_sizes(self) -> list[int] | None:
        """Images of each class, without flips and repeats; None where labels are no classes, or would have to be fetched one by one."""
        if not self.label_dim:
            return None
        if self.labels.up_to is not None and self.images == len(self.files.names):
            return np.diff(self.labels.up_to, prepend=0).tolist()
        if not isinstance(self.labels.by_name, dict) or self.labels.vectors:
            return None
        return np.bincount(self._labels_of(np.unique(self._chosen)), minlength=self.label_dim).tolist()

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
        if total == self.images:
            return None
        rest = np.setdiff1d(np.arange(total) if total <= LISTED else sample(total, self.images + most, 0), self._chosen)
        other = copy.copy(self)
        for cached in ('item_classes', 'members'):
            other.__dict__.pop(cached, None)
        other.mirror, other._chosen = False, rest[spread(len(rest), most)]
        other.images = len(other._chosen)
        return other

    def close(self) -> None:
        """Closes the zip; reading opens it again."""
        self.files.close()

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        self.close()
