"""Where images come from: folders, zips, LSUN lmdbs, the CIFAR-10 archive and MNIST-like idx files, all as numbered items. No torch."""

import gzip
import math
import os
import re
import struct
import tarfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from dnnlib.util import UserError
from training.data.files import EXTENSIONS, BadImage, ImageFiles
from training.data.lmdb_pages import Damaged, Pages
from training.data.pickled import read_plain, text_of

SOURCE_EXTENSIONS = (*EXTENSIONS, '.gif', '.jfif', '.jp2', '.tga', '.ppm', '.pgm', '.pnm')
GZIP = b'\x1f\x8b'
IDX_IMAGES = b'\x00\x00\x08\x03'  # bytes, three dimensions
IDX_LABELS = b'\x00\x00\x08\x01'
MOST_OF_IDX = 768 << 20  # bytes; EMNIST, the largest of its family, has 547 million
MOST_IMAGES, MOST_PACKED = 4 << 20, 1100  # of an idx file; bytes that gzip makes of one
MOST_OF_MEMBER, MOST_MEMBERS = 64 << 20, 1000  # bytes and files of the CIFAR-10 archive, which has 31 million and 8
CIFAR_BATCHES = tuple(f'data_batch_{i}' for i in range(1, 6))


@dataclass
class Source:
    """Images by number. Subclasses say how to read one.

    path: what the user gave.
    names: what each image is called in messages.
    labels: class index or vector of each image (None where it lacks one), or None for a source without labels.
    classes: names of the classes, or None.
    looks: see data.labels.Labels.
    notes: what the user should know about how the source was read.
    left_out: (name, reason) of files that may be pictures but are of no kind that is read.
    padded: whether images are small enough to be framed rather than resized unless the user says how (28x28 to 32x32).
    """

    path: Path
    names: list[str]
    labels: list | None = None
    classes: list[str] | None = None
    notes: list[str] = field(default_factory=list)
    left_out: list[tuple[str, str]] = field(default_factory=list)
    padded: bool = False
    looks: list[list[float]] | None = None

    def __len__(self) -> int:
        return len(self.names)

    def read(self, i: int) -> bytes | np.ndarray:
        """Image i: the content of an image file, or uint8 pixels [H, W] or [H, W, 3]. Raises BadImage."""
        raise NotImplementedError


def open_source(path: str | os.PathLike) -> Source:
    """The source at a path, its kind recognized by what is there. Raises UserError when it is none or damaged."""
    path = Path(path)
    if not path.exists():
        raise UserError(f'{path} does not exist: give a folder, a zip, an lmdb, the CIFAR-10 archive or an idx file')
    if not path.is_dir() and not path.is_file():
        raise UserError(f'{path} is neither a file nor a folder: give a folder, a zip, an lmdb, the CIFAR-10 archive or an idx file')
    if path.is_dir():
        files = sorted(entry.name for entry in os.scandir(path))
        if 'data.mdb' in files:
            return LmdbSource(path)
        if CIFAR_BATCHES[0] in files:
            return cifar_source(path, {name: (path / name).read_bytes() for name in files if name in (*CIFAR_BATCHES, 'batches.meta')})
        idx = [name for name in files if 'images' in name and re.search(r'idx3-ubyte(\.gz)?$', name)]
        if idx:
            return idx_source(path / next((name for name in idx if name.startswith('train')), idx[0]), len(idx) > 1)
        return FileSource(path)
    if path.suffix == '.mdb':
        return LmdbSource(path.parent if path.name == 'data.mdb' else path)
    magic = _magic(path)
    if magic == IDX_IMAGES:
        return idx_source(path, False)
    if magic == IDX_LABELS:
        raise UserError(f'{path} holds labels: give the idx file with the images, the labels beside it are found by name')
    if '.tar' in path.suffixes or path.suffix in ('.tgz', '.tar'):
        return cifar_source(path, _cifar_members(path))
    return FileSource(path)


def _magic(path: Path) -> bytes:
    """The first four bytes of a file, unpacked if it is packed with gzip."""
    with open(path, 'rb') as file:
        start = file.read(4)
    if start[:2] != GZIP:
        return start
    try:
        with gzip.open(path) as file:
            return file.read(4)
    except (OSError, EOFError, zlib.error):
        return b''


# ---- Files


