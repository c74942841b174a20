"""What a run is: one tree of frozen dataclasses, made from a preset's row and the options given.

A field made by `option` is the row of an option of train.py (`dnnlib.options`). A new option is two places: such a field here, with a
`default`, which files of older runs get, and the code that reads it. A `rule` gives a default that depends on the data or the device; a
preset sets it by its name. Options of a folder beside this one, which land in synthesis_kwargs, have their rows there (`plugins`).

Needs no torch. The networks' constructor arguments and what lazy regularization makes of the optimizers are derived here and nowhere else.
"""

import dataclasses
import json
import math
import typing
from dataclasses import dataclass

import click

from dnnlib import cli
from dnnlib.options import Option, option, row_of, rows
from dnnlib.util import UserError, check_keys
from training import growing, plugins
from training.options import COUNT, POSITIVE, SHARE, WINDOW_LABEL_DIM, AugmentConfig, GrowConfig, WindowsConfig
from training.presets import ROW_KEYS, at_resolution, half_life
from training.validation import expect_augmentation, expect_needed, validate

WIDTHS = ('w_dim', 'g_channel_base', 'g_channel_max', 'd_channel_base', 'd_channel_max')  # what --width multiplies
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
    precision: str = option('Of the highest resolutions; auto is fp16 on a GPU if the preset has it, else fp32.', click.Choice(PRECISIONS),
                            shown='auto')
    allow_tf32: bool = option('On a GPU: round the factors of float32 products to TF32, 10 bits.', default=False, shown='off', resume=True)
    channels_last: bool | None = option("Keep D's activations in channels-last memory format.", default=None, resume=True,
                                        shown='on a CPU, and in half precision')


@dataclass(frozen=True)
class Config:
    data: DataConfig
    generator: GeneratorConfig
    discriminator: DiscriminatorConfig
    optimizers: OptimizersConfig
    loss: LossConfig
    ema: EmaConfig
    run: RunConfig
    augment: AugmentConfig = AugmentConfig()
    grow: GrowConfig = GrowConfig()
    windows: WindowsConfig = WindowsConfig()

    def optimizer(self, network: str) -> OptimizerConfig:
        """The Adam that really runs for 'G' or 'D'."""
        return getattr(self.optimizers, network).scaled(self.loss.g_reg_interval if network == 'G' else self.loss.r1_interval)

    def images_at_once(self, world_size: int) -> int:
        """Images of one pass on one device: the largest share of a step's batch that is no more than batch_gpu."""
        share = self.run.batch // world_size
        return max(n for n in range(1, min(share, self.run.batch_gpu) + 1) if share % n == 0)

    @property
    def class_group(self) -> int:
        """Images of one class in a group of a batch; 1: images are drawn without a look at classes."""
        d = self.discriminator
        return math.gcd(self.run.batch, d.mbstd_group) if d.class_groups and self.data.label_dim else 1

    def mbstd_group(self, world_size: int) -> int:
        """Images in a group of the minibatch deviation that really runs: a group must fit into one pass, and into one of a class."""
        at_once, most = self.images_at_once(world_size), self.discriminator.mbstd_group
        whole = self.class_group if self.class_group > 1 else 0  # any number divides 0
        return max(n for n in range(1, at_once + 1) if at_once % n == 0 and n <= most and whole % n == 0)

    def with_groups_of(self, world_size: int) -> 'Config':
        """The same with the groups that run with so many processes: with fewer, whose passes would hold larger ones, D stays what it is."""
        return dataclasses.replace(self, discriminator=dataclasses.replace(self.discriminator, mbstd_group=self.mbstd_group(world_size)))

    def generator_kwargs(self) -> dict:
        """Constructor arguments of the generator."""
        g, data = self.generator, self.data
        synthesis = {'channel_max': g.channel_max, 'num_fp16_res': g.half_res, 'conv_clamp': g.conv_clamp}
        if g.channel_base is not None:
            synthesis['channel_base'] = g.channel_base
        if self.run.precision == 'bf16' and g.half_res:
            synthesis['half_dtype'] = 'bfloat16'
        return dict(z_dim=g.z_dim, c_dim=data.label_dim, w_dim=g.w_dim, img_resolution=data.resolution, img_channels=data.channels,
                    mapping_kwargs={'num_layers': g.mapping_layers}, synthesis_kwargs={**synthesis, **g.synthesis}, **data.of_size())

    def discriminator_kwargs(self, world_size: int) -> dict:
        """Constructor arguments of the discriminator."""
        d, data = self.discriminator, self.data
        block = {'fp16_channels_last': self.run.channels_last is not False} if d.half_res else {}
        if d.half_res and self.run.precision == 'bf16':
            block['half_dtype'] = 'bfloat16'
        if d.freeze:
            block['freeze_layers'] = d.freeze
        c_dim = data.label_dim + (WINDOW_LABEL_DIM if self.windows.on else 0)
        return dict(c_dim=c_dim, img_resolution=data.resolution, img_channels=data.channels, channel_base=d.channel_base,
                    channel_max=d.channel_max, num_fp16_res=d.half_res, conv_clamp=d.conv_clamp, block_kwargs=block,
                    epilogue_kwargs={'mbstd_group_size': self.mbstd_group(world_size)},
                    **({} if d.features == 'none' else {'features': d.features}),
                    **({'entries': [size for size, _ in growing.smaller_sizes(self.grow.sizes)]} if self.grow.sizes else {}),
                    **data.of_size())


