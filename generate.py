"""Draw images from a trained generator, at any size and in any window (INR-GAN, Figs. 2, 9, 14)."""

import collections

import click

from dnnlib import cli, image_io
from dnnlib.util import UserError, format_bytes
from inference import FUNCTION_FORMATS, PYRAMIDS, REFINEMENTS

PRECISIONS = ('fp32', 'bf16', 'fp16')
DEFAULT_SEEDS = range(8)


@click.command(context_settings={'show_default': True})
@click.option('--network', metavar='FILE|URL|DIR',
              help='Snapshot to draw from.  [default: the newest under training-runs/, else a bundled one]')
@click.option('--seeds', type=cli.Seeds(), help='Images to draw by number, such as 0-7,12.  [default: 0-7]')
@click.option('--res', type=cli.Size(), help='N or WIDTHxHEIGHT in pixels; N is the longer side where the trained images '
              'are no squares.  [default: as trained]')
@click.option('--window', type=cli.Window(), default='0,0,1,1',
              help='Part of the plane to draw: 0,0,1,1 is the trained image, -0.5,-0.5,1.5,1.5 zooms out.')
@click.option('--psi', '--trunc', 'psi', type=cli.PSI, metavar='NUMBER', default=1.0,
              help='Truncation: below 1 the images become more typical and less varied, at 0 all are the mean.')
@click.option('--psi-cutoff', type=click.IntRange(0), metavar='N', help='Truncate only that many of the first layers.  [default: all]')
@cli.with_psi_to
@click.option('--class', 'class_text', metavar='INDEX|NAME', help='Class to draw, or group of classes to draw from in turn, for a '
              'network trained with --cond.')
@click.option('--label', type=cli.Numbers(), help='All numbers of a label, such as 0.2,0,1, in place of --class.')
@click.option('--noise-mode', type=click.Choice(['const', 'random', 'none']), default='const', help='Of networks with spatial noise.')
@click.option('--projected-w', metavar='FILE', help='Draw the w that projector.py wrote, instead of seeds.')
@cli.with_directions
@click.option('--grid', is_flag=True, help='Put all images on one contact sheet, OUTDIR/grid.png; classes that go round get a column each.')
@click.option('--outdir', metavar='DIR', default='out', help='Folder to write to; made if it is not there.')
@click.option('--format', 'image_format', type=click.Choice((*image_io.FORMATS, 'dzi', *FUNCTION_FORMATS)), default='png',
              help='png and tiff hold any size; dzi is a Deep Zoom folder with a page that shows it. A function is a small file that '
                   'python -m inr.function draws without the network; html is a page that shows it, onnx the same for other programs, '
                   'onnx-w with w as an input.')
@click.option('--resume', is_flag=True, help='Go on with large tiff and dzi pictures that were stopped; leave finished ones alone.')
@click.option('--refine', type=click.Choice(REFINEMENTS),
              help='Where the pixels between the trained ones come from: a denser last grid, denser grids throughout, or a last grid that '
                   'reads the one below smoothly. Matters above the trained size.  [default: all]')
@click.option('--batch', type=click.IntRange(1), metavar='N', default=1, help='Images drawn at once: faster on a GPU, takes more memory.')
@click.option('--precision', type=click.Choice(PRECISIONS), default='fp32',
              help='bf16 and fp16 compute the four highest resolutions in half precision: faster on a GPU, bf16 on new CPUs too.')
