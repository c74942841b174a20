"""Find the w whose image is nearest to a given one, by StyleGAN2's procedure (INR-GAN, Figs. 10 and 11)."""

import time

import click

from dnnlib import cli, image_io
from dnnlib.util import UserError, format_time

VIDEO_FRAMES = 600
CLASS_SAMPLES = 1000


@click.command(context_settings={'show_default': True})
@click.option('--network', metavar='FILE|URL|DIR',
              help='Snapshot to project into.  [default: the newest under training-runs/, else a bundled one]')
@click.option('--target', metavar='FILE', help="Image to find.  [default: the first of the network's own data set]")
@click.option('--mask', metavar='FILE', help='Fit only where this image is white; cut and resized as the target is.')
@click.option('--num-steps', type=click.IntRange(1), metavar='N', default=1000, help='Steps of the search; 200 give a first impression.')
@click.option('--space', type=click.Choice(['w', 'w+']), default='w',
              help='One w for all layers, or one for each: nearer to the target, less like a trained image.')
@click.option('--distance', default='auto', metavar='NAME',
              help='auto, lpips-vgg (downloads 528 MiB once), lpips-vgg:FOLDER, efficientnet-lite0 or pixels.')
@click.option('--noise-maps', is_flag=True, help='Optimize the noise maps of a StyleGAN2 network too.')
@click.option('--class', 'class_text', metavar='INDEX|NAME',
              help="Class to project into, or group of classes of which the nearest is "
              "taken.  [default: the image's own, else the one whose mean is nearest]")
@click.option('--save-video', is_flag=True, help='Write the search as projection.mp4.')
@click.option('--outdir', metavar='DIR', default='out/projection', help='Folder to write to; made if it is not there.')
@click.option('--seed', type=click.IntRange(0, 2**32 - 1), metavar='N', default=303, help='Of the noise on w while the search is young.')
@click.option('--device', metavar='NAME', default='auto', help='cpu, cuda, cuda:1; auto takes a GPU if there is one.')
def main(network, target, mask, num_steps, space, distance, noise_maps, class_text, save_video, outdir, seed, device):
    """Find the image of a trained generator that is nearest to a given one, and its code w.

    Writes target.png, projection.png, side_by_side.png, distance.png, distance.csv and projected_w.npz, which
    generate.py --projected-w draws at any size. Ctrl-C writes what has been found so far.

    \b
    python projector.py --target=photo.jpg
    python projector.py --target=photo.jpg --mask=face.png --space=w+ --outdir=out/face
    """
    from pathlib import Path

    import torch

    from inference import opening, projection, targets, video
    from metrics import perceptual
    from torch_utils.misc import pick_device, size_of
    from torch_utils.pixels import from_uint8

    if save_video and not video.has_mp4():
        raise UserError('--save-video needs imageio-ffmpeg, which is not installed: pip install imageio-ffmpeg, or leave the option out')
    G, meta = opening.open_network(network, pick_device(device))
    device = next(G.parameters()).device
    if noise_maps and not any(name.endswith('noise_const') for name, _ in G.synthesis.named_buffers()):
        raise UserError('--noise-maps: this network has none; leave the option out')
    if target is None:
        wanted, own_label = targets.first_of_data_set(meta['dataset'], size_of(G), G.img_channels, G.c_dim)
    else:
        wanted, own_label = targets.read_target(target, size_of(G), G.img_channels), None
    mask_pixels = None if mask is None else targets.read_mask(mask, size_of(G))
    metric, reason = perceptual.choose(distance)
    print(f'Distance {metric.name} ({reason})' + (', which does not look at alpha' if G.img_channels == 4 else ''))
    comparison = Comparison(G, from_uint8(torch.tensor(wanted.transpose(2, 0, 1))[None]).to(device), mask_pixels, metric.to(device))

    label = choose_class(G, class_text, own_label, meta['dataset']['classes'], comparison)
    start, deviation = projection.w_statistics(G.mapping, G.z_dim, label)
    options = projection.Options(steps=num_steps, space=space, noise_maps=noise_maps)
    result = Result(Path(outdir), comparison, start.expand(-1, G.num_ws, -1), f' --network={network}' if network else '')
    search = projection.project(G.synthesis, start, deviation, comparison.wanted, metric.embed, options, comparison.mask, seed,
                                comparison.draw)
    finished = follow(search, result, num_steps)
    result.write(noise_maps)
    if save_video:
        result.write_video()
    return None if finished else 130


