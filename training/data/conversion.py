"""From sources of images to a data set: which images, turned into what, written where. No torch."""

import contextlib
import functools
import io
import json
import shutil
import uuid
import zipfile
from collections import defaultdict
from pathlib import Path

import numpy as np
from tqdm import tqdm

from dnnlib.util import UserError, atomic_path
from training.data import RESOLUTIONS, shapes
from training.data.files import LEAST_SIDE, BadImage, ImageFiles, decode, fitting_resolution, opened
from training.data.transforms import Target, convert_many
from training.data.workers import in_batches, ordered_map

PEEK = 100  # images looked at to tell grey from colour


def spread(count, most):
    """At most `most` of range(count), evenly spread and in order; None takes all."""
    if most is None or most >= count:
        return list(range(count))
    return [i * count // most for i in range(most)]


def merge_labels(sources, notes):
    """([label or None] of every image of all sources, or None without labels; names of the classes or None).

    One source keeps its own labels; of several, each is a class named like its file or folder.
    """
    if len(sources) == 1:
        return sources[0].labels, sources[0].classes
    names = [source.path.name.removesuffix('.zip') for source in sources]
    if len(set(names)) < len(names):
        names = [str(source.path) for source in sources]
    if any(source.labels is not None for source in sources):
        notes.append('each source is one class; the labels inside the sources are left out')
    return [index for index, source in enumerate(sources) for _ in range(len(source))], names


def choose(items, labels, max_images, max_per_class, skipped):
    """The items to convert, in order: labelled ones only if there are labels, at most so many of a class, at most so many in all.

    items: list of (source, number in it)
    """
    chosen = range(len(items))
    if labels is not None:
        for i in chosen:
            if labels[i] is None:
                skipped.append((describe(items[i]), 'no label in dataset.json'))
        chosen = [i for i in chosen if labels[i] is not None]
    if max_per_class is not None:
        if labels is None or any(not isinstance(labels[i], int) for i in chosen):
            raise UserError('--max-per-class needs classes (folders in the source, a dataset.json, several sources): give --max-images')
        by_class = defaultdict(list)
        for i in chosen:
            by_class[labels[i]].append(i)
        chosen = sorted(members[k] for members in by_class.values() for k in spread(len(members), max_per_class))
    return [chosen[k] for k in spread(len(chosen), max_images)]


def describe(item):
    """What an item is called in messages and reports."""
    source, i = item
    return f'{source.path}: {source.names[i]}'


def peek(items):
    """((width, height) of the first readable image, whether all of the first images are grey)."""
    size, grey = None, True
    for source, i in items[:PEEK]:
        try:
            content = source.read(i)
            if isinstance(content, np.ndarray):
                return content.shape[1::-1], content.ndim == 2  # one array: all its images are alike
            with opened(io.BytesIO(content)) as image:
                size = size or image.size
                grey = grey and image.mode.split(';')[0] in ('1', 'L', 'LA', 'La', 'I')
        except BadImage:
            continue
    return size, grey and size is not None


def make_target(items, resolution, transform, channels, background, padding, resize_filter='lanczos'):
    """The training.data.transforms.Target that the options and the first images ask for."""
    size, grey = peek(items)
    padded = items[0][0].padded
    if resolution is None:
        if size is None:
            raise UserError(f'none of the first {min(PEEK, len(items))} images can be read, so give --resolution')
        side = next((res for res in RESOLUTIONS if res >= max(size)), 0) if padded else 0
        resolution = (side, side) if padded else size
        if shapes.resolution_of(*resolution) is None:
            raise UserError(f'the first image that can be read is {size[0]}x{size[1]}, not a size that training takes ({shapes.WORDS}): '
                            f'give --resolution={fitting_resolution(*size)}')
    width, height = resolution
    if transform is None:
        transform = 'pad' if padded and size[0] <= width and size[1] <= height else 'center-crop'
    wide = transform == 'center-crop-wide'
    if wide and width == height:
        height = width * 3 // 4
    if shapes.resolution_of(width, width if wide else height) is None or wide and height > width:
        raise UserError(f'--resolution={shapes.as_text((width, height))}: training takes {shapes.WORDS}'
                        + ('; center-crop-wide squares, and a height up to that' if wide else ''))
    channels = int(channels) if channels != 'auto' else 1 if grey else 3
    return Target(width, height, transform, channels, background, padding, resize_filter)


def native_target(items, resolution, channels, background):
    """The Target of pictures that keep their size. resolution: (width, height) of what their sides are to reach, None for any."""
    side = RESOLUTIONS[0] if resolution is None else resolution[0]
    if side not in RESOLUTIONS or resolution not in (None, (side, side)):
        raise UserError(f'--native --resolution={"x".join(map(str, dict.fromkeys(resolution)))}: the size of training '
                        f'windows, one of {", ".join(map(str, RESOLUTIONS))}')
    channels = int(channels) if channels != 'auto' else 1 if peek(items)[1] else 3
    return Target(side, side, 'native', channels, background)


def _add(archive, name, content):
    info = zipfile.ZipInfo(name)  # dated 1980: the same images give the same zip
    info.external_attr = 0o644 << 16
    archive.writestr(info, content)


@contextlib.contextmanager
def writer(dest):
    """Gives a function (name, content) that adds a file to the zip or folder `dest`, which appears when the block ends without an error."""
    if dest.suffix.lower() == '.zip':
        with atomic_path(dest) as temporary, zipfile.ZipFile(temporary, 'w', zipfile.ZIP_STORED) as archive:
            yield functools.partial(_add, archive)
        return
    temporary = dest.with_name(f'.tmp-{uuid.uuid4().hex[:8]}-{dest.name}')

    def write(name, content):
        (temporary / name).parent.mkdir(parents=True, exist_ok=True)
        (temporary / name).write_bytes(content)

    try:
        temporary.mkdir()
        yield write
        temporary.rename(dest)
    except OSError as err:
        raise OSError(err.errno, err.strerror, str(dest)) from err
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_images(items, chosen, labels, classes, target, dest, workers, skipped, looks=None):
    """Converts the chosen items into `dest`; `skipped` takes those that cannot be.

    Returns (label of each image written, names of the classes or None, how many images had alpha composited). Classes keep their numbers
    also where the last of them have no image: then they are named, by number if they have no names. looks: see data.labels.Labels
    """
    pairs, composited = [], 0
    batches = in_batches(chosen, lambda i: items[i][0].read(items[i][1]))
    with writer(dest) as write, tqdm(total=len(chosen), unit='img', disable=None) as bar:
        results = ordered_map(convert_many, batches, workers, len(chosen), target)
        for i, (png, had_alpha, reason) in zip(chosen, (result for batch in results for result in batch), strict=True):
            bar.update()
            if png is None:
                skipped.append((describe(items[i]), reason))
                continue
            name = f'{len(pairs) // 1000:05d}/img{len(pairs):08d}.png'
            write(name, png)
            pairs.append([name, labels[i] if labels is not None else None])
            composited += had_alpha
        if not pairs:
            raise UserError(f'none of {len(items)} images can be used, nothing is written. {skipped[0][0]}: {skipped[0][1]}')
        if labels is not None and not classes and isinstance(pairs[0][1], int):
            dim = 1 + max(label for label in labels if label is not None)
            classes = [str(index) for index in range(dim)] if dim > 1 + max(label for _, label in pairs) else None
        content = {'labels': pairs if labels is not None else None, **({'classes': classes} if classes else {}),
                   **({'looks': looks} if looks else {})}
        if target.transform == 'native':
            content[LEAST_SIDE] = target.width
        write('dataset.json', json.dumps(content).encode())
    return [label for _, label in pairs], classes, composited


def expect_place(dest: Path, sources: list) -> None:
    """Raises UserError for a place that is taken, lies in no folder, or inside one of the sources."""
    if dest.exists():
        raise UserError(f'{dest} exists already: remove it or choose another name')
    for source in sources:
        if dest.suffix.lower() != '.zip' and Path(source).resolve() in dest.resolve().parents:  # the next conversion would read it too
            raise UserError(f'{dest} is inside {source}, which it is made from: choose a place outside of it')
    if not dest.absolute().parent.is_dir():
        raise UserError(f'{dest.absolute().parent} is no folder: make it, or choose another place for {dest.name}')


def relabelled(files: ImageFiles, labels: list[int], classes: list[str], dest: Path, **more) -> None:
    """Copies the images of a data set as they are into `dest`, a zip or folder, with other labels.

    labels: the class of each of files.names;  more: what else the dataset.json is to hold
    Raises UserError for a picture that cannot be read, and for a name that leads out of a folder.
    """
    outside = next((name for name in files.names if Path(name).is_absolute() or '..' in Path(name).parts), None)
    if outside is not None:
        raise UserError(f'{files.path}: {outside} leads out of a folder: convert the set, which gives its images names of their own')
    least = files.least_side()
    content = {'labels': [list(pair) for pair in zip(files.names, labels, strict=True)], 'classes': classes, **more}
    with writer(dest) as write:
        for name in files.names:
            try:
                data = files.read(name)
                decode(data)
                write(name, data)
            except BadImage as err:
                raise UserError(f'{files.path}: {name}: {err}. Convert the set, which leaves bad images out') from err
        write('dataset.json', json.dumps({**content, **({LEAST_SIDE: least} if least else {})}).encode())
