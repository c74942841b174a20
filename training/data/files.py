"""Image files of a zip or a folder (searched recursively), and the pixels in one of them. No torch."""

import hashlib
import io
import json
import os
import struct
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
import psutil
import pyspng
from PIL import Image, ImageOps

from dnnlib.util import UserError, format_bytes
from training.data import RESOLUTIONS, shapes
from training.data.labels import Labels, parse_labels

EXTENSIONS = ('.png', '.jpg', '.jpeg', '.webp', '.avif', '.bmp', '.tif', '.tiff')  # of images that training reads
DEMO = Path(__file__).resolve().parents[2] / 'assets' / 'demo.zip'
PNG = b'\x89PNG\r\n\x1a\n'
LEAST_SIDE = 'native'  # key of a dataset.json: pictures of any size, none of whose sides is shorter than its value
MAX_PIXELS = 1 << 30  # an image with more is refused before its pixels are allocated
DECODE_BYTES = 12  # memory for each pixel while an image is decoded and turned into 8 bits
MOST_PIXELS = 500  # to a byte of a file with many; a drawing of one colour has as many
MOST_OF_FILE, MOST_PACKED = 1 << 30, 200  # bytes of a file; of a large one, to a byte of the zip it is in
UNASKED_BYTES = 1 << 28  # memory that is taken without asking whether it is free, which costs more than decoding a small image
NO_PICTURES = ('.txt', '.json', '.jsonl', '.csv', '.tsv', '.md', '.html', '.xml', '.yaml', '.yml', '.db', '.ini', '.log', '.py', '.zip')

CHANNELS_OF_MODE = {'1': 1, 'L': 1, 'I': 1, 'RGB': 3, 'RGBX': 3, 'CMYK': 3, 'YCbCr': 3, 'LAB': 3, 'HSV': 3,
                    'RGBA': 4, 'RGBa': 4, 'LA': 4, 'La': 4, 'PA': 4}
READ_ERRORS = (OSError, EOFError, ValueError, SyntaxError, RuntimeError, NotImplementedError, MemoryError, KeyError, IndexError, TypeError,
               ArithmeticError,
               AttributeError, AssertionError, struct.error, zipfile.BadZipFile, zlib.error)  # of Pillow, pyspng, zipfile on broken files


class BadImage(Exception):
    """An image that cannot be used. Its text is the reason; whoever knows the file's name adds it."""


def resolve(path: str | os.PathLike) -> Path:
    """The data set's path: 'demo' means the emoji that come with the repository."""
    return DEMO if str(path) == 'demo' else Path(path)


def fitting_resolution(width: int, height: int) -> int:
    """The largest training resolution that needs no enlarging, or the smallest there is."""
    return max((res for res in RESOLUTIONS if res <= min(width, height)), default=RESOLUTIONS[0])


# ---- One image


def channels_of(image: Image.Image) -> int:
    """1, 3 or 4: how many channels the image's pixels have once they are 8-bit grey, RGB or RGBA."""
    if image.mode == 'P':
        return 4 if 'transparency' in image.info else 3
    if image.mode.startswith('I;16'):
        return 1
    if image.mode not in CHANNELS_OF_MODE or image.mode == 'I' and image.format not in ('PPM', 'PNG'):  # those two scale to 16 bits
        raise BadImage(f'pixels of mode {image.mode!r} have no fixed range')
    return CHANNELS_OF_MODE[image.mode]


@contextmanager
def any_size() -> Iterator[None]:
    """Within it Pillow opens and cuts images of any size; its own guard warns and raises far below what photographs and scans have."""
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = limit


@contextmanager
def opened(file: BinaryIO) -> Iterator[Image.Image]:
    """The image in a binary file, pixels not yet decoded, of any size up to MAX_PIXELS. Raises BadImage, also for errors in the body."""
    try:
        with any_size(), warnings.catch_warnings(action='ignore'), Image.open(file) as image:  # odd metadata and the like do not count
            if image.width * image.height > MAX_PIXELS:
                raise BadImage(f'{image.width}x{image.height} is more than {MAX_PIXELS} pixels')
            yield image
    except READ_ERRORS as err:
        reason = str(err).partition('\n')[0] or type(err).__name__
        raise BadImage(_unknown_kind(file) if 'cannot identify' in reason else f'cannot be decoded ({reason})') from err


