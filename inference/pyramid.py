"""Pictures of any number of pixels: tiles, and above them a pyramid of ever smaller halves, drawn block by block and in any order.

A block is 2048 pixels wide and high. It is drawn, cut into tiles of 256 and halved three times, until one tile is left of it; those tiles
are in turn the pixels of the blocks three levels up. So memory is that of one block whatever the size, a block that is done is a file, a
run that was killed goes on with the next one, and several processes share them (torchrun). A level is half as wide and high as the one
below, rounded up; its pixels are the means of four.

Two kinds of pictures are made of tiles: tiled BigTIFF, one page a level (what OpenSlide, libvips and QuPath read as a pyramid), and Deep
Zoom, a folder of PNG files for each level, its `.dzi` and a page that shows it (the format of Microsoft's Deep Zoom).
"""

import json
import math
import shutil
import struct
import time
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dnnlib import image_io
from dnnlib.util import UserError, atomic_path, format_time

TILE, SPAN = 256, 8  # pixels of a tile; tiles of a block, along a side
STEP = 3  # levels that a block is halved: log2 of SPAN
SAY_EVERY = 10  # seconds between lines of progress
WAIT = 1  # seconds between looks at what other processes have done


def halved(pixels):
    """uint8 [H, W, C] at half the size, rounded up: means of four pixels, of two or one at an odd end."""
    height, width, channels = pixels.shape
    even = np.pad(pixels, ((0, height % 2), (0, width % 2), (0, 0)), mode='edge').astype(np.uint16)
    rows = even[0::2] + even[1::2]
    return ((rows[:, 0::2] + rows[:, 1::2] + 2) >> 2).astype(np.uint8)