class FileSource(Source):
    """Images of a folder or zip; labels from dataset.json or, without one, from the folders at the top."""

    def __init__(self, path: Path):
        self.files = ImageFiles(path, SOURCE_EXTENSIONS)
        super().__init__(self.files.path, self.files.names)
        self.left_out = self.files.left_out()
        labels = self.files.labels()
        if labels is not None:
            self.labels, self.classes, self.looks = [labels.by_name.get(name) for name in self.names], labels.classes, labels.looks
            present = [label for label in self.labels if isinstance(label, int)]
            if self.classes is None and present and max(present) + 1 < labels.dim:  # classes stay as many, also where images are lost
                self.classes = [str(index) for index in range(labels.dim)]
        else:
            self._label_by_folder()

    def _label_by_folder(self) -> None:
        """Folder name = class, if every image is in one of two or more folders that are not mere numbering (00000, 01000, ...)."""
        parts = [name.split('/') for name in self.names]
        while all(len(part) > 2 and part[0] == parts[0][0] for part in parts):
            parts = [part[1:] for part in parts]  # one folder around all others says nothing
        folders = sorted({part[0] for part in parts if len(part) > 1})
        if len(folders) < 2 or all(re.fullmatch(r'\d{5,}', folder) for folder in folders):
            return
        if any(len(part) == 1 for part in parts):
            self.notes.append(f'{self.path}: some images are outside the folders {", ".join(folders[:3])}..., so folders are no classes')
            return
        index = {folder: i for i, folder in enumerate(folders)}
        self.labels, self.classes = [index[part[0]] for part in parts], folders

    def read(self, i: int) -> bytes:
        return self.files.read(self.names[i])


# ---- LSUN


class LmdbSource(Source):
    """An LSUN category: an lmdb whose values are image files (WebP or JPEG)."""

    def __init__(self, path: Path):
        try:
            self.pages = Pages(path / 'data.mdb' if path.is_dir() else path)
        except Damaged as err:
            raise UserError(f'{path} cannot be read as an lmdb ({err}): download or unpack it again') from err
        if not self.pages.keys:
            raise UserError(f'{path} is an lmdb without entries: download or unpack it again')
        super().__init__(path, [key.decode('ascii', 'backslashreplace') for key in self.pages.keys])

    def read(self, i: int) -> bytes:
        try:
            return self.pages.value(i)
        except Damaged as err:
            raise BadImage(f'cannot be read ({err})') from err


# ---- CIFAR-10


class ArraySource(Source):
    """Images that are one array in memory."""

    def __init__(self, path: Path, images: np.ndarray, labels: list[int] | None, classes: list[str] | None = None):
        super().__init__(path, [f'image {i}' for i in range(len(images))], labels, classes)
        self.images = images  # uint8 [N, H, W] or [N, H, W, 3]

    def read(self, i: int) -> np.ndarray:
        return self.images[i]


def _cifar_members(path: Path) -> dict[str, bytes]:
    """The training batches and names in a CIFAR-10 archive."""
    try:
        with tarfile.open(path) as tar:
            members: dict[str, tarfile.TarInfo] = {}
            for number, member in enumerate(tar):  # which unpacks what a member holds to find the next one
                if member.size > MOST_OF_MEMBER or number >= MOST_MEMBERS:
                    raise ValueError('more in it than in CIFAR-10')
                if member.isfile():
                    members[Path(member.name).name] = member
            return {name: tar.extractfile(members[name]).read() for name in (*CIFAR_BATCHES, 'batches.meta') if name in members}
    except Exception as err:  # tarfile raises whatever a damaged archive leads to
        if isinstance(err, OSError) and err.filename is not None:
            raise
        reason = str(err).partition('\n')[0][:200] or type(err).__name__
        raise UserError(f'{path} cannot be read as a tar archive ({reason}): download it again') from err


def _cifar_content(data: bytes) -> dict:
    """What one file of the archive holds, keys as str. Raises ValueError."""
    content = read_plain(data)
    if not isinstance(content, dict):
        raise ValueError('not a dict')
    return {key.decode('latin1') if isinstance(key, bytes) else key: value for key, value in content.items()}


