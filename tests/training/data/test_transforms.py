"""Every way of making an image square, by pixels known beforehand; channels; alpha."""

import io

import numpy as np
import pytest
from PIL import Image

from training.data import FILTERS
from training.data.files import BadImage, decode
from training.data.transforms import Target, convert, convert_many, fit, with_channels


def columns(*colours, width=16, height=32):
    """An image of vertical stripes, each `width` wide."""
    image = Image.new('RGB', (width * len(colours), height))
    for i, colour in enumerate(colours):
        image.paste(colour, (i * width, 0, (i + 1) * width, height))
    return image


def pixels(image, transform, size=32, height=0, channels=3, padding=(9, 8, 7), **options):
    """[H, W, C] of the image after a transform."""
    target = Target(size, height or size, transform, channels, padding=padding, **options)
    return np.atleast_3d(np.array(fit(image, target)))


RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def test_center_crop_takes_the_middle():
    out = pixels(columns(RED, GREEN, GREEN, BLUE), 'center-crop')
    assert out.shape == (32, 32, 3) and (out == GREEN).all()
    tall = columns(RED, GREEN, GREEN, BLUE).transpose(Image.Transpose.ROTATE_90)
    assert (pixels(tall, 'center-crop') == GREEN).all()
    odd = Image.fromarray(np.arange(35, dtype=np.uint8)[None].repeat(32, 0))
    np.testing.assert_array_equal(pixels(odd, 'center-crop')[:, :, 0], np.arange(1, 33)[None].repeat(32, 0))  # whole pixels, none blended


def test_stretch_keeps_everything():
    out = pixels(columns(RED, BLUE, width=32, height=16), 'stretch')
    assert (out[:, :13] == RED).all() and (out[:, 19:] == BLUE).all()


def test_letterbox_frames_the_whole_image():
    out = pixels(columns(RED, BLUE, width=32, height=32), 'letterbox')
    assert (out[:8] == (9, 8, 7)).all() and (out[24:] == (9, 8, 7)).all()
    assert (out[8:24, :13] == RED).all() and (out[8:24, 19:] == BLUE).all()
    tall = columns(GREEN, width=4, height=8)
    out = pixels(tall, 'letterbox')
    assert (out[:, 8:24] == GREEN).all() and (out[:, :8] == (9, 8, 7)).all() and (out[:, 24:] == (9, 8, 7)).all()
    assert pixels(Image.new('RGB', (1000, 1)), 'letterbox').shape == (32, 32, 3)


def test_center_crop_wide_crops_and_frames():
    out = pixels(columns(RED, GREEN, GREEN, BLUE, height=24), 'center-crop-wide', height=24)  # 64x24 cut to 32x24
    assert (out[4:28] == GREEN).all() and (out[:4] == (9, 8, 7)).all() and (out[28:] == (9, 8, 7)).all()
    tall = np.full((64, 32, 3), 200, np.uint8)
    tall[:16], tall[48:] = 50, 50
    out = pixels(Image.fromarray(tall), 'center-crop-wide', height=16)
    assert (out[8:24] == 200).all() and (out[:8] == (9, 8, 7)).all()


@pytest.mark.parametrize('transform', ['center-crop', 'center-crop-wide', 'letterbox', 'stretch'])
def test_resize_filter(transform):
    noise = np.random.RandomState(0).randint(0, 256, (128, 128, 3), dtype=np.uint8)
    found = {name: pixels(Image.fromarray(noise), transform, height=32, resize_filter=name) for name in FILTERS}
    means = noise.reshape(32, 4, 32, 4, 3).mean(axis=(1, 3))
    if transform != 'center-crop-wide':
        assert np.abs(found['box'] - means).max() <= 1.01  # rounded twice, along either axis
    assert len({out.tobytes() for out in found.values()}) == len(FILTERS)
    np.testing.assert_array_equal(found['lanczos'], pixels(Image.fromarray(noise), transform, height=32))


def test_pad_moves_no_pixel():
    small = np.random.RandomState(0).randint(0, 256, (28, 28), dtype=np.uint8)
    out = pixels(Image.fromarray(small), 'pad', channels=1, padding=(255, 255, 255))[:, :, 0]
    np.testing.assert_array_equal(out[2:30, 2:30], small)
    out[2:30, 2:30] = 255
    assert (out == 255).all()
    with pytest.raises(BadImage, match='33x4 does not fit into 32x32'):
        pixels(Image.new('L', (33, 4)), 'pad')


def test_shrinking_averages():
    board = (np.indices((256, 256)).sum(0) % 2 * 255).astype(np.uint8)
    out = pixels(Image.fromarray(board), 'center-crop', channels=1)
    assert np.abs(out[2:-2, 2:-2].astype(int) - 127.5).max() < 8  # a resize that picks pixels gives 0 or 255


def test_same_size_is_untouched():
    noise = np.random.RandomState(0).randint(0, 256, (32, 32, 3), dtype=np.uint8)
    for transform in ('center-crop', 'letterbox', 'stretch', 'pad'):
        np.testing.assert_array_equal(pixels(Image.fromarray(noise), transform), noise)


def test_channels():
    half = Image.new('RGBA', (4, 4), (200, 100, 0, 51))  # a fifth opaque
    over = np.asarray(with_channels(half, 3, (0, 0, 255)))[0, 0]
    assert np.abs(over.astype(int) - [40, 20, 204]).max() <= 1
    assert with_channels(half, 4, (0, 0, 255)).getpixel((0, 0)) == (200, 100, 0, 51)
    assert with_channels(half, 1, (255, 255, 255)).getpixel((0, 0)) == pytest.approx(0.299 * 244 + 0.587 * 224 + 0.114 * 204, abs=1.5)
    assert with_channels(Image.new('L', (4, 4), 70), 3, (0, 0, 0)).getpixel((0, 0)) == (70, 70, 70)
    assert with_channels(Image.new('L', (4, 4), 70), 4, (0, 0, 0)).getpixel((0, 0)) == (70, 70, 70, 255)


def test_convert_gives_a_png_and_tells_of_alpha():
    out = io.BytesIO()
    Image.new('RGBA', (20, 10), (0, 0, 0, 0)).save(out, 'png')
    png, composited = convert(out.getvalue(), Target(16, 16, 'letterbox', 3, background=(1, 2, 3), padding=(4, 5, 6)))
    assert composited
    image = decode(png)
    assert image.shape == (3, 16, 16) and list(image[:, 8, 8]) == [1, 2, 3] and list(image[:, 0, 0]) == [4, 5, 6]
    png, composited = convert(out.getvalue(), Target(16, 16, 'letterbox', 4))
    assert not composited and (decode(png) == 0).all()
    good, bad, unread = convert_many([np.full((16, 16), 9, np.uint8), b'junk', BadImage('gone')], Target(16, 16, 'pad', 1))
    assert (decode(good[0]) == 9).all() and good[2] == ''
    assert bad == (None, False, 'not an image') and unread == (None, False, 'gone')
