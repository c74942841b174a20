"""Sheets of pictures with names beside and above them: what the commands show of a generator."""

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from dnnlib import image_io

GAP = 4  # pixels between pictures


def as_rgb(pixels):
    """uint8 [H, W, 1, 3 or 4] as [H, W, 3]: grey repeated, alpha laid over white."""
    image = image_io.from_array(pixels)
    return np.asarray(image_io.laid_over(image) if image.mode == 'RGBA' else image.convert('RGB'))


def enlarged(pixels, side):
    """uint8 [H, W, C] with its pixels repeated so that the longer side comes to about `side`; never smaller than it was."""
    factor = max(round(side / max(pixels.shape[:2])), 1)
    return pixels.repeat(factor, axis=0).repeat(factor, axis=1)


def sheet(rows, row_names=(), column_names=()):
    """A Pillow image of pictures in rows, named at their left and above.

    rows: lists of uint8 [H, W, C] of any sizes, or None for an empty place; a column is as wide as its widest picture
    row_names, column_names: words, or empty
    Raises ValueError where there is no picture.
    """
    if not any(rows):
        raise ValueError('a sheet of no pictures')
    font = ImageFont.load_default(size=13)
    shapes = [[(0, 0) if picture is None else picture.shape[:2] for picture in row] for row in rows]
    heights = [max(height for height, _ in row) for row in shapes]
    widths = [max(row[column][1] for row in shapes if column < len(row)) for column in range(max(map(len, rows)))]
    left = max((round(font.getlength(str(name))) + 2 * GAP for name in row_names), default=0)
    widths = [max(width, *(round(font.getlength(str(name))) for name in column_names[i:i + 1]), 1) for i, width in enumerate(widths)]
    top = 20 if column_names else 0
    picture = Image.new('RGB', (left + sum(widths) + GAP * (len(widths) - 1), top + sum(heights) + GAP * (len(heights) - 1)), 'white')
    pen = ImageDraw.Draw(picture)
    xs = [left + sum(widths[:i]) + GAP * i for i in range(len(widths))]
    y = top
    for x, name in zip(xs, column_names, strict=False):
        pen.text((x, 2), str(name), fill='black', font=font)
    for index, (row, height) in enumerate(zip(rows, heights, strict=True)):
        if index < len(row_names):
            pen.text((GAP, y + height // 2 - 8), str(row_names[index]), fill='black', font=font)
        for x, pixels in zip(xs, row, strict=False):
            if pixels is not None:
                picture.paste(Image.fromarray(as_rgb(pixels)), (x, y))
        y += height + GAP
    return picture


def outlined(pixels, box, colour=(255, 0, 0)):
    """uint8 [H, W, C] as RGB with a rectangle drawn along `box` (left, top, right, bottom; right and bottom outside)."""
    image = Image.fromarray(as_rgb(pixels).copy())
    left, top, right, bottom = box
    ImageDraw.Draw(image).rectangle((left, top, right - 1, bottom - 1), outline=colour)
    return np.asarray(image)