# ---- What to find


def choose_class(G, text, own, names, comparison):
    """The label to project with: of the class asked for or the nearest of that group, else the target's own, else of the nearest class.

    None without classes. The nearest class is that of the nearest mean.
    """
    import torch

    from inference import latents

    if text is None and isinstance(own, str):
        text = own
    group = latents.classes_of_group(text, names or [])
    if text is not None and not group or not G.c_dim:
        label = latents.class_label(G, text, names)
    elif own is None or group:
        label = nearest_class(G, comparison, group or range(G.c_dim))
    else:
        label = latents.class_label(G, None, numbers=own)
    if label is not None and torch.equal(label, latents.one_hot(G, index := int(label.argmax()))):
        print(f'Class {index}' + (f', {names[index]}' if names else ''))
    elif label is not None:
        print('Label ' + ','.join(f'{number:g}' for number in label[0].tolist()))
    return label


def nearest_class(G, comparison, classes):
    """The label of that of `classes`, numbers, whose mean w draws the image nearest to the target."""
    from tqdm import tqdm

    from inference import latents, projection

    distances = []
    for index in tqdm(classes, desc='nearest class', disable=None, leave=False):
        mean, _deviation = projection.w_statistics(G.mapping, G.z_dim, latents.one_hot(G, index), samples=CLASS_SAMPLES)
        distances.append(comparison.distance(mean.expand(-1, G.num_ws, -1)))
    return latents.one_hot(G, classes[distances.index(min(distances))])


class Comparison:
    """What the search compares: the part of the picture that the mask counts, drawn and wanted.

    A generator of `inr` draws that part alone, so that a small part costs little.

    G:      generator;  metric: distance of images
    target: [1, C, H, W] in [-1, 1]
    mask:   bool [H, W], True where the target counts; None: everywhere
    `wanted` [1, C, h, w] and `mask` [1, 1, h, w] (None: all of it counts) are cut to the part.
    """

    def __init__(self, G, target, mask, metric):
        import torch

        from inference import painter, targets

        self.G, self.target, self.metric = G, target, metric
        self.box = targets.box_of(mask) if mask is not None else (slice(None), slice(None))
        self.wanted, self.mask, self.levels = target[..., *self.box], None, None
        if mask is not None:
            if not mask[self.box].all():
                self.mask = torch.from_numpy(mask[self.box]).to(target)[None, None]
            if self.wanted.shape != target.shape:
                self.levels = painter.points_in(G, self.box)
        if self.levels is not None:
            print(f'Drawing only {self.wanted.shape[3]}x{self.wanted.shape[2]} of the {target.shape[3]}x{target.shape[2]} pixels')

    def draw(self, ws):
        """ws [1, num_ws, w_dim] -> the part [1, C, h, w], with gradients."""
        if self.levels is not None:
            return self.G.synthesis.draw(ws, self.levels, force_fp32=True)
        return self.G.synthesis(ws, noise_mode='const', force_fp32=True)[..., *self.box]

    def distance(self, ws):
        """The distance of what ws draws to the target, where the mask counts it; a float."""
        import torch

        from inference import projection

        with torch.no_grad():
            image = self.draw(ws)
            pair = (image, self.wanted) if self.mask is None else projection.composite(image, self.wanted, self.mask)
            return self.metric(*pair).item()


def draw(G, ws):
    """ws [1, num_ws, w_dim] -> the whole image [1, C, H, W]."""
    import torch

    with torch.no_grad():
        return G.synthesis(ws, noise_mode='const', force_fp32=True)


# ---- The search and what it leaves


