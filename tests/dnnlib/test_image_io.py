"""Streamed image files read back by independent decoders (Pillow, pypng, tifffile)."""

import itertools
import tracemalloc

import numpy as np
import png
import pytest
import tifffile
from PIL import Image

from dnnlib import image_io
from dnnlib.util import UserError


def picture(height, width, channels, seed=0):
    """Smooth ramps with a noisy corner: uint8 [height, width, channels]."""
    y, x = np.mgrid[:height, :width]
    pixels = np.stack([(3 * x + y) % 256, (x * y) % 256, (255 - 2 * y) % 256, (x + 5 * y) % 256][:channels], axis=2).astype(np.uint8)
    corner = pixels[: height // 2, : width // 2]
    corner[:] = np.random.RandomState(seed).randint(0, 256, corner.shape)
    return pixels


def cut(pixels, heights):
    """Bands of the given heights, repeated until the picture ends."""
    row = 0
    for height in itertools.cycle(heights):
        if row >= len(pixels):
            return
        yield pixels[row:row + height]
        row += height


def read(path):
    with Image.open(path) as image:
        pixels = np.asarray(image)
    return pixels if pixels.ndim == 3 else pixels[:, :, None]


@pytest.mark.parametrize('channels', [1, 3, 4])
@pytest.mark.parametrize('image_format', image_io.STREAMED)
def test_streamed_formats_round_trip(tmp_path, image_format, channels):
    pixels = picture(301, 277, channels)
    path = tmp_path / f'a.{image_format}'
    image_io.write(path, cut(pixels, [1, 7, 64, 300]), 277, 301, channels)
    assert np.array_equal(read(path), pixels)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_png_agrees_with_a_second_decoder(tmp_path):
    pixels = picture(40, 33, 4)
    image_io.write(tmp_path / 'a.png', cut(pixels, [9]), 33, 40, 4)
    width, height, rows, info = png.Reader(bytes=(tmp_path / 'a.png').read_bytes()).asDirect()
    assert (width, height, info['bitdepth'], info['planes']) == (33, 40, 8, 4)
    assert np.array_equal(np.stack(list(rows)).reshape(40, 33, 4), pixels)


@pytest.mark.parametrize('height, width, channels', [(40, 33, 1), (40, 33, 3), (7, 258, 4), (1, 1, 3), (2, 5, 1)])
def test_quick_png_agrees_with_two_decoders(tmp_path, height, width, channels):
    pixels = picture(height, width, channels)
    (tmp_path / 'a.png').write_bytes(image_io.quick_png(pixels[:, ::-1]))  # not contiguous
    assert np.array_equal(read(tmp_path / 'a.png'), pixels[:, ::-1])
    packed = image_io.quick_png(pixels)
    found_width, found_height, rows, info = png.Reader(bytes=packed).asDirect()
    assert (found_width, found_height, info['bitdepth'], info['planes']) == (width, height, 8, channels)
    assert np.array_equal(np.stack(list(rows)).reshape(pixels.shape), pixels)


def test_png_filter_is_chosen_by_row():
    ramp = np.arange(0, 120, dtype=np.uint8)
    rows = np.stack([ramp, ramp, np.where(ramp % 2, 3, 0).astype(np.uint8)])
    filtered = image_io.png_filter(rows, np.zeros(120, np.uint8), 1)
    assert filtered[:, 0].tolist() == [1, 2, 0]  # left neighbour, row above, as it is
    assert filtered[0, 1:].tolist() == [0] + [1] * 119
    assert not filtered[1, 1:].any()
    assert np.array_equal(filtered[2, 1:], rows[2])


def test_tiff_is_tiled(tmp_path):
    pixels = picture(300, 520, 3)
    image_io.write_array(tmp_path / 'a.tiff', pixels)
    with tifffile.TiffFile(tmp_path / 'a.tiff') as file:
        page = file.pages[0]
        assert (page.is_tiled, page.tilewidth, file.is_bigtiff, page.photometric.name) == (True, 256, False, 'RGB')
        assert np.array_equal(page.asarray(), pixels)


def test_streaming_holds_a_band_not_the_picture(tmp_path):
    width, height, rows = 512, 20_000, 50  # 30.7 MB of pixels, 77 KB a band

    def bands():
        for first in range(0, height, rows):
            yield np.full((rows, width, 3), first // rows % 256, np.uint8)

    for name in ('a.png', 'a.tiff'):
        tracemalloc.start()
        image_io.write(tmp_path / name, bands(), width, height, 3)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 6e6, name
    with tifffile.TiffFile(tmp_path / 'a.tiff') as file:
        assert file.pages[0].asarray()[[49, 50, -1], 7, 1].tolist() == [0, 1, (height // rows - 1) % 256]


@pytest.mark.parametrize('image_format', ['webp', 'jpg'])
@pytest.mark.parametrize('channels', [1, 3, 4])
def test_whole_formats_keep_the_picture(tmp_path, image_format, channels):
    pixels = np.full((24, 32, channels), 200, np.uint8)
    pixels[:12] = 60
    if channels == 4:
        pixels[..., 3] = 255
        pixels[:, 16:, 3] = 0
    path = tmp_path / f'a.{image_format}'
    image_io.write(path, cut(pixels, [5]), 32, 24, channels)
    with Image.open(path) as image:
        assert image.size == (32, 24)
        rgba = np.asarray(image.convert('RGBA')).astype(int)
    assert np.abs(rgba[3, 3, :3] - 60).max() < 8 and np.abs(rgba[20, 3, :3] - 200).max() < 8
    if channels == 4:
        assert (rgba[20, 28, 3] == 0) if image_format == 'webp' else (rgba[20, 28, :3].min() > 247)  # kept, or laid over white


@pytest.mark.parametrize('rows', [9, 11])
def test_wrong_number_of_rows_leaves_no_file(tmp_path, rows):
    with pytest.raises(ValueError, match='the bands hold'):
        image_io.write(tmp_path / 'a.png', [np.zeros((rows, 4, 3), np.uint8)], 4, 10, 3)
    assert not list(tmp_path.iterdir())


def test_a_band_of_another_width_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r'uint8 \[rows, 4, 3\]'):
        image_io.write(tmp_path / 'a.tiff', [np.zeros((10, 5, 3), np.uint8)], 4, 10, 3)


def test_sizes_and_suffixes_a_format_cannot_hold(tmp_path):
    with pytest.raises(UserError, match='webp holds at most 16383 .* 16384x5.*png'):
        image_io.write(tmp_path / 'a.webp', [], 16384, 5, 3)
    with pytest.raises(UserError, match="cannot write '.bmp'"):
        image_io.format_of('a.bmp')
    assert [image_io.format_of(name) for name in ('a.JPEG', 'b.tif', 'c.png')] == ['jpg', 'tiff', 'png']


def test_transparency_is_laid_over_a_colour():
    clear = Image.fromarray(np.array([[[255, 0, 0, 255], [255, 0, 0, 0], [0, 0, 0, 51]]], np.uint8))
    assert np.asarray(image_io.laid_over(clear)).tolist() == [[[255, 0, 0], [255, 255, 255], [204, 204, 204]]]
    assert np.asarray(image_io.laid_over(clear, (10, 20, 30)))[0, 1].tolist() == [10, 20, 30]


@pytest.mark.parametrize('shape, dtype', [((4, 4, 3), float), ((4, 4, 1), 'uint16'), ((4, 4, 1), 'float32'), ((4, 4, 1), bool),
                                          ((4, 4), 'uint8'), ((4, 4, 2), 'uint8'), ((1, 4, 4, 3), 'uint8')])
def test_pixels_of_another_kind_are_refused(shape, dtype):
    """Pillow takes some of them and clips what it does not expect."""
    pixels = np.zeros(shape, dtype)
    for take in (image_io.from_array, image_io.quick_png):
        with pytest.raises(ValueError, match=r'pixels must be uint8 \[height, width, 1, 3 or 4\], got'):
            take(pixels)
