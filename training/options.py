"""The sections of a configuration (config.py), whose fields made by `option` are the rows of train.py's options (`dnnlib.options`).

A new option is two places: such a field here, with a `default`, which files of older runs get, and the code that reads it. A `rule` gives a
default that depends on the data or the device; a preset sets it by its name. Needs no torch.
"""

import dataclasses
import typing
from dataclasses import dataclass

import click

from dnnlib import cli
from dnnlib.options import Option, option
from training import growing, plugins

POSITIVE, SHARE, COUNT = cli.FiniteRange(min=0, min_open=True), cli.FiniteRange(0, 1), click.IntRange(min=1)
WINDOW_LABEL_DIM = 9  # numbers that D gets beside the labels where it judges windows, see windows.label
PIPES = {  # groups of `augment.TRANSFORMS`
    'blit': ('blit',), 'geom': ('geom',), 'color': ('color',), 'filter': ('filter',), 'noise': ('noise',), 'cutout': ('cutout',),
    'bg': ('blit', 'geom'), 'bgc': ('blit', 'geom', 'color'), 'bgcf': ('blit', 'geom', 'color', 'filter'),
    'bgcfn': ('blit', 'geom', 'color', 'filter', 'noise'), 'bgcfnc': ('blit', 'geom', 'color', 'filter', 'noise', 'cutout'),
}  # fmt: skip
SLOW_MAPPING = 0.01  # learning rate of the mapping network relative to the rest of G (Karras et al. 2019, appendix C)
PRECISIONS = ('auto', 'fp32', 'fp16', 'bf16')


@dataclass(frozen=True)
class NewRun:
    """What the rules of options look at. row: the preset's, for this resolution; batch: with --batch in it; gpu: whether it runs on one."""

    row: dict
    resolution: int
    batch: int
    gpu: bool


@dataclass(frozen=True)
class DataConfig:
    """The data set. images: without flips; label_dim: 0 for an unconditional run; subset: None uses all images.

    resolution: R of the images, see data.shapes; size: their [width, height] where these are no squares of R pixels, else None
    class_sizes: images of each class, without flips; None where they are not known, as in older files
    """

    path: str
    digest: str
    resolution: int
    channels: int
    images: int
    label_dim: int = option('Train with the labels of the data.', name='cond', shown='without', as_option=bool)
    classes: list[str] | None
    mirror: bool = option('Double the data by x-flips.', shown='preset')
    subset: int | None = option('Train on so many of the images.', COUNT, shown='all')
    res: int | None = option('Size to train at, of pictures of any size and shape: they are cut to squares and shrunk as they are read.',
                             click.IntRange(16, 1024), default=None, shown='that of the images', metavar='N')
    size: list[int] | None = None
    class_balance: float = option('Show images of small classes more often: 0.5 makes a class count as the square root of its size, 1 all '
                                  'classes the same.', SHARE, default=0.0, shown='0', resume=True)
    class_sizes: list[int] | None = None

    @property
    def sides(self) -> tuple[int, int]:
        """(width, height) of the images."""
        return tuple(self.size or [self.resolution] * 2)

    def of_size(self) -> dict:
        """What constructors of networks are told of it, nothing for squares."""
        return {'img_size': self.size} if self.size else {}


@dataclass(frozen=True, kw_only=True)
class GeneratorConfig:
    """half_res: blocks in half precision, counted from the highest; synthesis: what else its class takes as synthesis_kwargs.

    channel_base: None where the class has a rule of its own
    mapping_lr: the layers' weights are stored that many times smaller or larger, see layers.FullyConnectedLayer
    """

    class_name: str
    z_dim: int
    w_dim: int
    mapping_layers: int
    channel_base: int | None
    channel_max: int
    half_res: int
    conv_clamp: float | None
    synthesis: dict[str, typing.Any]
    mapping_lr: float = option("Learning rate of the mapping network's layers relative to the rest of G.", POSITIVE,
                               default=SLOW_MAPPING, shown='preset')


@dataclass(frozen=True, kw_only=True)
class DiscriminatorConfig:
    """mbstd_group: the most images in a group of the minibatch deviation; freeze: layers that do not train (FreezeD, arXiv 2002.10964)."""

    channel_base: int
    channel_max: int
    half_res: int
    conv_clamp: float | None
    mbstd_group: int
    class_name: str = 'training.networks.Discriminator'
    features: str = option('Let D judge the features of a pretrained network beside the pixels: far more is learned from each image.',
                           click.Choice(['none', 'efficientnet-lite1']), name='d_features', default='none', shown='preset')
    class_groups: bool = option('Fill the groups of the minibatch deviation with images of one class, with --cond: classes keep variety.',
                                default=False, shown='preset', resume=True)
    freeze: int = option("Keep D's first N layers, of the highest resolutions, as --init-from has them.", click.IntRange(min=0),
                         name='freeze_d', default=0, shown='0', metavar='N')


@dataclass(frozen=True)
class OptimizerConfig:
    """Adam before lazy regularization changes it. lr: one number, or {group: lr}."""

    lr: float | dict[str, float]
    betas: tuple[float, float]
    eps: float

    def scaled(self, interval: int) -> 'OptimizerConfig':
        """What runs with a penalty every `interval` steps: lr k/(k+1), betas^(k/(k+1)) (Karras et al. 2020, appendix B)."""
        share = interval / (interval + 1) if interval > 1 else 1.0
        lr = {group: lr * share for group, lr in self.lr.items()} if isinstance(self.lr, dict) else self.lr * share
        return OptimizerConfig(lr, (self.betas[0] ** share, self.betas[1] ** share), self.eps)

    def with_lr(self, lr: float) -> 'OptimizerConfig':
        """Another learning rate; groups keep their ratio to the largest."""
        if isinstance(self.lr, dict):
            largest = max(self.lr.values())
            return dataclasses.replace(self, lr={group: lr * value / largest for group, value in self.lr.items()})
        return dataclasses.replace(self, lr=lr)