def follow(search, result, num_steps):
    """Run the search with a progress bar, or a line every tenth where there is no terminal. Returns whether it ran to its end."""
    from tqdm import tqdm

    started = time.monotonic()
    try:
        with tqdm(search, total=num_steps, desc='project', unit='step', disable=None) as bar:
            for step in bar:
                result.add(step)
                bar.set_postfix_str(f'distance {step.distance:.4g}', refresh=False)
                if bar.disable and (step.index + 1) % max(num_steps // 10, 1) == 0:
                    left = (time.monotonic() - started) / (step.index + 1) * (num_steps - step.index - 1)
                    print(f'step {step.index + 1} of {num_steps}: distance {step.distance:.4g}, {format_time(left)} left', flush=True)
    except KeyboardInterrupt:
        if not result.distances:
            raise
        print(f'Interrupted after {len(result.distances)} of {num_steps} steps: writing what was found')
        return False
    finally:
        search.close()
    return True


class Result:
    """What a search has found so far, and the files it becomes."""

    def __init__(self, outdir, comparison, start, network_option):
        outdir.mkdir(parents=True, exist_ok=True)
        self.network_option = network_option
        self.outdir, self.comparison, self.G, self.target = outdir, comparison, comparison.G, comparison.target
        self.first_distance = comparison.distance(start)
        self.distances, self.path = [], []

    def add(self, step):
        """Keep a step: its distance, and its w for the video."""
        self.distances.append(step.distance)
        self.path.append(step.ws.cpu())

    @property
    def ws(self):
        return self.path[-1].to(self.target.device)

    def write(self, noise_maps):
        """All files but the video. noise_maps: whether the generator's noise maps are part of what was found"""
        import csv

        import numpy as np

        from dnnlib.util import atomic_path
        from inference.latents import save_projection
        from torch_utils.pixels import to_uint8

        target, projection = (to_uint8(x)[0] for x in (self.target, draw(self.G, self.ws)))
        image_io.write_array(self.outdir / 'target.png', target)
        image_io.write_array(self.outdir / 'projection.png', projection)
        image_io.write_array(self.outdir / 'side_by_side.png', np.concatenate([target, projection], axis=1))
        image_io.write_array(self.outdir / 'distance.png', curve(self.distances, f'distance: {self.comparison.metric.name}'))
        with atomic_path(self.outdir / 'distance.csv') as temporary, open(temporary, 'w', newline='') as file:
            csv.writer(file).writerows([('step', 'distance'), *enumerate(self.distances)])
        maps = {name: x for name, x in self.G.synthesis.named_buffers() if noise_maps and name.endswith('noise_const')}
        with atomic_path(self.outdir / 'projected_w.npz') as temporary:
            save_projection(temporary, self.ws, maps, self.G)
        last = self.comparison.distance(self.ws)
        print(f'Distance ({self.comparison.metric.name}): {self.first_distance:.4g} at the mean w -> {last:.4g} '
              f'after {len(self.distances)} steps')
        print(f'{self.outdir}/target.png projection.png side_by_side.png distance.png distance.csv projected_w.npz')
        print(f'Draw it at any size: python generate.py{self.network_option} --projected-w={self.outdir}/projected_w.npz --res=2048')

    def write_video(self):
        """The search from its start as an MP4, target on the left."""
        import numpy as np

        from inference.sheets import enlarged
        from inference.video import write_if_possible
        from torch_utils.pixels import to_uint8

        def frames():
            for ws in self.path[::-(-len(self.path) // VIDEO_FRAMES)]:
                pair = np.concatenate([to_uint8(x)[0] for x in (self.target, draw(self.G, ws.to(self.target.device)))], axis=1)
                yield enlarged(pair, 512)

        write_if_possible(self.outdir / 'projection.mp4', frames())


def curve(values, title, width=640, height=360):
    """A line plot on a logarithmic axis: values [N] > 0 over their index, as uint8 [height, width, 3]."""
    import numpy as np
    from PIL import Image, ImageDraw

    left, top, right, bottom = 60, 30, width - 15, height - 30
    logs = np.log10(np.maximum(values, 1e-12))
    low, high = logs.min(), max(logs.max(), logs.min() + 0.05)

    def at(index, log):
        return left + (right - left) * index / max(len(values) - 1, 1), bottom - (bottom - top) * (log - low) / (high - low)

    image = Image.new('RGB', (width, height), 'white')
    pen = ImageDraw.Draw(image)
    pen.text((left, 8), title, fill='black')
    for log in np.linspace(low, high, 5):
        y = at(0, log)[1]
        pen.line([(left, y), (right, y)], fill=(220, 220, 220))
        pen.text((6, y - 6), f'{10**log:.3g}', fill='black')
    for index in np.linspace(0, len(values) - 1, 5).round():
        pen.text((at(index, low)[0] - 10, bottom + 8), f'{index:.0f}', fill='black')
    pen.line([(left, top), (left, bottom), (right, bottom)], fill='black')
    pen.line([at(index, log) for index, log in enumerate(logs)], fill=(30, 90, 200), width=2)
    return np.asarray(image)


if __name__ == '__main__':
    cli.run(main)
