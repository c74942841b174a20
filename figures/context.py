"""What a figure is of, the options that say so, and drawing from any generator."""

import functools
import json
import time
from pathlib import Path

import click

from dnnlib import cli
from dnnlib.util import UserError, atomic_path
from inference import WHOLE
from training.data import RESOLUTIONS
from training.plugins import build_generator, presets


def figure(seeds):
    """A click command with the options all figures share, as a decorator; the function gets a FigureContext in their place.

    seeds: the default of --seeds
    """
    def decorate(command):
        @click.option('--network', metavar='FILE|URL|DIR', help='Snapshot.  [default: the newest under training-runs/, else a bundled one]')
        @click.option('--cfg', type=cli.PresetName(presets), help='A preset in place of a network, with its weights as they start.')
        @click.option('--res', type=click.Choice([str(res) for res in RESOLUTIONS]), help='Training resolution for --cfg.  [default: 256]')
        @click.option('--seeds', type=cli.Seeds(), default=seeds, help='Images by number, such as 0-7,12.')
        @click.option('--class', 'class_text', metavar='INDEX|NAME', help='Class to draw, or group of classes to draw from in '
                      'turn.  [default: seed N draws class N, in turn]')
        @click.option('--outdir', type=Path, default='out/figures', help='Folder for the picture and the numbers.')
        @click.option('--device', metavar='NAME', default='auto', help='cpu, cuda, cuda:1; auto takes a GPU if there is one.')
        @functools.wraps(command)
        def wrapped(network, cfg, res, seeds, class_text, outdir, device, **options):
            if network and cfg:
                raise UserError('--network and --cfg: both say what to look at; give one of them')
            if res and not cfg:
                raise UserError('--res is the training resolution of a preset: give --cfg with it')
            return command(FigureContext(network, cfg, int(res or 256), seeds, class_text, outdir, device), **options)

        return click.command(context_settings={'show_default': True})(wrapped)
    return decorate


class FigureContext:
    """What a figure is of: a generator, the seeds to draw, and where to write."""

    def __init__(self, network, cfg, res, seeds, class_text, outdir, device):
        from inference import opening
        from torch_utils.misc import pick_device

        self.seeds, self.class_text, self.outdir, self.cfg, self.res = seeds, class_text, outdir, cfg, res
        self.device = pick_device(device)
        if cfg:
            self.name, self.meta = f'{cfg} at {res}, untrained', {'dataset': {'classes': None}}
            return
        self.G, self.meta = opening.open_network(network, self.device)
        self.name = f'{self.meta["cfg"]}, {self.meta["kimg"]:g} kimg'

    @functools.cached_property
    def settings(self):
        """The configuration of --cfg, for RGB images without classes."""
        from training import config

        data = config.DataConfig('none.zip', '', self.res, 3, 1, 0, None, False, None)
        return config.build(self.cfg, presets()[self.cfg], data)

    @functools.cached_property
    def G(self):
        """The generator; that of a preset is only built where it is drawn from."""
        import torch

        torch.manual_seed(0)
        return built(self.settings).to(self.device)

    def need_inr(self, what):
        """Raises UserError for a generator that does not draw by points."""
        from inference.painter import draws_by_points

        if not draws_by_points(self.G):
            raise UserError(f'{what} needs a generator of inr; this is a {type(self.G).__module__}.{type(self.G).__name__}')

    def label(self, seed):
        """The label of a seed, [1, c_dim], or None."""
        from inference import latents

        return latents.label_of_seed(self.G, seed, self.class_text, self.meta['dataset']['classes'])

    def ws(self, seed, psi=1.0):
        """w of a seed, [1, num_ws, w_dim]."""
        from inference import latents

        return latents.latents_of(self.G, seed, self.label(seed), psi)

    def picture(self, ws, size=None, window=WHOLE, refine=None):
        """uint8 [size, size, C], see inference.painter.picture."""
        from inference.painter import picture

        return picture(self.G, ws, size, window, refine)

    def path(self, name):
        """A file in the folder to write to, which is made if it is not there."""
        self.outdir.mkdir(parents=True, exist_ok=True)
        return self.outdir / name

    def write(self, name, picture, numbers):
        """Writes NAME.png, a Pillow image, a matplotlib figure or None, and NAME.json; `numbers` is a list or gets what it is of."""
        if isinstance(numbers, dict):
            numbers = {'network': self.name, 'seeds': self.seeds, **numbers}
        with atomic_path(self.path(f'{name}.json')) as temporary:
            temporary.write_text(json.dumps(numbers, indent=2, allow_nan=False))
        path = self.path(f'{name}.png')
        with atomic_path(path) as temporary:
            if hasattr(picture, 'savefig'):
                picture.savefig(temporary, format='png', dpi=120)
            else:
                picture.save(temporary, format='PNG')
        print(f'{path} and {name}.json, of {self.name}')


def built(settings):
    """The generator of a configuration, in eval mode. Raises UserError where it does not fit into memory."""
    from training import memory

    needed = memory.needs(settings)
    if needed.weights['G'] > memory.SHARE * memory.free_bytes('cpu'):
        raise UserError(f'--cfg={settings.run.cfg}: its generator takes {needed.weights["G"] / 2**30:.1f} GiB, more than is free')
    return build_generator(settings).eval().requires_grad_(False)


def unbuilt(settings):
    """The generator of a configuration as shapes alone, on the meta device."""
    import torch

    with torch.device('meta'):
        return build_generator(settings)


def measured(context, G, size, times=3):
    """Median seconds of drawing one picture of size x size, resizing included, after one that is not counted."""
    import torch

    from inference.painter import picture

    ws, taken = torch.zeros([1, G.num_ws, G.w_dim], device=context.device), []
    for _ in range(times + 1):
        begin = time.perf_counter()
        picture(G, ws, size)
        taken.append(time.perf_counter() - begin)
    return sorted(taken[1:])[times // 2]


def axes(title, xlabel, ylabel):
    """(matplotlib figure, axes) that need no display."""
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(8, 5), layout='constrained')
    plot = drawn.subplots()
    plot.set(title=title, xlabel=xlabel, ylabel=ylabel)
    return drawn, plot