@dataclass(frozen=True)
class Levels:
    """The pyramid of a picture of width x height, level 0 being the picture; the last level is one tile."""

    width: int
    height: int
    channels: int

    @property
    def count(self):
        return 1 + max(math.ceil(math.log2(max(self.width, self.height) / TILE)), 0)

    def size(self, level):
        """(width, height) of a level."""
        return tuple(-(-side // 2**level) for side in (self.width, self.height))

    def tiles(self, level):
        """(columns, rows) of tiles of a level."""
        return tuple(-(-side // TILE) for side in self.size(level))

    @property
    def stages(self):
        """Number of stages; stage s makes blocks of the pixels of level 3 s."""
        return max(-(-(self.count - 1) // STEP), 1)

    def blocks(self, stage):
        """(columns, rows) of blocks of a stage."""
        return tuple(-(-number // SPAN) for number in self.tiles(STEP * stage))

    def area(self, stage, row, column):
        """(top, left, height, width) of a block in pixels of its level."""
        width, height = self.size(STEP * stage)
        top, left = row * SPAN * TILE, column * SPAN * TILE
        return top, left, min(SPAN * TILE, height - top), min(SPAN * TILE, width - left)


def tiles_of(levels, stage, row, column, pixels):
    """(level, row, column, uint8 pixels of at most 256 x 256) of all tiles that come out of a block."""
    for step in range(STEP + 1):
        level = STEP * stage + step
        if step:
            pixels = halved(pixels)
        if level >= levels.count:
            return
        if step or not stage:
            across = SPAN >> step
            for top in range(0, pixels.shape[0], TILE):
                for left in range(0, pixels.shape[1], TILE):
                    tile = pixels[top:top + TILE, left:left + TILE]
                    yield level, row * across + top // TILE, column * across + left // TILE, tile


# ---- Where tiles are kept


class TiffParts:
    """A file for every block with its tiles as a TIFF holds them, zlib-packed differences; put together when all are there."""

    def __init__(self, path, levels):
        self.path, self.levels, self.parts = path, levels, path.with_name(f'{path.name}.parts')
        self.indices = {}

    def clear(self):
        """A finished picture stays until the new one replaces it."""

    def pack(self, tile):
        """A tile as bytes: padded to its full size, each pixel less the one to its left (predictor 2), zlib."""
        full = np.zeros([TILE, TILE, self.levels.channels], np.uint8)
        full[:tile.shape[0], :tile.shape[1]] = tile
        full[:, 1:] -= full[:, :-1].copy()
        return zlib.compress(full.tobytes(), 6)

    def unpack(self, data):
        full = np.frombuffer(zlib.decompress(data), np.uint8).reshape(TILE, TILE, self.levels.channels)
        return np.cumsum(full, axis=1, dtype=np.uint8)

    def write(self, name, tiles):
        packed = {f'{level} {row} {column}': self.pack(tile) for level, row, column, tile in tiles}
        header = json.dumps({place: len(data) for place, data in packed.items()}).encode()
        with atomic_path(self.parts / name) as temporary:
            temporary.write_bytes(struct.pack('<Q', len(header)) + header + b''.join(packed.values()))

    def packed(self, level, row, column):
        """The bytes of a tile."""
        stage = max(level - 1, 0) // STEP
        across = SPAN >> (level - STEP * stage)
        path = self.parts / block_name(stage, row // across, column // across)
        with path.open('rb') as file:
            if path not in self.indices:
                if len(self.indices) > 4096:
                    self.indices.clear()
                (size,) = struct.unpack('<Q', file.read(8))
                lengths = json.loads(file.read(size))
                ends = np.cumsum([8 + size, *lengths.values()]).tolist()
                self.indices[path] = dict(zip(lengths, zip(ends, lengths.values(), strict=False), strict=True))
            start, length = self.indices[path][f'{level} {row} {column}']
            file.seek(start)
            return file.read(length)

    def read(self, level, row, column):
        """The pixels of a tile, its padding too."""
        return self.unpack(self.packed(level, row, column))

    def finish(self):
        import tifffile

        levels, channels = self.levels, self.levels.channels
        with atomic_path(self.path) as temporary, tifffile.TiffWriter(temporary, bigtiff=True) as file:
            for level in range(levels.count):
                (width, height), (columns, rows) = levels.size(level), levels.tiles(level)
                file.write(
                    (self.packed(level, row, column) for row in range(rows) for column in range(columns)),
                    shape=(height, width, channels) if channels > 1 else (height, width), dtype=np.uint8, tile=(TILE, TILE),
                    compression='zlib', predictor=True, subfiletype=int(level > 0), metadata=None,
                    photometric='rgb' if channels > 1 else 'minisblack', extrasamples=['unassalpha'] if channels == 4 else None,
                )


class DeepZoom:
    """NAME_files/LEVEL/COLUMN_ROW.png, NAME.dzi and NAME.html; levels are counted from the one of a single pixel."""

    def __init__(self, path, levels):
        self.path, self.levels, self.parts = path, levels, path.with_name(f'{path.name}.parts')
        self.files = path.with_name(f'{path.stem}_files')
        self.finest = math.ceil(math.log2(max(levels.width, levels.height)))

    def clear(self):
        """Removes a finished picture, whose tiles would get mixed with those of the new one."""
        if self.path.exists():
            self.path.unlink()
            shutil.rmtree(self.files, ignore_errors=True)

    def place(self, level, row, column):
        return self.files / str(self.finest - level) / f'{column}_{row}.png'

    def write(self, name, tiles):
        for level, row, column, tile in tiles:
            path = self.place(level, row, column)
            path.parent.mkdir(parents=True, exist_ok=True)
            image_io.from_array(np.ascontiguousarray(tile)).save(path)  # a tile that was cut off is drawn again: its block has no mark
        (self.parts / name).touch()

    def read(self, level, row, column):
        from PIL import Image

        with Image.open(self.place(level, row, column)) as image:
            return np.asarray(image).reshape(image.height, image.width, -1)

    def finish(self):
        from inference import pages

        pixels = self.read(self.levels.count - 1, 0, 0)
        for level in range(self.levels.count, self.finest + 1):
            pixels = halved(pixels)
            self.write('top', [(level, 0, 0, pixels)])
        width, height = self.levels.width, self.levels.height
        with atomic_path(self.path.with_suffix('.html')) as temporary:
            temporary.write_text(pages.deep_zoom(self.path.stem, width, height, TILE, self.finest), encoding='utf-8')
        with atomic_path(self.path) as temporary:
            temporary.write_text(
                '<?xml version="1.0" encoding="UTF-8"?>\n<Image xmlns="http://schemas.microsoft.com/deepzoom/2008" Format="png" '
                f'Overlap="0" TileSize="{TILE}"><Size Width="{width}" Height="{height}"/></Image>\n', encoding='utf-8')


KINDS = {'tiff': TiffParts, 'dzi': DeepZoom}


# ---- Drawing


def block_name(stage, row, column):
    return f'{stage}-{row}-{column}'


class Progress:
    """Lines about blocks done by all processes and the time left, at most one in SAY_EVERY seconds. had: blocks done before."""

    def __init__(self, name, had, total, say):
        self.name, self.had, self.total, self.say = name, had, total, say
        self.start = self.last = time.monotonic()

    def __call__(self, done):
        now = time.monotonic()
        if now - self.last < SAY_EVERY or done <= self.had:
            return
        left = (now - self.start) / (done - self.had) * (self.total - done)
        self.say(f'{self.name}: {done} of {self.total} blocks, {100 * done / self.total:.1f}%, {format_time(left)} left')
        self.last = now


def _begin(store, plan, resume, is_main):
    """Makes the folder of parts, or checks that the one there is of the same picture. Raises UserError where it may not go on."""
    note = store.parts / 'plan.json'
    if is_main and store.parts.exists():
        if not resume:
            raise UserError(f'{store.parts} holds a picture that was not finished: go on with --resume, or remove that folder')
    elif is_main:
        store.clear()
        store.parts.mkdir(parents=True)
    if is_main and not note.exists():
        with atomic_path(note) as temporary:
            temporary.write_text(json.dumps(plan, indent=1))
    while not note.exists():
        time.sleep(WAIT)
    found = json.loads(note.read_text())
    if other := [key for key in plan if json.loads(json.dumps(plan[key])) != found.get(key)]:
        raise UserError(f'{store.parts} was begun with another {other[0]} ({found.get(other[0])}, now {plan[other[0]]}): '
                        'give the same options, or remove that folder')


def _own_share(levels, draw, store, rank, world, progress):
    """Draws the blocks of this process that are not there yet."""
    columns, rows = levels.blocks(0)
    places = [(row, column) for row in range(rows) for column in range(columns)]
    for row, column in places[rank::world]:
        name = block_name(0, row, column)
        if not (store.parts / name).exists():
            store.write(name, tiles_of(levels, 0, row, column, draw(*levels.area(0, row, column))))
            progress(sum(1 for _ in store.parts.glob('0-*')))
    return [block_name(0, *place) for place in places]


def _upper_stages(levels, store):
    """Makes the blocks of the stages above the first out of the last tiles of those below."""
    for stage in range(1, levels.stages):
        columns, rows = levels.blocks(stage)
        level = STEP * stage
        for row in range(rows):
            for column in range(columns):
                name, (top, left, height, width) = block_name(stage, row, column), levels.area(stage, row, column)
                if (store.parts / name).exists():
                    continue
                pixels = np.empty([height, width, levels.channels], np.uint8)
                for y in range(0, height, TILE):
                    for x in range(0, width, TILE):
                        place = pixels[y:y + TILE, x:x + TILE]
                        place[:] = store.read(level, (top + y) // TILE, (left + x) // TILE)[:place.shape[0], :place.shape[1]]
                store.write(name, tiles_of(levels, stage, row, column, pixels))


def write(path, kind, draw, width, height, channels, plan, resume=False, rank=0, world=1, say=print):
    """Writes a picture of tiles.

    path: of the .tiff or .dzi; kind: one of KINDS
    draw: function of (top, left, height, width) that draws uint8 [height, width, channels] of the picture
    plan: {name: value} of all that decides its pixels, for --resume to compare; resume: go on with what is there
    rank, world: number of this process and how many there are; the first one puts the picture together and waits for the others
    Returns whether it wrote the picture (others do not). Raises UserError where a folder of parts forbids it.
    """
    path = Path(path)
    levels = Levels(width, height, channels)
    store = KINDS[kind](path, levels)
    if resume and path.exists() and not store.parts.exists():
        return rank == 0
    _begin(store, {'size': [width, height, channels], **plan}, resume, rank == 0)
    columns, rows = levels.blocks(0)
    had = sum(1 for _ in store.parts.glob('0-*'))
    if had and rank == 0:
        say(f'{path.name}: {had} of {columns * rows} blocks are there')
    progress = Progress(path.name, had, columns * rows, say if rank == 0 else lambda line: None)
    names = _own_share(levels, draw, store, rank, world, progress)
    if rank:
        return False
    for name in names:
        while not (store.parts / name).exists():
            time.sleep(WAIT)
    _upper_stages(levels, store)
    store.finish()
    shutil.rmtree(store.parts)
    return True
