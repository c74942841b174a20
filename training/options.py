"""Parts of a configuration that a run may do without: augmentation, growing, windows. A field is an option's row, as in config.py."""

from dataclasses import dataclass

import click

from dnnlib import cli
from dnnlib.options import option
from training import growing

POSITIVE, SHARE, COUNT = cli.FiniteRange(min=0, min_open=True), cli.FiniteRange(0, 1), click.IntRange(min=1)
WINDOW_LABEL_DIM = 9  # numbers that D gets beside the labels where it judges windows, see windows.label
PIPES = {  # groups of `augment.TRANSFORMS`
    'blit': ('blit',), 'geom': ('geom',), 'color': ('color',), 'filter': ('filter',), 'noise': ('noise',), 'cutout': ('cutout',),
    'bg': ('blit', 'geom'), 'bgc': ('blit', 'geom', 'color'), 'bgcf': ('blit', 'geom', 'color', 'filter'),
    'bgcfn': ('blit', 'geom', 'color', 'filter', 'noise'), 'bgcfnc': ('blit', 'geom', 'color', 'filter', 'noise', 'cutout'),
}  # fmt: skip


@dataclass(frozen=True)
class AugmentConfig:
    """What is done to images before D judges them."""

    kind: str = option('Augment what D judges, against few images learned by heart: with chance --p, or as much as D needs (ada).',
                       click.Choice(['noaug', 'ada', 'fixed']), name='aug', default='noaug', shown='noaug', resume=True)
    pipe: str = option('Groups of augmentations: pixel blitting, geometry, colour, filter, noise, cutout.', click.Choice(list(PIPES)),
                       name='augpipe', default='bgc', shown='bgc', resume=True)
    p: float | None = option('Chance of each augmentation, with --aug=ada at the start.', SHARE, default=None, shown='0 with ada',
                             resume=True)
    target: float | None = option("Mean sign of D's logits of real images that --aug=ada holds; more allows more overfitting.",
                                  cli.FiniteRange(0, 1, min_open=True, max_open=True), default=None, shown='0.6', resume=True)
    ada_kimg: float | None = option('Thousands of images in which the p of --aug=ada can go from 0 to 1.', POSITIVE, default=None,
                                    shown='500', resume=True)


@dataclass(frozen=True)
class GrowConfig:
    """sizes: '' for a run that does not grow. See training.growing."""

    sizes: str = option('Train on smaller images first: 16:20,32:80 is 20 kimg of 16x16, 80 of 32x32, then full size; none does not grow.',
                        cli.Parsed(growing.checked), name='grow', default='', shown='preset', metavar='SIZE:KIMG,...')
    fade: float = option('Thousands of images in which a larger size is blended in.', cli.FiniteRange(min=0), default=4.0, shown='preset')

    def stage(self, full: int, images: int) -> growing.Stage | None:
        """The stage after `images` images of a run at `full` pixels; None for one that does not grow."""
        return growing.stage_at(self.sizes, self.fade, full, images) if self.sizes else None


@dataclass(frozen=True)
class WindowsConfig:
    """See training.windows."""

    on: bool = option('Learn from windows of pictures in their own size too, at scales drawn at random.', name='windows', default=False,
                      shown='off')
    scale_min: float = option('Lowest scale of windows; 2: of pictures twice --res.', cli.FiniteRange(min=1), default=1.0, shown='1')
    scale_max: float | None = option('Highest one.', cli.FiniteRange(min=1), default=None, shown='what half of the pictures have')
    whole: float = option('Share of whole pictures.', SHARE, default=0.5, shown='0.5')
    ramp: float = option('Thousands of images in which the highest scale grows from 1.', cli.FiniteRange(min=0), name='scale_ramp',
                         default=0.0, shown='0')
    consistency: float = option('Weight of the distance of a generated window, averaged down, from the same place of the whole picture.',
                                cli.FiniteRange(min=0), default=0.0, shown='0', resume=True)
    anywhere: bool = option('Cut squares out of oblong pictures anywhere, not in the middle.', default=False, shown='off')
