"""Data sets: `convert` makes one out of images of any kind, `cluster` divides its classes, `shard` cuts it into tars, `check` finds what is
wrong with one."""

import contextlib
import json
import os
import time
from collections import Counter, defaultdict
from pathlib import Path

import click

from dnnlib.cli import Size, run
from dnnlib.util import UserError, atomic_path, format_bytes, format_time
from training.data import FILTERS, RESOLUTIONS, TRANSFORMS


class Color(click.ParamType):
    """'#ff8000' -> (255, 128, 0)."""

    name = '#rrggbb'

    def convert(self, value, param, ctx):
        if isinstance(value, tuple):
            return value
        digits = value.removeprefix('#')
        if len(digits) != 6 or not set(digits.lower()) <= set('0123456789abcdef'):
            self.fail(f'{value!r} is not a colour: write #rrggbb such as #ffffff', param, ctx)
        return tuple(bytes.fromhex(digits))


# ---- convert


def report_skipped(skipped, dest):
    """Prints how many images were left out for which reason and writes the full list beside the data set."""
    path = dest.with_name(dest.name + '.report.json')
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps({'skipped': [{'file': file, 'reason': reason} for file, reason in skipped]}, indent=1))
    by_reason = defaultdict(list)
    for file, reason in skipped:
        by_reason[reason].append(file)
    click.echo(f'Skipped {len(skipped)} (listed in {path}):')
    for reason, files in sorted(by_reason.items(), key=lambda entry: -len(entry[1]))[:10]:
        click.echo(f'  {len(files)} x {reason}: {", ".join(files[:3])}{", ..." if len(files) > 3 else ""}')


@click.group(context_settings={'help_option_names': ['-h', '--help'], 'max_content_width': 120})
def main():
    """Make data sets and check them."""


@main.command()
@click.argument('sources', nargs=-1, required=True, type=click.Path(path_type=Path), metavar='SOURCE...')
@click.argument('dest', type=click.Path(path_type=Path))
@click.option('--resolution', type=Size(), help='Size of the images: the side of squares, a power of two from 16 to 1024; or '
              'WIDTHxHEIGHT, multiples of 16 (512x384).  [default: the size the images have; 32 for MNIST]')
@click.option('--native', is_flag=True, help='Keep pictures in the size and shape they have, for windows of them (train.py --windows); '
              '--resolution is what their sides are to reach then.')
@click.option('--transform', type=click.Choice(TRANSFORMS), help='How images get the proportions of --resolution: their middle '
              '(center-crop); the middle with proportions 4:3 or those of --resolution, in a square frame (center-crop-wide); whole, in a '
              'frame (letterbox); distorted (stretch); not resized, in a frame (pad).  [default: center-crop; pad for MNIST]')
@click.option('--resize-filter', type=click.Choice(FILTERS), default='lanczos', show_default=True, help='How pixels become fewer or more; '
              'box averages, as stylegan2-ada-pytorch does for FFHQ at 256.')
@click.option('--channels', type=click.Choice(['auto', '1', '3', '4']), default='auto', show_default=True, help='1 grey, 3 RGB, 4 RGB with '
              'alpha. auto: 1 if the first 100 images are grey, else 3.')
