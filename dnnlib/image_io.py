"""Image files written band by band, so that a picture of any size needs the memory of a few of its rows.

PNG and TIFF are streamed: PNG by the small encoder below (RFC 2083: rows filtered, one zlib stream cut into IDAT chunks), TIFF
as zlib-packed tiles of 256 (BigTIFF from 4 GiB on). WebP and JPEG encoders want the whole picture and have a largest side.
Pixels are uint8 [height, width, channels], channels 1 (grey), 3 (RGB) or 4 (RGBA). Needs no torch, and Pillow, a moment to import, only
where it is called.
"""

import struct
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from dnnlib.util import UserError, atomic_path

FORMATS = ('png', 'webp', 'jpg', 'tiff')
LARGEST_SIDE = {'png': 2**31 - 1, 'webp': 16383, 'jpg': 65500, 'tiff': 2**31 - 1}
STREAMED = ('png', 'tiff')
TIFF_TILE = 256


def format_of(path):
    """The name in FORMATS that a path's suffix stands for. Raises UserError for another suffix."""
    suffix = Path(path).suffix.lower().lstrip('.')
    name = {'jpeg': 'jpg', 'tif': 'tiff'}.get(suffix, suffix)
    if name not in FORMATS:
        raise UserError(f"{path}: cannot write '.{suffix}' images; use one of .{', .'.join(FORMATS)}")
    return name


def check_size(image_format, width, height):
    """Raise UserError when the format cannot hold a picture of width x height."""
    largest = LARGEST_SIDE[image_format]
    if max(width, height) > largest:
        raise UserError(f'{image_format} holds at most {largest} pixels a side, not {width}x{height}: use --format=png or --format=tiff')


def laid_over(image, ground=(255, 255, 255)):
    """A Pillow image of mode RGBA as RGB, laid over the colour `ground`."""
    from PIL import Image

    return Image.alpha_composite(Image.new('RGBA', image.size, (*ground, 255)), image).convert('RGB')


def from_array(pixels):
    """uint8 [height, width, channels] as a Pillow image of mode L, RGB or RGBA. Raises ValueError for another type or shape."""
    from PIL import Image

    _expect_pixels(pixels)
    return Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)


def _expect_pixels(pixels):
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] not in (1, 3, 4):
        raise ValueError(f'pixels must be uint8 [height, width, 1, 3 or 4], got {pixels.dtype} {list(pixels.shape)}')


def resized(pixels, width, height, method='LANCZOS'):
    """uint8 [H, W, channels] as [height, width, channels]. method: the name of one of Pillow's resampling filters"""
    from PIL import Image

    image = from_array(pixels).resize((width, height), getattr(Image.Resampling, method))
    return np.asarray(image).reshape(height, width, pixels.shape[2])


def write(path, bands, width, height, channels, image_format=None):
    """Write one picture from its bands; a file that could not be finished leaves nothing behind.

    path:         where to; an existing file is replaced once the new one is complete
    bands:        iterable of uint8 [rows, width, channels], top to bottom, any number of rows each
    channels:     1, 3 or 4; JPEG lays transparency over white
    image_format: one of FORMATS; None takes it from the suffix
    Raises UserError when the format cannot hold the size, ValueError when the bands do not add up to the picture.
    """
    image_format = image_format or format_of(path)
    check_size(image_format, width, height)
    bands = _checked(bands, width, height, channels)
    with atomic_path(path) as temporary:
        if image_format == 'png':
            _write_png(temporary, bands, width, height, channels)
        elif image_format == 'tiff':
            _write_tiff(temporary, bands, width, height, channels)
        else:
            _write_whole(temporary, bands, width, height, channels, image_format)


def write_array(path, pixels, image_format=None):
    """Write uint8 [height, width, channels] (see `write`)."""
    height, width, channels = pixels.shape
    write(path, [pixels], width, height, channels, image_format)


def _checked(bands: Iterable, width, height, channels) -> Iterator:
    """The same bands, contiguous; raises ValueError at the first that does not fit and at the end when rows are missing."""
    rows = 0
    for band in bands:
        if band.dtype != np.uint8 or band.ndim != 3 or band.shape[1:] != (width, channels):
            raise ValueError(f'a band must be uint8 [rows, {width}, {channels}], got {band.dtype} {list(band.shape)}')
        rows += len(band)
        if rows > height:
            break
        yield np.ascontiguousarray(band)
    if rows != height:
        raise ValueError(f'the bands hold {rows} rows or more, the picture has {height}' if rows > height
                         else f'the bands hold {rows} rows, the picture has {height}')


# PNG --------------------------------------------------------------------------------------------------------------------


