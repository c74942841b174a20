"""Arrays of numbers out of .npy and .npz files from anywhere: what a header says is compared with the bytes there are. Needs no torch."""

import io
import math
import zipfile
from pathlib import Path

import numpy as np

MOST_BYTES = 256 << 20  # of an array
KINDS = 'fiubU'  # floats, whole numbers, truth values, text
HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


class NoArrays(ValueError):
    """A file that holds no arrays, or a damaged one. The text says why."""


def arrays_in(path: Path, alone: str) -> dict[str, np.ndarray]:
    """The arrays of an .npz by name, or the one of an .npy, called `alone`. Raises NoArrays, and OSError where the file cannot be read."""
    with open(path, 'rb') as file:
        try:
            if file.read(4) != b'PK\3\4':
                file.seek(0)
                return {alone: _array(file.read(MOST_BYTES + 1))}
            with zipfile.ZipFile(file) as archive:
                return {info.filename.removesuffix('.npy'): _array(_content(archive, info)) for info in archive.infolist()}
        except NoArrays:
            raise
        except Exception as err:  # zipfile, and the literal that a header is, raise many kinds
            raise NoArrays(str(err).partition('\n')[0][:200] or type(err).__name__) from None


def _content(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    if info.file_size > MOST_BYTES:
        raise NoArrays(f'an array of {info.file_size:,} bytes')
    return archive.read(info)


def _array(content: bytes) -> np.ndarray:
    file = io.BytesIO(content)
    version = np.lib.format.read_magic(file)
    if version not in HEADERS:
        raise NoArrays(f'an array of version {version}')
    shape, fortran, dtype = HEADERS[version](file)
    rest = len(content) - file.tell()
    if dtype.kind not in KINDS or dtype.hasobject or not dtype.itemsize:
        raise NoArrays('an array of something else than numbers or text')
    if not all(type(side) is int and side >= 0 for side in shape) or math.prod(shape) * dtype.itemsize != rest:
        raise NoArrays(f'an array of {str(shape)[:100]} with {rest:,} bytes')
    values = np.frombuffer(content, dtype, offset=file.tell()).reshape(shape, order='F' if fortran else 'C')
    return values.astype(dtype.newbyteorder('='))  # memory of its own
