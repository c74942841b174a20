"""Networks that draw whole pictures at their own size only (StyleGAN2, `inr-bil`): tiles and views are read from those, pixel by pixel."""

import numpy as np

BEYOND = 232  # what stands for the plane outside of the picture, which such a network does not draw
ROWS = 256  # of a band


def bands(image, window, width, height):
    """Bands uint8 [rows, width, C] of a window: for each pixel that of `image` [H, W, C], which fills the unit square, its middle is in."""
    x0, y0, x1, y1 = window
    columns, across = _along(x0, x1, width, image.shape[1])
    rows, down = _along(y0, y1, height, image.shape[0])
    for top in range(0, height, ROWS):
        part = slice(top, top + ROWS)
        found = image[rows[part]][:, columns]
        found[~(down[part, None] & across)] = BEYOND
        yield found


def _along(start, end, count, size):
    """Of `count` pixels from start to end, those of an axis of `size` pixels in [0, 1) that they are in, and whether there is one."""
    at = np.floor((start + (np.arange(count) + 0.5) * (end - start) / count) * size).astype(int)
    return at.clip(0, size - 1), (at >= 0) & (at < size)