@click.option('--allow-tf32', is_flag=True, help='On a GPU: round the factors of float32 products to TF32, 10 bits.')
@click.option('--device', metavar='NAME', default='auto', help='cpu, cuda, cuda:1; auto takes a GPU if there is one.')
def main(network, seeds, res, window, psi, psi_cutoff, psi_to, class_text, label, noise_mode, projected_w, direction, strength,
         directions, grid, outdir, image_format, resume, refine, batch, precision, allow_tf32, device):
    """Draw images from a trained generator, at any size and in any window.

    Writes OUTDIR/seed0000.png and so on; the same seed gives the same image whatever else is drawn. 8192x8192 and more take the memory
    of one band of rows in PNG, of one block of 2048 pixels in TIFF and DZI, whose blocks the processes of torchrun share.

    \b
    python generate.py --res=2048
    python generate.py --seeds=0-7,12 --window=-0.5,-0.5,1.5,1.5 --res=512 --grid
    python generate.py --res=1920x1080 --projected-w=out/projection/projected_w.npz
    python generate.py --seeds=0-3 --direction=1 --strength=-2..2 --grid
    """
    if seeds and projected_w:
        raise UserError('--seeds and --projected-w: both say what to draw; give one of them')
    if directions and direction is None:
        raise UserError('--directions: which of them? give --direction=N')
    if image_format in FUNCTION_FORMATS:
        from inference import export

        export.check({'--res': res, '--grid': grid, f'--precision={precision}': precision != 'fp32',
                      '--noise-mode=random': noise_mode == 'random'})
    elif image_format == 'dzi' and grid:
        raise UserError('--grid: a sheet of many images is no dzi; choose png or tiff')
    elif res and image_format != 'dzi':
        image_io.check_size(image_format, *res)

    from pathlib import Path

    from inference.opening import open_network, with_precision
    from inference.painter import Painter, asked_size
    from torch_utils import distributed
    from torch_utils.misc import pick_device

    with cli.quiet(not distributed.is_main()):
        G, meta = open_network(network, distributed.own_device(str(pick_device(device, allow_tf32))))
    G = with_precision(G, precision)
    painter = Painter(G, *asked_size(G, window, res), window, refine, noise_mode, force_fp32=precision == 'fp32')
    with cli.quiet(not distributed.is_main()):
        codes = ws_by_name(G, meta['dataset']['classes'], seeds, projected_w, psi, psi_cutoff, psi_to, class_text, label)
    if direction is not None:
        from inference.directions import load_or_find

        codes = load_or_find(directions, G).along(codes, direction, strength)

    outdir = Path(outdir)
    outdir.mkdir(parents=True, exist_ok=True)
    share = dict(list(codes.items())[distributed.rank()::distributed.world_size()])  # of the files, for this process
    if image_format in FUNCTION_FORMATS:
        export.write_each(outdir, painter, share, image_format, Path(meta['path']).name)
        return

    batch = 1 if noise_mode == 'random' else batch  # so that the noise of a picture does not depend on what else is drawn
    with cli.quiet(not distributed.is_main()):
        painter.say_how()
    if image_format == 'dzi' or image_format in PYRAMIDS and painter.streams and not grid:
        write_pyramids(outdir, painter, codes, image_format, resume, precision)
    elif resume:
        raise UserError(f'--resume: goes on with dzi and with tiff of more than 64 MiB, not with this {image_format}; leave it out')
    elif grid:
        columns = [f'{value:g}' for value in strength] if direction is not None else []
        if not columns and not projected_w and class_text is None and label is None:
            from inference.latents import class_columns

            columns = class_columns(G, seeds or DEFAULT_SEEDS, meta['dataset']['classes'])
        write_sheet(outdir / f'grid.{image_format}', painter, list(codes.values()), batch, image_format, columns)
    elif share:
        write_each(outdir, painter, share, batch, image_format)


def ws_by_name(G, classes, seeds, projected_w, psi, psi_cutoff, psi_to, class_text, label):
    """{name of the file: ws [1, num_ws, w_dim]} of the seeds, or of the file of a projection; arguments as the options."""
    from inference import latents

    to_class = latents.towards_class(G, psi, psi_to)
    if projected_w:
        if to_class and label is None and (class_text is None or latents.classes_of_group(class_text, classes or [])):
            raise UserError('--psi-to=class with --projected-w: say of which one class it is, with --class or --label')
        mean = latents.class_means(G, [latents.class_label(G, class_text, classes, label)])[0] if to_class else None
        found = latents.truncated(G, latents.load_projection(projected_w, G), psi, psi_cutoff, mean)
        names = ['projected'] if len(found) == 1 else [f'projected{i:04d}' for i in range(len(found))]
        return dict(zip(names, found.split(1), strict=True))
    seeds = seeds or DEFAULT_SEEDS
    labels = latents.labels_of_seeds(G, seeds, class_text, classes, label)
    means = latents.class_means(G, labels) if to_class else [None] * len(seeds)
    drawn_from = zip(seeds, labels, means, strict=True)
    return {f'seed{seed:04d}': latents.latents_of(G, seed, c, psi, psi_cutoff, mean) for seed, c, mean in drawn_from}


def expect_disk(size, folder):
    """Raise UserError when `size` bytes of pixels clearly do not fit on the disk, even well packed."""
    import shutil

    free = shutil.disk_usage(folder).free
    if size / 20 > free:
        raise UserError(f'{format_bytes(size)} of pixels will not fit into the {format_bytes(free)} free in {folder}: lower --res')


def expect_memory(size, advice):
    """Raise UserError, with the advice, when `size` bytes of pixels cannot be held and encoded at once."""
    import psutil

    available = psutil.virtual_memory().available
    if 2 * size > available:
        raise UserError(f'{format_bytes(size)} of pixels do not fit into {format_bytes(available)} of free memory: lower --res{advice}')


def _with_progress(bands, height, name):
    """The bands of one large picture, with a bar on a terminal."""
    from tqdm import tqdm

    with tqdm(total=height, desc=name, unit='row', disable=None, leave=False) as bar:
        for band in bands:
            yield band[0]
            bar.update(band.shape[1])


