"""What a page may ask for: the view as a frozen record, read from a query word by word and bounded. Needs no torch.

A name that is not known, a number out of range or a list that is too long is a BadQuery, whose text is the answer.
"""

import math
import re
from collections.abc import Collection
from dataclasses import dataclass, fields

from dnnlib.cli import FARTHEST
from inference import REFINEMENTS
from viewing import MARGIN, MAX_LEVEL, MAX_SAVED, MIN_LEVEL, PLANE, TILE

MOST_PAIRS = 64  # classes or directions at once
LARGEST_SIDE = 2**15  # of a saved view
SAVED_FORMATS = ('png', 'tiff')


class BadQuery(ValueError):
    """A query that cannot be answered; its text says why."""


@dataclass(frozen=True)
class Limits:
    """How far the numbers of a view go: layers, classes and directions there are, and the images that the kept snapshots had seen."""

    num_ws: int
    c_dim: int
    directions: int
    snapshots: Collection[int]


@dataclass(frozen=True)
class View:
    """What is looked at.

    snapshot: images its network had seen; None for the network that was opened
    seed: of z; psi, cutoff: truncation and the layers it ends at (None: all)
    label: (class, weight) pairs; empty for the class of the seed
    style, layers: a second seed and the layers that take its w; None for none
    to, share, space: a third seed and how far on the way to it, in 'w' or 'z'
    refine: see inr.refinement; None for the default
    directions: (number, strength) pairs
    """

    snapshot: int | None = None
    seed: int = 0
    psi: float = 1.0
    cutoff: int | None = None
    label: tuple[tuple[int, float], ...] = ()
    style: int | None = None
    layers: tuple[int, ...] = ()
    to: int | None = None
    share: float = 0.0
    space: str = 'w'
    refine: str | None = None
    directions: tuple[tuple[int, float], ...] = ()


def whole(text, low, high):
    """A whole number from low to high."""
    if not re.fullmatch(r'[0-9]{1,12}', text) or not low <= int(text) <= high:
        raise BadQuery(f'a whole number from {low} to {high} is needed')
    return int(text)


def real(text, low, high):
    """A finite number from low to high."""
    try:
        number = float(text) if len(text) <= 40 else math.nan
    except ValueError:
        number = math.nan
    if not low <= number <= high:  # not for NaN either
        raise BadQuery(f'a number from {low:g} to {high:g} is needed')
    return number


def one_of(text, names):
    """A name out of several."""
    if text not in names:
        raise BadQuery(f'one of {", ".join(names)} is needed')
    return text


def wholes(text, count, most=MOST_PAIRS):
    """'4,5' -> (4, 5): numbers below count, each once."""
    if not count:
        raise BadQuery('this network has none')
    found = tuple(whole(part, 0, count - 1) for part in _parts(text, most))
    if len(set(found)) < len(found):
        raise BadQuery('a number is there twice')
    return found


def pairs(text, count, largest):
    """'3:0.5,4:-1' -> ((3, 0.5), (4, -1.0)): numbers below count, each once, and how much of each, up to `largest` either way."""
    parts = [part.partition(':')[::2] for part in _parts(text, MOST_PAIRS)]
    indices = wholes(','.join(index for index, _ in parts), count)
    return tuple(zip(indices, (real(amount, -largest, largest) for _, amount in parts), strict=True))


def _parts(text, most):
    parts = text.split(',') if text else []
    if len(parts) > most:
        raise BadQuery(f'at most {most} are possible at once')
    return parts


SEED = 2**32 - 1
READERS = {
    'snapshot': lambda text, limits: _known(whole(text, 0, 10**12), limits.snapshots),
    'seed': lambda text, limits: whole(text, 0, SEED),
    'psi': lambda text, limits: real(text, -5, 5),
    'cutoff': lambda text, limits: whole(text, 0, limits.num_ws),
    'label': lambda text, limits: pairs(text, limits.c_dim, 1000),
    'style': lambda text, limits: whole(text, 0, SEED),
    'layers': lambda text, limits: wholes(text, limits.num_ws),
    'to': lambda text, limits: whole(text, 0, SEED),
    'share': lambda text, limits: real(text, 0, 1),
    'space': lambda text, limits: one_of(text, ('w', 'z')),
    'refine': lambda text, limits: one_of(text, REFINEMENTS),
    'directions': lambda text, limits: pairs(text, limits.directions, 100),
}
assert list(READERS) == [field.name for field in fields(View)]


def _known(images, snapshots):
    if images not in snapshots:
        raise BadQuery('the run keeps no such snapshot')
    return images


def read_view(query, limits):
    """The View of a query, {name: text}. Raises BadQuery."""
    found = {}
    for name, text in query.items():
        if name not in READERS:
            raise BadQuery(f'{name[:40]!r} is not known; known are {", ".join(READERS)}')
        try:
            found[name] = READERS[name](text, limits)
        except BadQuery as why:
            raise BadQuery(f'{name}: {why}') from None
    return View(**found)


def tile_window(level, x, y):
    """The window of a tile with its margin, exact in float64. Raises BadQuery for a tile that is not there."""
    if not MIN_LEVEL <= level <= MAX_LEVEL:
        raise BadQuery(f'levels go from {MIN_LEVEL} to {MAX_LEVEL}')
    if not (0 <= x < 2**level and 0 <= y < 2**level):
        raise BadQuery(f'level {level} has {2**level} tiles a side')
    left, top, side = PLANE
    side /= 2**level
    margin = side * MARGIN / TILE
    return left + x * side - margin, top + y * side - margin, left + (x + 1) * side + margin, top + (y + 1) * side + margin


@dataclass(frozen=True)
class Picture:
    """A view as a file: its window, size in pixels and format."""

    window: tuple[float, float, float, float]
    width: int
    height: int
    format: str


def read_picture(query):
    """The Picture of a query, whose words it takes out. Raises BadQuery."""
    needed = ('x0', 'y0', 'x1', 'y1', 'width', 'height', 'format')
    missing = [name for name in needed if name not in query]
    if missing:
        raise BadQuery(f'{missing[0]} is missing')
    words = {name: query.pop(name) for name in needed}
    window = tuple(real(words[name], -FARTHEST, FARTHEST) for name in needed[:4])
    if not (window[0] < window[2] and window[1] < window[3]):
        raise BadQuery('the window is empty: x0 < x1 and y0 < y1 are needed')
    width, height = (whole(words[name], 1, LARGEST_SIDE) for name in ('width', 'height'))
    if width * height > MAX_SAVED:
        raise BadQuery(f'{width}x{height} pixels are more than {MAX_SAVED / 1e6:.0f} megapixels: generate.py --res draws any number')
    return Picture(window, width, height, one_of(words['format'], SAVED_FORMATS))