@click.option('--background', type=Color(), default='#ffffff', show_default=True, help='Colour that alpha is composited on.')
@click.option('--padding', type=Color(), default='#000000', show_default=True, help='Colour of frames (transparent with 4 channels).')
@click.option('--max-images', type=click.IntRange(1), help='At most so many, evenly spread over all.')
@click.option('--max-per-class', type=click.IntRange(1), help='At most so many of each class, evenly spread over it.')
@click.option('--workers', type=click.IntRange(1), default=min(os.cpu_count() or 1, 16), show_default=True, help='Processes that decode.')
def convert(sources, dest, resolution, native, transform, resize_filter, channels, background, padding, max_images, max_per_class, workers):
    """Make a data set for training out of images.

    SOURCE is a folder or zip of images (labels: dataset.json or, without one, the names of the folders inside), an LSUN lmdb, the CIFAR-10
    python archive, or an idx file of MNIST or Fashion-MNIST (or the folder that holds it). Of several sources each becomes a class.

    DEST is a name that ends in .zip, or a folder; it must not exist yet. Broken images are left out and reported.

    \b
    Examples:
      python dataset_tool.py convert photos/ photos256.zip --resolution=256
      python dataset_tool.py convert films/ wide.zip --resolution=256x128
      python dataset_tool.py convert lsun/*_train_lmdb lsun10.zip --resolution=256 --max-per-class=100000
      python dataset_tool.py convert cifar-10-python.tar.gz cifar10.zip
    """
    from training.data.conversion import choose, expect_place, make_target, merge_labels, native_target, write_images
    from training.data.sources import open_source

    start = time.monotonic()
    expect_place(dest, sources)
    opened = [open_source(path) for path in sources]
    notes = [note for source in opened for note in source.notes]
    items = [(source, i) for source in opened for i in range(len(source))]
    labels, classes = merge_labels(opened, notes)
    skipped = [(f'{source.path}: {name}', reason) for source in opened for name, reason in source.left_out]
    chosen = choose(items, labels, max_images, max_per_class, skipped)
    if not chosen:
        raise UserError(f'none of {len(items)} images has a label in dataset.json: correct the names in it, or remove it')
    if native and transform:
        raise UserError(f'--native keeps pictures as they are: leave out --transform={transform}')
    some = [items[i] for i in chosen]
    target = (native_target(some, resolution, channels, background) if native else
              make_target(some, resolution, transform, channels, background, padding, resize_filter))
    wide = target.transform == 'center-crop-wide'
    size = f'{"at least " * native}{target.width}x{target.width if wide else target.height}'
    wide = f' ({target.width}x{target.height} in a frame)' if wide else ''
    click.echo(f'{len(chosen)} of {len(items)} images -> {size}x{target.channels}, {target.transform}{wide}')
    for note in notes:
        click.echo(f'Note: {note}')
    written, classes, composited = write_images(items, chosen, labels, classes, target, dest, workers, skipped,
                                               opened[0].looks if len(opened) == 1 else None)
    if composited:
        click.echo(f'Note: {composited} images had alpha, composited on #{bytes(background).hex()}; --channels=4 keeps it')
    size = dest.stat().st_size if dest.is_file() else sum(file.stat().st_size for file in dest.rglob('*') if file.is_file())
    if skipped:
        report_skipped(skipped, dest)
    click.echo(f'{dest}: {len(written)} images, {label_summary(written if labels is not None else None, classes)}, '
               f'{format_bytes(size)}, in {format_time(time.monotonic() - start)}')


def label_summary(labels, classes):
    """A few words about a list of labels (None: there are none) and the names of their classes."""
    if labels is None:
        return 'no labels'
    if not isinstance(labels[0], int):
        return f'labels are vectors of {len(labels[0])}'
    counts = Counter(labels)
    return class_summary([counts[index] for index in range(len(classes) if classes else 1 + max(counts))], classes)


def class_summary(of_each, classes):
    """A few words about how many images each class has. classes: their names, or None"""
    least, most = min(of_each), max(of_each)
    names = f' ({", ".join(classes[:10])}{", ..." if len(classes) > 10 else ""})' if classes else ''
    return f'{len(of_each)} classes{names} of {least if least == most else f"{least} to {most}"} images'


# ---- check