def write_each(outdir, painter, latents, batch, image_format):
    """One file for each of latents {name: w [1, num_ws, w_dim]}."""
    import torch

    expect_disk(painter.bytes * len(latents), outdir)
    if not painter.by_points:
        expect_memory(painter.bytes, '')
    elif image_format not in image_io.STREAMED:
        expect_memory(painter.bytes, ', or use --format=png or tiff')
    names = list(latents)
    batch = 1 if painter.streams else batch
    for first in range(0, len(names), batch):
        some = names[first:first + batch]
        ws = torch.cat([latents[name] for name in some])
        pictures = [_with_progress(painter.bands(ws), painter.height, some[0])] if painter.streams else [[x] for x in painter.whole(ws)]
        for name, bands in zip(some, pictures, strict=True):
            path = outdir / f'{name}.{image_format}'
            image_io.write(path, bands, painter.width, painter.height, painter.channels, image_format)
            print(path, flush=True)


def write_pyramids(outdir, painter, latents, image_format, resume, precision):
    """One pyramid of tiles for each of latents {name: w [1, num_ws, w_dim]}; the processes of torchrun share its blocks."""
    import zlib

    from inference import pyramid
    from inference.latents import network_digest
    from torch_utils.distributed import rank, world_size

    expect_disk(painter.bytes * len(latents), outdir)
    if not painter.by_points:
        expect_memory(painter.bytes, '')
    network = network_digest(painter.G)[:16]
    for name, ws in latents.items():
        plan = {'network': network, 'image': zlib.crc32(ws.cpu().numpy().tobytes()), 'window': painter.window, 'refine': painter.refine,
                'noise': painter.synthesis_options['noise_mode'], 'precision': precision}
        path = outdir / f'{name}.{image_format}'
        if pyramid.write(path, image_format, painter.drawing(ws), painter.width, painter.height, painter.channels, plan, resume,
                         rank(), world_size()):
            print(path, flush=True)


def sheet_shape(count, width, height):
    """(columns, rows) of a contact sheet of `count` pictures: 32 square ones are 8 x 4.

    Of the sheets that are 1 to 3 times as wide as high, the one with the fewest empty places, then the one nearest to square; where there
    is none (few, long pictures), the one nearest to square.
    """
    def cost(columns):
        rows = -(-count // columns)
        across, down = columns * width, rows * height
        fits = down <= across <= 3 * down
        return not fits, columns * rows - count if fits else 0, max(across / down, down / across)

    columns = min(range(1, count + 1), key=cost)
    return columns, -(-count // columns)


def write_sheet(path, painter, latents, batch, image_format, titles=()):
    """All of latents (w [1, num_ws, w_dim] each) on one contact sheet, row by row; empty places stay white.

    titles: what each column shows; empty: pictures are put in as many columns as make a sheet

    The processes of torchrun draw a row each; the main one writes.
    """
    import numpy as np
    import torch

    from torch_utils import distributed

    if (world := distributed.world_size()) > 1:
        distributed.init(str(latents[0].device))
    rank = distributed.rank()
    columns, rows = (len(titles), -(-len(latents) // len(titles))) if titles else sheet_shape(len(latents), painter.width, painter.height)
    width, height = columns * painter.width, rows * painter.height
    image_io.check_size(image_format, width, height)
    expect_disk(width * height * painter.channels, path.parent)
    held_rows = 1 if image_format in image_io.STREAMED else rows
    expect_memory(held_rows * columns * painter.bytes, ', draw fewer images or leave out --grid')

    def drawn(row):
        band = np.full((painter.height, columns, painter.width, painter.channels), 255, np.uint8)
        some = latents[row * columns:(row + 1) * columns]
        for first in range(0, len(some), batch):
            pictures = painter.whole(torch.cat(some[first:first + batch]))
            band[:, first:first + len(pictures)] = pictures.swapaxes(0, 1)
        return band.reshape(painter.height, width, painter.channels)

    def bands():
        for first in range(0, rows, world):
            mine = drawn(min(first + rank, rows - 1))  # a process without a row repeats the last
            if world == 1:
                yield mine
                continue
            mine = torch.from_numpy(mine).to(latents[0].device)
            for source in range(min(world, rows - first)):
                yield distributed.broadcast_(mine.clone(), source).cpu().numpy()

    if distributed.is_main():
        image_io.write(path, bands(), width, height, painter.channels, image_format)
        of_columns = f'; columns: {", ".join(titles)}' if titles else ''
        print(f'{path}  {columns} x {rows} images of {painter.width}x{painter.height}{of_columns}')
    else:
        collections.deque(bands(), maxlen=0)
    distributed.barrier()  # a group that another process still needs is not left
    distributed.shutdown()


if __name__ == '__main__':
    cli.run(main)
