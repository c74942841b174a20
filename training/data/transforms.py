"""From an image of any size and kind to one that training takes: cut or framed, resized, 1, 3 or 4 channels. Pillow only, no torch."""

import io
import math
from dataclasses import dataclass

import numpy as np
from PIL import Image

from dnnlib.image_io import laid_over
from training.data.files import BadImage, any_size, decode_8bit

MODE = {1: 'L', 3: 'RGB', 4: 'RGBA'}


@dataclass(frozen=True)
class Target:
    """What images are turned into.

    width, height: of the result in pixels; with 'native' both the least that a picture's shorter side has; what center-crop-wide fills of a
        square as wide.
    transform: one of TRANSFORMS, or 'native': pictures keep their size and shape.
    channels: 1, 3 or 4.
    background: colour (r, g, b) that alpha is composited on, unless channels is 4.
    padding: colour of the frame that letterbox, center-crop-wide and pad leave; transparent if channels is 4.
    resize_filter: one of FILTERS.
    """

    width: int
    height: int
    transform: str
    channels: int
    background: tuple[int, int, int] = (255, 255, 255)
    padding: tuple[int, int, int] = (0, 0, 0)
    resize_filter: str = 'lanczos'


def resized(image: Image.Image, width: int, height: int, resize_filter: str = 'lanczos') -> Image.Image:
    """The image at another size by one of FILTERS."""
    return image if image.size == (width, height) else image.resize((width, height), Image.Resampling[resize_filter.upper()])


def cropped(image: Image.Image, width: int, height: int) -> Image.Image:
    """The largest part of the image, from its middle, with the proportions width : height."""
    part_width = max(1, min(image.width, round(image.height * width / height)))
    part_height = max(1, min(image.height, round(image.width * height / width)))
    left, top = (image.width - part_width) // 2, (image.height - part_height) // 2
    with any_size():
        return image.crop((left, top, left + part_width, top + part_height))


def part_of_square(picture: np.ndarray, size: int, left: int, top: int, side: int, place: float = 0.5) -> np.ndarray:
    """side x side pixels from (left, top) of what the square of a picture is at size x size (Lanczos, which averages where it shrinks).

    picture: uint8 [C, H, W]
    place:   where the square is along the longer side, from 0, its beginning, to 1
    Returns uint8 [C, side, side].
    """
    C, H, W = picture.shape
    pixels = min(H, W)
    corners = [int((length - pixels) * place) for length in (W, H)]
    step = pixels / size
    begin = [corner + first * step for corner, first in zip(corners, (left, top), strict=True)]
    reach = math.ceil(3 * max(step, 1)) + 1  # of the filter
    inside = [(max(int(first) - reach, 0), min(math.ceil(first + side * step) + reach, length))
              for first, length in zip(begin, (W, H), strict=True)]
    (x0, x1), (y0, y1) = inside
    part = np.ascontiguousarray(picture[:, y0:y1, x0:x1].transpose(1, 2, 0))
    image = Image.fromarray(part[:, :, 0] if C == 1 else part)
    box = (begin[0] - x0, begin[1] - y0, min(begin[0] - x0 + side * step, x1 - x0), min(begin[1] - y0 + side * step, y1 - y0))
    small = np.atleast_3d(np.asarray(image.resize((side, side), Image.Resampling.LANCZOS, box=box)))
    return np.ascontiguousarray(small.transpose(2, 0, 1))


def framed(image: Image.Image, width: int, height: int, padding: tuple[int, int, int]) -> Image.Image:
    """The image in the middle of a larger one; `padding` fills the rest, or nothing (transparent) in mode RGBA."""
    if image.size == (width, height):
        return image
    colour = (0, 0, 0, 0) if image.mode == 'RGBA' else padding
    if image.mode == 'L':
        colour = Image.new('RGB', (1, 1), padding).convert('L').getpixel((0, 0))
    frame = Image.new(image.mode, (width, height), colour)
    frame.paste(image, ((width - image.width) // 2, (height - image.height) // 2))
    return frame


def fit(image: Image.Image, target: Target) -> Image.Image:
    """The image at the target's size in the way of target.transform. Raises BadImage if 'pad' meets a
    larger image, 'native' a smaller one."""
    width, height = target.width, target.height
    if target.transform == 'native':
        if min(image.size) < width:
            raise BadImage(f'{image.width}x{image.height} is smaller than {width}x{width}')
        return image
    if target.transform == 'center-crop':
        return resized(cropped(image, width, height), width, height, target.resize_filter)
    if target.transform == 'center-crop-wide':
        return framed(resized(cropped(image, width, height), width, height, target.resize_filter), width, width, target.padding)
    if target.transform == 'letterbox':
        scale = min(width / image.width, height / image.height)
        inner = (max(1, round(side * scale)) for side in image.size)
        return framed(resized(image, *inner, target.resize_filter), width, height, target.padding)
    if target.transform == 'stretch':
        return resized(image, width, height, target.resize_filter)
    if image.width > width or image.height > height:
        raise BadImage(f'{image.width}x{image.height} does not fit into {width}x{height}: --transform=pad never shrinks')
    return framed(image, width, height, target.padding)


def with_channels(image: Image.Image, channels: int, background: tuple[int, int, int]) -> Image.Image:
    """An image of mode L, RGB or RGBA with 1, 3 or 4 channels; alpha that has to go is composited on `background`."""
    if image.mode == 'RGBA' and channels != 4:
        image = laid_over(image, background)
    return image.convert(MODE[channels])


def convert(content: bytes | np.ndarray, target: Target) -> tuple[bytes, bool]:
    """(PNG, whether alpha was composited) of an image file's content or of uint8 pixels [H, W] or [H, W, 3]. Raises BadImage."""
    image = decode_8bit(content) if isinstance(content, bytes) else Image.fromarray(content)
    composited = image.mode == 'RGBA' and target.channels != 4
    image = fit(with_channels(image, target.channels, target.background), target)
    out = io.BytesIO()
    image.save(out, 'png', compress_level=4)
    return out.getvalue(), composited


def convert_many(contents: list[bytes | np.ndarray | BadImage], target: Target) -> list[tuple[bytes | None, bool, str]]:
    """(PNG or None, whether alpha was composited, why there is no PNG) of each; what could not be read passes through as its reason."""
    results = []
    for content in contents:
        try:
            if isinstance(content, BadImage):
                raise content
            results.append((*convert(content, target), ''))
        except BadImage as err:
            results.append((None, False, str(err)))
    return results