@dataclass(frozen=True)
class OptimizersConfig:
    G: OptimizerConfig
    D: OptimizerConfig


LR = Option('lr', 'Learning rate of both networks; groups of G keep their ratio to the largest.', POSITIVE, 'preset', resume=True)


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """The intervals are in steps; 1 adds the penalty to every step."""

    gamma: float = option('R1 weight.', cli.FiniteRange(min=0), shown='preset', resume=True)
    r1_interval: int
    pl_weight: float
    g_reg_interval: int
    style_mixing: float = option('Chance of mixing two styles.', SHARE, name='mixing', shown='preset')
    features_weight: float = option("Share of the features' judgement in G's loss, with --d-features; that of the pixels is 1.",
                                    POSITIVE, name='d_features_weight', default=1.0, shown='1', resume=True)
    features_gamma: float = option('R1 weight on features, with --d-features.', cli.FiniteRange(min=0), name='d_features_gamma',
                                   default=20.0, shown='20', resume=True)
    instances: float = option('Let z say how each picture looks apart from its class, and D judge whether it does: weight of the distance '
                              'from that look, with --d-features.', cli.FiniteRange(min=0), default=0.0, shown='0: off')
    look_dim: int = option('Numbers of z that say how a picture looks, half of z at most, with --instances.', COUNT, default=64, shown='32')
    features_scale: float = option('Enlarge images so many times, up to 256 pixels, before their features are taken, with --d-features.',
                                   cli.FiniteRange(min=1), name='d_features_scale', default=1.0, shown='preset', resume=True)


@dataclass(frozen=True, kw_only=True)
class EmaConfig:
    """kimg: half-life; rampup: half-life at most this share of the images seen, None for no ramp."""

    kimg: float
    rampup: float | None


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """How it runs. width: what the preset's channels and w were multiplied by; metrics: '' for none."""

    cfg: str = option('Preset; the list is below.', cli.PresetName(plugins.presets))
    kimg: float = option('Total length in thousands of images, also when it is resumed; fractions are fine.', POSITIVE, shown='preset',
                         resume=True)
    batch: int = option('Images of a step, over all GPUs.', click.IntRange(1, 1 << 20), shown='preset')
    batch_gpu: int = option('Most images at once on a device; the rest of a batch is accumulated.', COUNT, resume=True,
                            shown='what fits into memory', rule=lambda new: new.batch)
    width: float = option('Factor for the channels of both networks and for w: 0.25 makes a preset fit a small machine.',
                          cli.FiniteRange(min=0, min_open=True, max=16), default=1.0, shown='1')
    seed: int = option('Seed of all that is random.', click.IntRange(0, 2 ** 32 - 1), shown='0', rule=lambda new: 0)
    tick: float = option('Thousands of images between lines.', POSITIVE, shown='4; on the CPU less', resume=True,
                         rule=lambda new: 4.0 if new.gpu else max(4 * new.batch / 1000, min(0.5, 1024 / new.resolution ** 2)))
    snap: int = option('Ticks between snapshots.', COUNT, shown='50; on the CPU 10', resume=True, rule=lambda new: 50 if new.gpu else 10)
    img_snap: int = option('Ticks between pictures.', COUNT, shown='10; on the CPU 4', resume=True, rule=lambda new: 10 if new.gpu else 4)
    keep_last: int = option('Snapshots to keep; 0 keeps all.', click.IntRange(min=0), shown='3', resume=True, rule=lambda new: 3)
    metrics: str = option(
        'Scores of the averaged G, such as fid5k,kid5k; calc_metrics.py --help lists them. The first decides which snapshot is kept as '
        "network-best; 'none' ends it.", cli.Parsed(lambda text: '' if text == 'none' else text), default='', shown='none', metavar='LIST',
        resume=True)
    metric_every: int = option('Score every N-th snapshot, and the last.', COUNT, default=1, shown='1', metavar='N', resume=True)
    workers: int = option(
        'Processes that load data; 0 loads in the main one, which on a CPU costs about 1% of a step.', click.IntRange(min=0),
        shown='3; on the CPU 0', resume=True, rule=lambda new: 3 if new.gpu else 0)
    precision: str = option(
        'Of the highest resolutions, bf16 also of the features that D judges; auto is fp16 on a GPU if the preset has it, bf16 on a CPU '
        'that multiplies it if D judges features, else fp32.', click.Choice(PRECISIONS), shown='auto')
    allow_tf32: bool = option('On a GPU: round the factors of float32 products to TF32, 10 bits.', default=False, shown='off', resume=True)
    cuda_graphs: bool = option('On one GPU: record the kernels of a step and replay them, where the run allows it.', default=True,
                               resume=True, shown='on')
    channels_last: bool | None = option("Keep D's activations in channels-last memory format.", default=None, resume=True,
                                        shown='on a CPU, and in half precision')


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
    whole: float = option('Share of whole pictures.', SHARE, default=0.5, shown='0.5', resume=True)
    ramp: float = option('Thousands of images in which the highest scale grows from 1.', cli.FiniteRange(min=0), name='scale_ramp',
                         default=0.0, shown='0')
    consistency: float = option('Weight of the distance of a generated window, averaged down, from the same place of the whole picture.',
                                cli.FiniteRange(min=0), default=0.0, shown='0', resume=True)
    anywhere: bool = option('Cut squares out of oblong pictures anywhere, not in the middle.', default=False, shown='off')