def _unknown_kind(file: BinaryIO) -> str:
    """Why Pillow knows no kind of image in a file."""
    file.seek(0)
    kind = file.read(12)[4:]
    if kind == b'ftypavif':
        return 'AVIF, which this Pillow does not read: install Pillow 11.3 or later'
    return 'HEIC, which is not read: save it as PNG or JPEG' if kind in (b'ftypheic', b'ftypmif1', b'ftypheix') else 'not an image'


def expect_memory(width: int, height: int, size: int) -> None:
    """Raises BadImage for an image whose pixels do not fit into the memory that is free, before they are decoded.

    size: of its file in bytes, which for so many pixels cannot be next to nothing
    """
    needed = DECODE_BYTES * width * height
    if width * height > MAX_PIXELS or needed > 2 * UNASKED_BYTES and width * height > MOST_PIXELS * size:
        raise BadImage(f'{width}x{height} pixels cannot be decoded from {size:,} bytes')
    if needed > UNASKED_BYTES and needed > (free := psutil.virtual_memory().available):
        raise BadImage(f'{width}x{height} needs {format_bytes(needed)} to decode, {format_bytes(free)} are free')


def read_header(file: BinaryIO) -> tuple[int, int, int]:
    """(width, height, channels) of the image in a binary file, from its first bytes. Raises BadImage."""
    with opened(file) as image:
        return image.width, image.height, channels_of(image)


def expect_whole_png(data: bytes) -> set[bytes]:
    """The kinds of a PNG's chunks, none for other formats. Raises BadImage for one that is cut short or has a wrong checksum.

    pyspng looks at neither.
    """
    if not data.startswith(PNG):
        return set()
    position, kind, kinds = len(PNG), b'', set()
    while kind != b'IEND':  # a chunk: length, kind, content, CRC-32 of kind and content
        length, kind = int.from_bytes(data[position:position + 4]), data[position + 4:position + 8]
        end = position + 8 + length
        if end + 4 > len(data):
            raise BadImage('cannot be decoded (it is cut short)')
        if zlib.crc32(memoryview(data)[position + 4:end]) != int.from_bytes(data[end:end + 4]):
            raise BadImage('cannot be decoded (it is damaged: a checksum does not fit)')
        position = end + 4
        kinds.add(kind)
    return kinds


def decode_8bit(data: bytes) -> Image.Image:
    """The first frame of an image file's content, upright, in mode L, RGB or RGBA. Raises BadImage.

    16-bit grey is rounded to 8 bits; palettes, CMYK and other colour spaces become RGB; grey with alpha becomes RGBA.
    """
    expect_whole_png(data)
    with opened(io.BytesIO(data)) as image:
        channels = channels_of(image)
        expect_memory(*image.size, len(data))
        image = ImageOps.exif_transpose(image)
        if image.mode == 'I' or image.mode.startswith('I;16'):
            wide = np.clip(np.asarray(image), 0, 65535).astype(np.uint32)
            image = Image.fromarray(((wide + 128) // 257).astype(np.uint8))
        return image.convert({1: 'L', 3: 'RGB', 4: 'RGBA'}[channels])


def decode(data: bytes) -> np.ndarray:
    """Pixels of an image file's content as uint8 [C, H, W] with C = 1, 3 or 4. Raises BadImage."""
    # 8 bits of grey, RGB, RGBA: pyspng misreads others; eXIf may ask for a turn
    if data.startswith(PNG) and data[24:26] in (b'\x08\x00', b'\x08\x02', b'\x08\x06') and b'eXIf' not in expect_whole_png(data):
        expect_memory(*struct.unpack_from('>II', data, 16), len(data))
        try:
            pixels = np.atleast_3d(pyspng.load(data))                                          # [H, W, C]
        except RuntimeError as err:
            raise BadImage(f'cannot be decoded ({err})') from err
    else:
        pixels = np.atleast_3d(np.asarray(decode_8bit(data)))
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))