# ---- From a preset's row and the options given


def size_of_data(dataset) -> list[int] | None:
    """DataConfig.size of an ImageDataset."""
    return None if dataset.size[0] == dataset.size[1] else list(dataset.size)


OPTIONS = {row.name: row for row in (*rows(Config), LR)}


def build(name: str, row: dict, data: DataConfig, device: str = 'cpu', **given) -> Config:
    """The configuration of a new run.

    name, row: a preset and its name
    device:    'cpu' or 'cuda': half precision and the length of a tick follow it where nothing is given
    given:     OPTIONS and those of `plugins`; None means as the preset says
    Raises UserError for misspelt or missing keys, options that are not the preset's and values out of range.
    """
    knobs, own = plugins.knobs(), [key for key, option in OPTIONS.items() if not option.place.startswith('data.')]
    check_keys(row, (*ROW_KEYS, 'D', *own), f'preset {name!r}', needed=ROW_KEYS)
    row = {key: at_resolution(value, data.resolution) for key, value in row.items()}
    of_row = {key: value for key, value in row.items() if key in own and key not in ROW_KEYS}
    expect_augmentation(given, given.get('aug') or row.get('aug') or 'noaug')
    expect_needed(given, given.get('d_features') or row.get('d_features') or 'none', given.get('windows', row.get('windows', False)))
    given = {**of_row, **{key: value for key, value in given.items() if value is not None}}
    check_keys(given, (*own, *knobs), 'options')
    synthesis = _synthesis(name, row['synthesis'], {key: given.pop(key) for key in knobs if key in given}, knobs)
    least = {key: 4 * data.resolution if key.endswith('base') else 8 for key in WIDTHS}  # four channels at the highest resolution, else 8
    row.update({key: max(round(row[key] * given.get('width', 1.0)), min(row[key], least[key])) for key in WIDTHS if row[key] is not None})
    batch = given.get('batch', row['batch'])
    if row['gamma'] == 'auto':
        row['gamma'] = 0.0002 * math.prod(data.sides) / batch
    given['precision'], halves = _precision(given.get('precision', 'auto'), row, device)
    new = NewRun(row, data.resolution, batch, device.startswith('cuda'))
    lr, given['cfg'] = given.pop('lr', None), name
    config = Config(
        data=data,
        generator=_section(GeneratorConfig, new, given, class_name=row['G'], channel_base=row['g_channel_base'], synthesis=synthesis,
                           channel_max=row['g_channel_max'], half_res=halves['g'], conv_clamp=row['conv_clamp'] if halves['g'] else None),
        discriminator=_section(DiscriminatorConfig, new, given, class_name=row.get('D', _discriminator(given)),
                               channel_base=row['d_channel_base'], channel_max=row['d_channel_max'], half_res=halves['d'],
                               conv_clamp=row['conv_clamp'] if halves['d'] else None),
        optimizers=OptimizersConfig(G=OptimizerConfig(row['g_lr'], tuple(row['betas']), row['eps']),
                                    D=OptimizerConfig(row['d_lr'], tuple(row['betas']), row['eps'])),
        loss=_section(LossConfig, new, given),
        ema=_section(EmaConfig, new, given, kimg=half_life(row['ema_kimg'], batch), rampup=row['ema_rampup']),
        run=_section(RunConfig, new, given),
        augment=_section(AugmentConfig, new, given),
        grow=_section(GrowConfig, new, given),
        windows=_section(WindowsConfig, new, given))
    return override(config, lr=lr)