def png_filter(rows, above, step):
    """Filter rows as PNG does, each with the one of None, Sub and Up that has the smallest sum of absolute differences.

    rows: uint8 [R, B] bytes of each row;  above: uint8 [B], the row over the first;  step: bytes of a pixel
    Returns uint8 [R, 1 + B], the filter's number before each row.
    """
    left = np.zeros_like(rows)
    left[:, step:] = rows[:, :-step]
    upper = np.concatenate([above[None], rows[:-1]])
    choices = [rows, rows - left, rows - upper]  # modulo 256, as the format asks
    costs = np.stack([np.abs(choice.view(np.int8).astype(np.int16)).sum(axis=1, dtype=np.int64) for choice in choices])
    best = costs.argmin(axis=0).astype(np.uint8)
    filtered = np.choose(best[:, None], choices)
    return np.concatenate([best[:, None], filtered], axis=1)


def quick_png(pixels):
    """uint8 [height, width, channels] as the bytes of a PNG: every row less the one above it, zlib's level 1.

    Half the time of Pillow at that level, and as many bytes. Raises ValueError for another type or shape.
    """
    _expect_pixels(pixels)
    height, width, channels = pixels.shape
    rows = pixels.reshape(height, width * channels)
    filtered = np.empty([height, 1 + width * channels], np.uint8)
    filtered[:, 0], filtered[:1, 1:] = 2, rows[:1]  # 2: PNG's number of the filter Up
    np.subtract(rows[1:], rows[:-1], out=filtered[1:, 1:])
    return _png_start(width, height, channels) + _png_chunk(b'IDAT', zlib.compress(filtered.tobytes(), 1)) + _png_chunk(b'IEND', b'')


def _png_start(width, height, channels):
    kind = {1: 0, 3: 2, 4: 6}[channels]
    return b'\x89PNG\r\n\x1a\n' + _png_chunk(b'IHDR', struct.pack('>IIBBBBB', width, height, 8, kind, 0, 0, 0))


def _png_chunk(name, data):
    return struct.pack('>I', len(data)) + name + data + struct.pack('>I', zlib.crc32(name + data))


def _write_png(path, bands, width, height, channels):
    packer = zlib.compressobj(6)
    above = np.zeros(width * channels, np.uint8)
    with open(path, 'wb') as file:
        file.write(_png_start(width, height, channels))
        for band in bands:
            for rows in np.array_split(band, -(-band.size // 2**24)) if band.size else ():  # bounds the filter's copies
                rows = rows.reshape(len(rows), width * channels)
                packed = packer.compress(png_filter(rows, above, channels).tobytes())
                above = rows[-1]
                if packed:
                    file.write(_png_chunk(b'IDAT', packed))
        file.write(_png_chunk(b'IDAT', packer.flush()) + _png_chunk(b'IEND', b''))


# TIFF -------------------------------------------------------------------------------------------------------------------


def _strips(bands, rows):
    """Bands regrouped into strips of `rows` rows; the last one may be shorter."""
    held, count = [], 0
    for band in bands:
        while len(band):
            part, band = band[:rows - count], band[rows - count:]
            held.append(part)
            count += len(part)
            if count == rows:
                yield np.concatenate(held)
                held, count = [], 0
    if held:
        yield np.concatenate(held)


def _tiles(bands, width, channels):
    """The tiles of a picture row by row, each contiguous [TIFF_TILE, TIFF_TILE, channels] and padded with zeros at the rim."""
    for strip in _strips(bands, TIFF_TILE):
        for x in range(0, width, TIFF_TILE):
            piece = strip[:, x:x + TIFF_TILE]
            tile = np.zeros((TIFF_TILE, TIFF_TILE, channels), np.uint8)
            tile[:piece.shape[0], :piece.shape[1]] = piece
            yield tile if channels > 1 else tile[:, :, 0]


def _write_tiff(path, bands, width, height, channels):
    import tifffile

    shape = (height, width, channels) if channels > 1 else (height, width)
    with tifffile.TiffWriter(path, bigtiff=height * width * channels > 2**32 - 2**25) as file:
        file.write(
            _tiles(bands, width, channels), shape=shape, dtype=np.uint8, tile=(TIFF_TILE, TIFF_TILE), compression='zlib', metadata=None,
            photometric='rgb' if channels > 1 else 'minisblack', extrasamples=['unassalpha'] if channels == 4 else None,
        )


# WebP and JPEG ----------------------------------------------------------------------------------------------------------


def _write_whole(path, bands, width, height, channels, image_format):
    pixels = np.empty((height, width, channels), np.uint8)
    row = 0
    for band in bands:
        pixels[row:row + len(band)] = band
        row += len(band)
    image = from_array(pixels)
    if image_format == 'jpg':
        (laid_over(image) if image.mode == 'RGBA' else image).save(path, 'JPEG', quality=95, subsampling=0)
    else:
        (image.convert('RGB') if image.mode == 'L' else image).save(path, 'WEBP', quality=95)