def shape_problem(shape: tuple[int, int, int], first: tuple[int, int, int], first_name: str) -> str | None:
    """Why training cannot take an image of (width, height, channels) in a set whose first image has shape `first`; None if it can."""
    width, height, channels = shape
    if shape[:2] != first[:2]:
        return f'is {width}x{height}, but {first_name} is {first[0]}x{first[1]}: training needs one size'
    if shapes.resolution_of(width, height) is None:
        return f'is {width}x{height}: training needs {shapes.WORDS}'
    if channels != first[2]:
        return f'has {channels} channels, but {first_name} has {first[2]}: training needs one number of channels'
    return None


def native_problem(shape: tuple[int, int, int], channels: int, least: int) -> str | None:
    """Why windows cannot be taken of a picture of (width, height, channels); None if they can.

    channels: of the set's first picture;  least: pixels that its shorter side must have
    """
    width, height, own = shape
    if min(width, height) < least:
        return f'is {width}x{height}, smaller than {least}x{least}'
    if own != channels:
        return f'has {own} channels, but the first has {channels}: training needs one number of channels'
    return None


# ---- Many images


class ImageFiles:
    """The images of a zip or a folder in a stable order (by name). May be pickled and used after a fork: the zip is opened per process.

    path: a zip, a folder or 'demo'.
    extensions: lower-case endings of the files that count as images.
    `names` are the images, `others` the files that are none (but dataset.json).
    Hidden files and the __MACOSX entries that some zip programs add are passed over.
    Raises UserError for a path that is neither, or holds no image.
    """

    most_checked = 2000  # pictures looked at before a run
    whole_blocks = False  # whether reading one picture fetches its neighbours too
    block = None         # see `order.TwoLevelOrder`; None: the order of the whole set is permuted as one

    def __init__(self, path: str | os.PathLike, extensions: tuple[str, ...] = EXTENSIONS):
        self.path = resolve(path)
        self._zip: zipfile.ZipFile | None = None
        self._zip_pid = -1
        if not self.path.exists():
            raise UserError(f'{self.path} does not exist: give a zip or a folder of images')
        self.is_zip = self.path.is_file()
        with open(self.path, 'rb') if self.is_zip else os.scandir(self.path):
            pass  # raises the OSError that says why not, where is_zipfile and walk pass over it
        if self.is_zip and not zipfile.is_zipfile(self.path):
            raise UserError(f'{self.path} is neither a zip nor a folder of images (or the zip is cut short). '
                            f'Convert it first: {self.conversion_command()}')
        if self.is_zip:
            self._entries = {name.replace('\\', '/'): name for name in self._open().namelist() if name and not name.endswith('/')}
        else:
            folders = os.walk(self.path)
            found = (Path(folder, file).relative_to(self.path) for folder, _, files in folders for file in files)
            self._entries = {file.as_posix(): str(file) for file in found}
        self._entries = {name: entry for name, entry in self._entries.items() if not _hidden(name)}
        self.names = sorted(name for name in self._entries if name.lower().endswith(extensions))
        self.others = sorted(self._entries.keys() - set(self.names) - {self.beside('dataset.json')})
        if not self.names:
            kinds = ', '.join(ending[1:] for ending in extensions)
            found = f', but {len(self.others)} other files such as {self.others[0]}' if self.others else ''
            raise UserError(f'{self.path} holds no images ({kinds}){found}. Convert it first: {self.conversion_command()}')

    @property
    def title(self) -> str:
        """What runs on this set are called."""
        return self.path.stem if self.is_zip else self.path.absolute().name

    def conversion_command(self, resolution: int = 256) -> str:
        """The command that makes data that training can take out of these."""
        return f'python dataset_tool.py convert {self.path} DEST.zip --resolution={resolution}'

    def _open(self) -> zipfile.ZipFile:
        if self._zip is None or self._zip_pid != os.getpid():  # a fork shares the parent's file position
            try:
                self._zip, self._zip_pid = zipfile.ZipFile(self.path), os.getpid()
            except READ_ERRORS as err:  # zipfile raises many kinds
                if isinstance(err, OSError) and err.filename is not None:
                    raise
                raise UserError(f'{self.path} is a damaged zip ({str(err)[:200]}): copy or make it again') from err
        return self._zip

    def __getstate__(self):
        return {**self.__dict__, '_zip': None}

    def close(self) -> None:
        """Closes the zip; reading opens it again."""
        if self._zip is not None and self._zip_pid == os.getpid():
            self._zip.close()
        self._zip = None

    def beside(self, name: str) -> str | None:
        """The file of that name nearest to the top, None where there is none; `read` gives it."""
        found = [entry for entry in self._entries if entry.rpartition('/')[2] == name]
        return min(found, key=lambda entry: (entry.count('/'), entry), default=None)

    def labels(self) -> Labels | None:
        """What the dataset.json nearest to the top says, or None without one. Raises UserError if it is malformed."""
        name = self.beside('dataset.json')
        if name is None:
            return None
        where = f'{self.path}/{name}'
        try:
            data = self.read(name)
        except BadImage as err:
            raise UserError(f'{where} {err}: make it again, or remove it to train without labels') from err
        return parse_labels(data, name.removesuffix('dataset.json'), where)

    def least_side(self) -> int | None:
        """The side that all pictures have at least, of a set whose pictures keep their size; None for one of images of one size."""
        name = self.beside('dataset.json')
        try:
            data = self.read(name) if name is not None else b''
            side = json.loads(data).get(LEAST_SIDE) if f'"{LEAST_SIDE}"'.encode() in data else None
        except (BadImage, ValueError, AttributeError):
            return None  # `labels` says what is wrong with it
        return side if type(side) is int and side > 0 else None

    def left_out(self) -> list[tuple[str, str]]:
        """(name, reason) of the other files that may be pictures: of a kind that is not read, or without an ending that says which."""
        found = []
        for name in self.others:
            ending = Path(name).suffix.lower()
            if not ending:
                found.append((name, 'no ending such as .png or .jpg in its name'))
            elif ending not in NO_PICTURES:
                found.append((name, f"files of the kind '{ending}' are not read: save them as PNG or JPEG"))
        return found

    def open(self, name: str) -> BinaryIO:
        """An image's file, open for reading. Raises BadImage when the zip or the disk does not give it."""
        try:
            if not self.is_zip:
                file = self.path / self._entries[name]
                if not file.is_file() or (size := file.stat().st_size) > MOST_OF_FILE:
                    raise BadImage(f'is a file of {size:,} bytes' if file.is_file() else 'is not a file')
                return open(file, 'rb')
            info = self._open().getinfo(self._entries[name])
            if info.file_size > MOST_OF_FILE or info.file_size > UNASKED_BYTES // 4 and info.file_size > MOST_PACKED * info.compress_size:
                raise BadImage(f'would be {info.file_size:,} bytes out of {info.compress_size:,}')
            return self._zip.open(info)
        except READ_ERRORS as err:
            raise BadImage(f'cannot be read ({str(err)[:200]})') from err

    def read(self, name: str) -> bytes:
        """A file, whole. Raises BadImage, also when the zip's checksum does not fit."""
        try:
            with self.open(name) as file:
                return file.read()
        except READ_ERRORS as err:
            raise BadImage(f'cannot be read ({str(err)[:200]})') from err

    def header(self, name: str) -> tuple[int, int, int]:
        """(width, height, channels) of an image. Raises BadImage."""
        with self.open(name) as file:
            return read_header(file)

    def checksum(self, name: str) -> tuple[int, int]:
        """(size in bytes, CRC-32) of an image's file; a zip knows both without reading the file."""
        if self.is_zip:
            info = self._open().getinfo(self._entries[name])
            return info.file_size, info.CRC
        size = crc = 0
        with self.open(name) as file:
            while block := file.read(1 << 20):
                size, crc = size + len(block), zlib.crc32(block, crc)
        return size, crc

    def digest(self, labels: Labels | None) -> str:
        """SHA-256 (hex) over the content of the images and their labels in the set's order: a zip and a folder of the same images agree."""
        total = hashlib.sha256()
        for name in self.names:
            label = labels.by_name.get(name) if labels else None
            try:
                checksum = self.checksum(name)
            except (BadImage, OSError):
                checksum = -1, -1  # training leaves it out
            total.update(repr((*checksum, label)).encode())
        return total.hexdigest()


def _hidden(name: str) -> bool:
    return any(part.startswith('.') or part == '__MACOSX' for part in name.split('/'))
