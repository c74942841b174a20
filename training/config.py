"""What a run is: one tree of frozen dataclasses, made from a preset's row and the options given.

What it consists of, and an option of train.py with it, is in options.py. Options of a folder beside this one, which land in
synthesis_kwargs, have their rows there (`plugins`).

Needs no torch. The networks' constructor arguments and what lazy regularization makes of the optimizers are derived here and nowhere else.
"""

import dataclasses
import json
import math
from dataclasses import dataclass

from dnnlib.options import row_of, rows
from dnnlib.util import UserError, check_keys
from training import growing, plugins
from training.options import (
    LR,
    SLOW_MAPPING,
    WINDOW_LABEL_DIM,
    AugmentConfig,
    DataConfig,
    DiscriminatorConfig,
    EmaConfig,
    GeneratorConfig,
    GrowConfig,
    LossConfig,
    NewRun,
    OptimizerConfig,
    OptimizersConfig,
    RunConfig,
    WindowsConfig,
)
from training.presets import ROW_KEYS, at_resolution, half_life
from training.validation import NEEDING, expect_augmentation, expect_needed, validate

WIDTHS = ('w_dim', 'g_channel_base', 'g_channel_max', 'd_channel_base', 'd_channel_max')  # what --width multiplies


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

    @property
    def look_dim(self) -> int:
        """How many numbers of z say how a picture looks (training.instances)."""
        return min(self.loss.look_dim, self.generator.z_dim // 2) if self.loss.instances else 0

    def generator_kwargs(self) -> dict:
        """Constructor arguments of the generator."""
        g, data = self.generator, self.data
        synthesis = {'channel_max': g.channel_max, 'num_fp16_res': g.half_res, 'conv_clamp': g.conv_clamp}
        if g.channel_base is not None:
            synthesis['channel_base'] = g.channel_base
        if self.run.precision == 'bf16' and g.half_res:
            synthesis['half_dtype'] = 'bfloat16'
        mapping = {'num_layers': g.mapping_layers, **({} if g.mapping_lr == SLOW_MAPPING else {'lr_multiplier': g.mapping_lr})}
        return dict(z_dim=g.z_dim, c_dim=data.label_dim, w_dim=g.w_dim, img_resolution=data.resolution, img_channels=data.channels,
                    mapping_kwargs=mapping, synthesis_kwargs={**synthesis, **g.synthesis}, **data.of_size())

    def features_kwargs(self) -> dict:
        """Arguments of the features that D judges, `pretrained.FrozenFeatures`, after their name."""
        return dict(enlarge=self.loss.features_scale, half=self.run.precision == 'bf16')

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
                    **({'look_dim': self.look_dim} if self.look_dim else {}),
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
    device:    'cpu' or 'cuda': half precision and the length of a tick follow it where nothing is given (bf16 on a CPU: starting.py)
    given:     OPTIONS and those of `plugins`; None means as the preset says
    Raises UserError for misspelt or missing keys, options that are not the preset's and values out of range.
    """
    knobs, own = plugins.knobs(), [key for key, option in OPTIONS.items() if not option.place.startswith('data.')]
    check_keys(row, (*ROW_KEYS, 'D', *own), f'preset {name!r}', needed=ROW_KEYS)
    row = {key: at_resolution(value, data.resolution) for key, value in row.items()}
    of_row = {key: value for key, value in row.items() if key in own and key not in ROW_KEYS}
    expect_augmentation(given, given.get('aug') or row.get('aug') or 'noaug')
    asked = {**{name: row.get(name) for name in NEEDING}, **{name: value for name, value in given.items() if value is not None}}
    expect_needed(given, asked['d_features'] or 'none', asked['instances'] or 0, bool(asked['windows']))
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
    expect_needed(given, config.discriminator.features, config.loss.instances, config.windows.on)
    check_keys(given, [name for name, row in OPTIONS.items() if row.resume], 'options')
    if (lr := given.pop('lr', None)) is not None:
        LR.check(lr)
        config = dataclasses.replace(config, optimizers=OptimizersConfig(config.optimizers.G.with_lr(lr), config.optimizers.D.with_lr(lr)))
    for name, value in given.items():
        section, field = OPTIONS[name].place.split('.')
        config = dataclasses.replace(config, **{section: dataclasses.replace(getattr(config, section), **{field: value})})
    validate(config)
    return config