def size_summary(shapes, least):
    """'64x64x3'; of pictures that keep their size (least: see ImageFiles.least_side) the smallest, the largest and the scales they have."""
    sizes = sorted(shapes.values(), key=lambda shape: (min(shape[:2]), shape))
    smallest, largest, channels = 'x'.join(map(str, sizes[0])), 'x'.join(map(str, sizes[-1])), sizes[0][2]
    if least is None:
        return smallest
    scale = min(sizes[(len(sizes) - 1) // 2][:2]) / least
    return f'{smallest.removesuffix(f"x{channels}")} to {largest}, half of them {scale:.3g} times {least} or more'


def find_problems(files, labels, shapes):
    """(name, reason, what to do) of every image whose size, channels or label training cannot take, and of labels without an image.

    shapes: (width, height, channels) of every image that can be decoded
    """
    from training.data.files import fitting_resolution, native_problem, shape_problem

    usual = Counter(shapes.values()).most_common(1)[0][0] if shapes else None
    usual_name = next((name for name, shape in shapes.items() if shape == usual), '')
    least = files.least_side()
    for name, shape in shapes.items():
        problem = native_problem(shape, usual[2], least) if least else shape_problem(shape, usual, usual_name)
        if problem is not None:
            way = f'--native --resolution={least}' if least else f'--resolution={fitting_resolution(*usual[:2])}'
            yield name, problem, f'remove it, or convert all: python dataset_tool.py convert {files.path} DEST.zip {way}'
    if labels is not None:
        for name in files.names:
            if name not in labels.by_name:
                yield name, 'has no label in dataset.json', 'add one, or remove the image'
        for name in labels.by_name.keys() - set(files.names):
            yield name, 'has a label in dataset.json but is not there', 'bring the image back, or remove its label'


@main.command()
@click.argument('data')
@click.option('--workers', type=click.IntRange(1), default=min(os.cpu_count() or 1, 16), show_default=True, help='Processes that decode.')
def check(data, workers):
    """Look at every image of a data set and list each that training cannot use, with the reason and what to do.

    DATA is what train.py --data takes: a zip or folder, 'demo', several of them, shards. The exit code is 2 if anything is wrong.
    """
    from tqdm import tqdm

    from training.data.opening import open_files
    from training.data.shards import ShardFiles
    from training.data.workers import in_batches, inspect_many, ordered_map

    files = open_files(data)
    if isinstance(files, ShardFiles):
        check_shards(data, files, workers)
        return
    problems, shapes = [], {}
    try:
        labels = files.labels()
    except UserError as err:
        labels = None
        problems.append(('dataset.json', str(err), ''))
    with tqdm(total=len(files.names), unit='img', disable=None) as bar:
        results = ordered_map(inspect_many, in_batches(files.names, files.read), workers, len(files.names))
        for name, (shape, reason) in zip(files.names, (result for batch in results for result in batch), strict=True):
            bar.update()
            if shape is None:
                problems.append((name, reason, 'copy it again, or remove it'))
            else:
                shapes[name] = shape
    problems += find_problems(files, labels, shapes)
    for name, reason, advice in problems:
        click.echo(f'{name}: {reason}' + (f' -> {advice}' if advice else ''))
    if problems:
        raise UserError(f'{data}: {len(problems)} problems in {len(files.names)} images, listed above')
    summary = label_summary([labels.by_name[name] for name in files.names] if labels else None, labels.classes if labels else None)
    if files.others:
        click.echo(f'Note: {len(files.others)} other files are passed over, such as {files.others[0]}')
    click.echo(f'{data} is fine: {len(files.names)} images of {size_summary(shapes, files.least_side())}, {summary}, '
               f'digest {files.digest(labels)[:16]}')


# ---- Clusters


@main.command()
@click.argument('source')
@click.argument('dest', type=click.Path(path_type=Path))
@click.option('--clusters', type=click.IntRange(1), help='How many in all, about.  [default: one for 8 images, at most 400]')
@click.option('--like', metavar='DATA', help='Take the clusters that the pictures of the same names have in another set, of another size.')
@click.option('--res', type=click.Choice([str(res) for res in RESOLUTIONS]), help='Size at which pictures of a set made with --native are '
              'looked at.')
@click.option('--seed', type=click.IntRange(0, 1 << 31), default=0, show_default=True, help='Of where k-means begins.')
@click.option('--device', default='auto', show_default=True, help='cpu, cuda, cuda:1; auto takes a GPU if there is one.')
def cluster(source, dest, clusters, like, res, seed, device):
    """Divide the classes of a data set into clusters of pictures that look alike, so that train.py --cond learns a varied set better.

    Classes become groups: 'animals' is 'animals/1', 'animals/2' and so on, from the largest cluster on; generate.py --class=animals
    draws each in turn. Without labels there is one group, 'all'. A pretrained network (EfficientNet-Lite1) says what pictures look like.

    SOURCE is a zip or folder that `convert` made, or 'demo'. DEST is a name that ends in .zip, or a folder; it must not exist yet.

    \b
    Examples:
      python dataset_tool.py cluster photos256.zip clusters256.zip
      python train.py --cfg=inr-medium --data=clusters256.zip --cond --class-balance=0.5
    """
    from tqdm import tqdm

    from torch_utils.misc import pick_device
    from training import clusters as division
    from training.data.conversion import expect_place, relabelled
    from training.data.files import ImageFiles
    from training.data.opening import open_files
    from training.dataset import open_set

    with contextlib.closing(open_files(source)) as files:
        expect_place(dest, [files.path])
        if not isinstance(files, ImageFiles):
            raise UserError(f'{source}: give one zip or folder, before it is cut into shards or joined with others')
        if like:
            if clusters or res:
                raise UserError(f'--{"clusters" if clusters else "res"} has no effect on clusters of another set: leave it or --like out')
            with contextlib.closing(open_files(like)) as others:
                placed, names, looks = division.taken(files, others)
            relabelled(files, placed, names, dest, looks=looks)
            click.echo(f'{dest}: {len(placed)} images, {label_summary(placed, names)}')
            return
    with contextlib.closing(open_set(source, None if res is None else int(res))) as dataset:
        classes, names = division.groups_of(dataset)
        clusters = clusters or min(400, max(1, dataset.images // 8))
        with tqdm(total=dataset.images, unit='img', disable=None) as bar:
            features = division.features_of(dataset, pick_device(device), bar.update)
        placed, names, means = division.divide(division.looks_of(features, classes), classes, names, clusters, seed)
        relabelled(dataset.files, placed.tolist(), names, dest, looks=means.round(4).tolist())
    click.echo(f'{dest}: {len(placed)} images, {label_summary(placed.tolist(), names)}')


# ---- Shards


def check_shards(data, files, workers):
    """What `check` does for shards: checksums of the files first, then every picture."""
    from tqdm import tqdm

    from training.data.sharding import problems_of

    index, count = files.index, 0
    with tqdm(total=len(files.names), unit='img', disable=None) as bar:
        for name, reason in problems_of(files, workers, bar.update):
            count += 1
            click.echo(f'{name}: {reason}')
    if count:
        raise UserError(f'{data}: {count} problems in {len(index.names)} shards of {len(files.names)} images, listed above')
    summary = 'no labels' if index.label is None else f'labels are vectors of {index.label}'
    if index.label == 'class':
        summary = f'{index.dim} classes' if index.class_counts is None else class_summary(index.class_counts.tolist(), index.classes)
    size = f'at least {index.least_side}x{index.least_side}' if index.least_side else 'x'.join(map(str, index.shape))
    click.echo(f'{data} is fine: {size}, {summary}, {shard_summary(index)}')


@main.command()
@click.argument('source')
@click.argument('dest', type=click.Path(path_type=Path))
@click.option('--shard-mb', type=click.IntRange(1, 1 << 20), default=256, show_default=True, help='Size of a shard.')
@click.option('--prefix', default='shard-', show_default=True, help='What their names begin with; another one on each of several machines.')
@click.option('--shuffle/--no-shuffle', default=True, show_default=True, help='Mix the images, so that neighbours have nothing in common.')
def shard(source, dest, shard_mb, prefix, shuffle):
    """Cut a data set into tars, for data that does not fit on one disk or lies on a server.

    SOURCE is a data set that `convert` made (several with commas). DEST is a folder, which must not exist yet: tars in WebDataset's layout,
    offsets beside each, index.json. Pictures are copied as they are.

    \b
    Examples:
      python dataset_tool.py shard photos256.zip shards/
      python train.py --cfg=inr --data=shards/index.json
    """
    from tqdm import tqdm

    from training.data.opening import open_files
    from training.data.sharding import write_shards

    if dest.exists():
        raise UserError(f'{dest} exists already: remove it or choose another name')
    if not prefix or any(sign in '/\\:?#[]' or sign < ' ' for sign in prefix):
        raise UserError(f'--prefix={prefix!r}: give a part of a file name')
    with contextlib.closing(open_files(source)) as files:
        labels = files.labels()
        missing = None if labels is None or labels.complete else next((name for name in files.names if name not in labels.by_name), None)
        if missing is not None:
            raise UserError(f'{source}: {missing} has no label in dataset.json: add one, or remove it')
        with tqdm(total=len(files.names), unit='img', disable=None) as bar:
            index = write_shards(files, labels, dest, shard_mb << 20, prefix, 0 if shuffle else None, bar.update)
    click.echo(f'{dest / "index.json"}: {shard_summary(index)}')


def shard_summary(index):
    """A few words about an index."""
    return f'{index.samples.sum()} images in {len(index.names)} shards of {format_bytes(index.bytes.sum())}, digest {index.digest[:16]}'


@main.command()
@click.argument('files', nargs=-1, required=True, type=click.Path(path_type=Path), metavar='FILE...')
@click.option('--out', type=click.Path(path_type=Path), help='Where the index goes.  [default: index.json beside the tars]')
def index(files, out):
    """Make the index of tars that are there, or join the indexes of several machines.

    FILEs are plain tars in WebDataset's layout, all in one folder, each of which is read once; or index.json files of parts, whose tars and
    offsets are then to be brought beside --out.

    \b
    Examples:
      python dataset_tool.py index wds/*.tar
      python dataset_tool.py index part-a/index.json part-b/index.json --out=all/index.json
    """
    from training.data.sharding import index_tars, joined, save_index
    from training.data.shards import INDEX, parse_index

    if len({file.suffix for file in files}) > 1 or files[0].suffix not in ('.tar', '.json'):
        raise UserError('give tars, or index.json files of parts')
    missing = next((file for file in files if not file.is_file()), None)
    if missing is not None:
        raise UserError(f'{missing} does not exist')
    if files[0].suffix == '.json':
        if out is None:
            raise UserError('--out is missing: where the joined index goes')
        whole = joined([(str(file), parse_index(file.read_bytes(), str(file))) for file in files])
    else:
        if len({file.absolute().parent for file in files}) > 1:
            raise UserError('the tars are in several folders: put them into one, or index each folder and join the indexes')
        out = out or files[0].with_name(INDEX)
        whole = index_tars(sorted(files))
    save_index(out, whole)
    click.echo(f'{out}: {shard_summary(whole)}')


if __name__ == '__main__':
    run(main)