def _discriminator(given: dict) -> str:
    """The class name of the discriminator for these options."""
    return DiscriminatorConfig.class_name if given.get('d_features', 'none') == 'none' else 'training.projected.Discriminator'


def _section(cls: type, new: NewRun, given: dict, **fixed):
    """A dataclass of the configuration: a field is what is `fixed`, else given as an option, else the preset's, its rule's, its default."""
    for field in dataclasses.fields(cls):
        option = row_of(field)
        if field.name in fixed:
            continue
        if option and option.name in given:
            fixed[field.name] = given[option.name]
        elif field.name in new.row:
            fixed[field.name] = new.row[field.name]
        elif option and option.rule:
            fixed[field.name] = option.rule(new)
    return cls(**fixed)


def _synthesis(name: str, synthesis: dict, given: dict, knobs: dict[str, dict]) -> dict:
    """A row's `synthesis` with the options given in place of its own, as JSON will hold it (keys are words)."""
    def flag(key):
        return '--' + key.replace('_', '-')

    for key in given:
        if key not in synthesis:
            known = [flag(knob) for knob in knobs if knob in synthesis]
            raise UserError(f'{flag(key)} is no option of --cfg={name}. Of its kind there '
                            + (f'are {", ".join(known)}' if known else 'is none'))
    result = {**synthesis, **given}
    for key in given:
        if (reason := knobs[key].get('unused', lambda synthesis: None)(result)) is not None:
            raise UserError(f'{flag(key)} has no effect with --cfg={name}: {reason}')
    return json.loads(json.dumps(result))


def _precision(asked: str, row: dict, device: str) -> tuple[str, dict[str, int]]:
    """The precision and the number of half-precision blocks of both networks.

    A row without any in G has them where bf16 is asked for; fp16's narrower range is for the row to risk.
    """
    if asked == 'auto':
        asked = 'fp16' if device.startswith('cuda') and (row['g_fp16_res'] or row['d_fp16_res']) else 'fp32'
    if asked == 'fp32':
        return asked, {'g': 0, 'd': 0}
    return asked, {'g': row['g_fp16_res'] or (4 if asked == 'bf16' else 0), 'd': row['d_fp16_res'] or 4}


def override(config: Config, **given) -> Config:
    """The configuration with some of the options that may change on resuming replaced (None: left alone), checked."""
    given = {key: value for key, value in given.items() if value is not None}
    expect_augmentation(given, given.get('aug', config.augment.kind))
    expect_needed(given, config.discriminator.features, config.windows.on)
    check_keys(given, [name for name, row in OPTIONS.items() if row.resume], 'options')
    if (lr := given.pop('lr', None)) is not None:
        LR.check(lr)
        config = dataclasses.replace(config, optimizers=OptimizersConfig(config.optimizers.G.with_lr(lr), config.optimizers.D.with_lr(lr)))
    for name, value in given.items():
        section, field = OPTIONS[name].place.split('.')
        config = dataclasses.replace(config, **{section: dataclasses.replace(getattr(config, section), **{field: value})})
    validate(config)
    return config