def _cifar_batch(content: dict) -> tuple[np.ndarray, list[int]]:
    """(uint8 [n, 32, 32, 3], class of each) of a batch. Raises ValueError."""
    pixels, labels = content['data'], content['labels']
    if not isinstance(labels, list) or not all(type(label) is int and 0 <= label < 256 for label in labels):
        raise ValueError('labels that are no class indices')
    if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or pixels.shape != (len(labels), 3072):
        raise ValueError(f'data of shape {getattr(pixels, "shape", None)}, {len(labels)} labels')
    return pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), labels


def cifar_source(path: Path, members: dict[str, bytes]) -> ArraySource:
    """The 50,000 training images of the CIFAR-10 python version, from the content of its files by name."""
    images, labels, classes = [], [], None
    if not any(name in members for name in CIFAR_BATCHES):
        raise UserError(f'{path} is not the CIFAR-10 python archive (it has no data_batch_1): unpack other archives and give the folder')
    for name, data in members.items():
        try:
            content = _cifar_content(data)
            if name == 'batches.meta':
                classes = [text_of(label) for label in content['label_names']]
            else:
                pixels, of_batch = _cifar_batch(content)
                images.append(pixels)
                labels += of_batch
        except (KeyError, ValueError, TypeError) as err:
            reason = f'it has no {err}' if isinstance(err, KeyError) else err
            raise UserError(f'{path}: {name} is not a file of the CIFAR-10 python version ({reason}): download it again') from err
    if classes is not None and len(classes) <= max(labels, default=0):
        raise UserError(f'{path}: batches.meta names {len(classes)} classes, the labels go to {max(labels)}: download it again')
    source = ArraySource(path, np.concatenate(images), labels, classes)
    source.notes.append(f'{path}: {len(images)} training batches; the test batch is left out')
    return source


# ---- MNIST and its relatives


def read_idx(path: Path) -> np.ndarray:
    """The uint8 array of an idx file, packed with gzip or not. Raises UserError for a file that is damaged or of another type."""
    with open(path, 'rb') as file:
        packed = file.read(2) == GZIP
    try:
        with gzip.open(path) if packed else open(path, 'rb') as file:
            start = file.read(4)
            sides = file.read(4 * start[3]) if start[:3] == b'\x00\x00\x08' and len(start) == 4 else b''
            if not sides or len(sides) != 4 * start[3]:
                raise UserError(f'{path} is not an idx file of bytes: give the file called ...-images-idx3-ubyte')
            shape = struct.unpack(f'>{start[3]}I', sides)
            count, possible = math.prod(shape), path.stat().st_size * (MOST_PACKED if packed else 1)
            if not shape or count == 0 or len(shape) > 4 or count > MOST_OF_IDX or shape[0] > MOST_IMAGES:
                raise UserError(f'{path} is damaged (an array of shape {str(shape)[:100]}): download it again')
            data, filled = np.empty(count if count <= possible else 0, np.uint8), 0
            while filled < len(data) and (more := file.readinto(memoryview(data)[filled:filled + (1 << 20)])):
                filled += more
            if filled != count or file.read(1):
                raise UserError(f'{path} is damaged (an array of shape {shape} needs another number of bytes): download it again')
    except (OSError, EOFError, zlib.error) as err:
        if isinstance(err, OSError) and err.errno is not None:
            raise
        raise UserError(f'{path} is damaged ({err}): download it again') from err
    return data.reshape(shape)


def idx_source(path: Path, has_others: bool) -> ArraySource:
    """Images of an idx file with the labels beside it (train-images-idx3-ubyte.gz: train-labels-idx1-ubyte.gz or without .gz)."""
    images = read_idx(path)                                                                                        # [N, H, W]
    if len(images) == 0:
        raise UserError(f'{path} holds no images: download it again')
    stem = path.name.removesuffix('.gz').replace('images', 'labels').replace('idx3', 'idx1')
    beside = next((path.with_name(name) for name in (stem, stem + '.gz') if path.with_name(name).is_file()), None)
    labels = None
    if beside is not None:
        labels = read_idx(beside)
        if labels.shape != images.shape[:1]:
            raise UserError(f'{beside} has {labels.shape[0]} labels for the {len(images)} images of {path}: the two do not belong together')
    source = ArraySource(path, images, labels.tolist() if labels is not None else None)
    source.padded = True
    source.notes.append(f'{path}: labels from {beside.name}' if beside else f'{path}: no labels ({stem} is not beside it)')
    if has_others:
        source.notes.append(f'{path.parent}: only {path.name} is read; give another of its files by name')
    return source
