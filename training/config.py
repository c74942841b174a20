"""What a run is: one tree of frozen dataclasses, made from a preset's row and the options given, checked in one place.

Needs no torch. The networks' constructor arguments and what lazy regularization makes of the optimizers are derived here and nowhere else.
"""

import dataclasses
import json
import math
import typing
from dataclasses import dataclass

from dnnlib.util import UserError, suggest

ROW_KEYS = {
    'summary': 'one line for --help', 'source': 'where the numbers come from', 'cost': 'what a run takes',
    'G': 'class name of the generator', 'z_dim': 'numbers in z', 'w_dim': 'numbers in w', 'mapping_layers': 'of the mapping network',
    'g_channel_base': 'G has min(base / resolution, max) channels; None: as its class has it, up to max', 'g_channel_max': '',
    'synthesis': 'further synthesis_kwargs of G; those of KNOBS that stand here can be given as options',
    'd_channel_base': 'the same for D', 'd_channel_max': '', 'mbstd_group': 'images in a group of the minibatch deviation',
    'g_fp16_res': "G's blocks in half precision, counted from the highest", 'd_fp16_res': 'the same for D',
    'conv_clamp': 'limit of activations in half precision', 'batch': 'images of a step', 'kimg': 'length of the run',
    'g_lr': 'or {group: lr} of G.parameter_groups()', 'd_lr': '', 'betas': "Adam's", 'eps': "Adam's",
    'gamma': "R1 weight in gamma/2 |grad|^2, or 'auto': 0.0002 resolution^2 / batch",
    'r1_interval': 'steps between R1 penalties; 1: in every step', 'g_reg_interval': 'the same for the path-length penalty',
    'pl_weight': 'weight of the path-length penalty', 'style_mixing': 'chance of mixing two styles',
    'ema_kimg': "half-life of the average of G, or 'auto': batch 10/32, or {'decay': in one step}",
    'ema_rampup': 'half-life at most this share of the images seen',
    'mirror': 'whether x-flips double the data',
}
# Options of train.py that replace what a row's `synthesis` says, and other keys of a row; and what --width multiplies.
KNOBS = ('decoder', 'fmm_rank', 'squash', 'noise', 'coord_skips', 'equalized_lr', 'pixel_norm')
WITHOUT_FMM = ('basic', 'hyper', 'fourier')
ROW_OPTIONS = {'batch': 'batch', 'mixing': 'style_mixing'}
WIDTHS = ('w_dim', 'g_channel_base', 'g_channel_max', 'd_channel_base', 'd_channel_max')
RESUMABLE = ('kimg', 'batch_gpu', 'gamma', 'lr', 'tick', 'snap', 'img_snap', 'workers', 'keep_last', 'metrics',
             'metric_every', 'allow_tf32', 'channels_last')  # may change when a run is resumed
AUGMENTATIONS = ('noaug', 'ada', 'fixed')  # none; p as r_t asks for; p as given
PRECISIONS = ('auto', 'fp32', 'fp16', 'bf16')
RESOLUTIONS = tuple(2 ** k for k in range(4, 11))


@dataclass(frozen=True)
class DataConfig:
    """The data set. images: without flips; label_dim: 0 for an unconditional run; subset: None uses all images."""

    path: str
    digest: str
    resolution: int
    channels: int
    images: int
    label_dim: int
    classes: list[str] | None
    mirror: bool
    subset: int | None


@dataclass(frozen=True)
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


@dataclass(frozen=True)
class DiscriminatorConfig:
    """mbstd_group: the most images in a group of the minibatch deviation."""

    channel_base: int
    channel_max: int
    half_res: int
    conv_clamp: float | None
    mbstd_group: int


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


@dataclass(frozen=True)
class OptimizersConfig:
    G: OptimizerConfig
    D: OptimizerConfig


@dataclass(frozen=True)
class LossConfig:
    """The intervals are in steps; 1 adds the penalty to every step."""

    gamma: float
    r1_interval: int
    pl_weight: float
    g_reg_interval: int
    style_mixing: float


@dataclass(frozen=True)
class EmaConfig:
    """kimg: half-life; rampup: half-life at most this share of the images seen, None for no ramp."""

    kimg: float
    rampup: float | None


@dataclass(frozen=True)
class AugmentConfig:
    """kind: of AUGMENTATIONS;  pipe: a name in augment.PIPES;  p: chance of each transform, for ada at the start

    target: mean sign of D's logits of real images that ada holds
    """

    kind: str = 'noaug'
    pipe: str = 'bgc'
    p: float = 0.0
    target: float = 0.6


@dataclass(frozen=True)
class RunConfig:
    """kimg: total; batch_gpu: most images at once on a device; tick: kimg; snap, img_snap: ticks; keep_last: snapshots, 0 keeps all.

    width: what the preset's channels and w were multiplied by; metrics: names with commas between, '' for none; metric_every: snapshots
    allow_tf32: for float32 on a GPU; channels_last: how D's activations lie, None: on a CPU and in half precision
    """

    cfg: str
    seed: int
    kimg: float
    batch: int
    batch_gpu: int
    tick: float
    snap: int
    img_snap: int
    keep_last: int
    workers: int
    precision: str
    width: float = 1.0
    metrics: str = ''
    metric_every: int = 1
    allow_tf32: bool = False
    channels_last: bool | None = None


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

    def optimizer(self, network: str) -> OptimizerConfig:
        """The Adam that really runs for 'G' or 'D'."""
        return getattr(self.optimizers, network).scaled(self.loss.g_reg_interval if network == 'G' else self.loss.r1_interval)

    def images_at_once(self, world_size: int) -> int:
        """Images of one pass on one device: the largest share of a step's batch that is no more than batch_gpu."""
        share = self.run.batch // world_size
        return max(n for n in range(1, share + 1) if share % n == 0 and n <= self.run.batch_gpu)

    def mbstd_group(self, world_size: int) -> int:
        """Images in a group of the minibatch deviation that really runs: a group must fit into one pass."""
        at_once = self.images_at_once(world_size)
        return max(n for n in range(1, at_once + 1) if at_once % n == 0 and n <= self.discriminator.mbstd_group)

    def generator_kwargs(self) -> dict:
        """Constructor arguments of the generator."""
        g, data = self.generator, self.data
        synthesis = {'channel_max': g.channel_max, 'num_fp16_res': g.half_res, 'conv_clamp': g.conv_clamp}
        if g.channel_base is not None:
            synthesis['channel_base'] = g.channel_base
        if self.run.precision == 'bf16' and g.half_res:
            synthesis['half_dtype'] = 'bfloat16'
        return dict(z_dim=g.z_dim, c_dim=data.label_dim, w_dim=g.w_dim, img_resolution=data.resolution, img_channels=data.channels,
                    mapping_kwargs={'num_layers': g.mapping_layers}, synthesis_kwargs={**synthesis, **g.synthesis})

    def discriminator_kwargs(self, world_size: int) -> dict:
        """Constructor arguments of the discriminator."""
        d, data = self.discriminator, self.data
        half = {'fp16_channels_last': self.run.channels_last is not False} if d.half_res else {}
        if d.half_res and self.run.precision == 'bf16':
            half['half_dtype'] = 'bfloat16'
        return dict(c_dim=data.label_dim, img_resolution=data.resolution, img_channels=data.channels, channel_base=d.channel_base,
                    channel_max=d.channel_max, num_fp16_res=d.half_res, conv_clamp=d.conv_clamp, block_kwargs=half,
                    epilogue_kwargs={'mbstd_group_size': self.mbstd_group(world_size)})


# ---- From a preset's row and the options given


def at_resolution(value, resolution: int):
    """The entry that a rule {lowest resolution: value} has for a resolution; any other value as it is."""
    if not (isinstance(value, dict) and value and all(isinstance(key, int) for key in value)):
        return value
    fitting = [lowest for lowest in value if lowest <= resolution]
    if not fitting:
        raise UserError(f'resolution {resolution} is below the lowest that this preset has a rule for, {min(value)}')
    return value[max(fitting)]


def build(name: str, row: dict, data: DataConfig, device: str = 'cpu', **given) -> Config:
    """The configuration of a new run.

    name, row: a preset and its name
    device:    'cpu' or 'cuda': half precision and the length of a tick follow it where nothing is given
    given:     options of train.py (kimg, batch, batch_gpu, gamma, lr, seed, tick, snap, img_snap, keep_last, workers, precision, width,
               mixing, metrics, metric_every, allow_tf32, channels_last and KNOBS); None means as the preset says
    Raises UserError for misspelt or missing keys, options that are not the preset's and values out of range.
    """
    check_keys(row, ROW_KEYS, f'preset {name!r}')
    given = {key: value for key, value in given.items() if value is not None}
    row = {key: at_resolution(value, data.resolution) for key, value in row.items()}
    row['synthesis'] = _synthesis(name, row['synthesis'], {key: given.pop(key) for key in KNOBS if key in given})
    row.update({key: given.pop(option) for option, key in ROW_OPTIONS.items() if option in given})
    width = given.pop('width', 1.0)
    least = {key: 4 * data.resolution if key.endswith('base') else 8 for key in WIDTHS}  # four channels at the highest resolution, else 8
    row.update({key: max(round(row[key] * width), min(row[key], least[key])) for key in WIDTHS if row[key] is not None})
    batch = row['batch']
    gamma = 0.0002 * data.resolution ** 2 / batch if row['gamma'] == 'auto' else row['gamma']
    precision, halves = _precision(given.pop('precision', 'auto'), row, device)
    gpu = device.startswith('cuda')
    run = RunConfig(
        cfg=name, seed=given.pop('seed', 0), kimg=row['kimg'], batch=batch, batch_gpu=batch,
        tick=4.0 if gpu else max(4 * batch / 1000, min(0.5, 1024 / data.resolution ** 2)),
        snap=50 if gpu else 10, img_snap=10 if gpu else 4, keep_last=3, workers=3 if gpu else 0, precision=precision, width=width)
    config = Config(
        data=data,
        generator=GeneratorConfig(row['G'], row['z_dim'], row['w_dim'], row['mapping_layers'], row['g_channel_base'], row['g_channel_max'],
                                  halves['g'], row['conv_clamp'] if halves['g'] else None, row['synthesis']),
        discriminator=DiscriminatorConfig(row['d_channel_base'], row['d_channel_max'], halves['d'],
                                          row['conv_clamp'] if halves['d'] else None, row['mbstd_group']),
        optimizers=OptimizersConfig(G=OptimizerConfig(row['g_lr'], tuple(row['betas']), row['eps']),
                                    D=OptimizerConfig(row['d_lr'], tuple(row['betas']), row['eps'])),
        loss=LossConfig(gamma, row['r1_interval'], row['pl_weight'], row['g_reg_interval'], row['style_mixing']),
        ema=EmaConfig(_half_life(row['ema_kimg'], batch), row['ema_rampup']),
        run=run)
    return override(config, **given)


def _synthesis(name: str, synthesis: dict, given: dict) -> dict:
    """A row's `synthesis` with what is given for KNOBS in place of its own, as JSON will hold it (keys are words)."""
    for key in given:
        if key not in synthesis:
            known = [f'--{knob.replace("_", "-")}' for knob in KNOBS if knob in synthesis]
            raise UserError(f'--{key.replace("_", "-")} is no option of --cfg={name}. Of its kind there '
                            + (f'are {", ".join(known)}' if known else 'is none'))
    result = {**synthesis, **given}
    if 'fmm_rank' in given and result.get('decoder') in WITHOUT_FMM:
        raise UserError(f'--fmm-rank has no effect with --decoder={result["decoder"]}: fmm and multiscale have FMM')
    if 'squash' in given and result['fmm_rank'] is None:
        raise UserError(f'--squash has no effect with --cfg={name}, which has no FMM: --fmm-rank=N gives it one')
    return json.loads(json.dumps(result))


def _half_life(value, batch: int) -> float:
    """Half-life of the average in kimg from what a row says, see ROW_KEYS."""
    if value == 'auto':
        return batch * 10 / 32
    return batch / 1000 * math.log(0.5) / math.log(value['decay']) if isinstance(value, dict) else value


def _precision(asked: str, row: dict, device: str) -> tuple[str, dict[str, int]]:
    """The precision and the number of half-precision blocks of both networks.

    A row without any in G has them where bf16 is asked for; fp16's narrower range is for the row to risk.
    """
    if asked not in PRECISIONS:
        raise UserError(f'precision {asked!r}: choose one of {", ".join(PRECISIONS)}')
    if asked == 'auto':
        asked = 'fp16' if device.startswith('cuda') and (row['g_fp16_res'] or row['d_fp16_res']) else 'fp32'
    if asked == 'fp32':
        return asked, {'g': 0, 'd': 0}
    return asked, {'g': row['g_fp16_res'] or (4 if asked == 'bf16' else 0), 'd': row['d_fp16_res'] or 4}


def override(config: Config, **given) -> Config:
    """The configuration with some of the RESUMABLE options replaced (None: left alone), checked.

    lr: replaces the learning rate of both networks; groups keep their ratio to the largest
    """
    given = {key: value for key, value in given.items() if value is not None}
    check_keys(given, RESUMABLE, 'options', complete=False)
    if (lr := given.pop('lr', None)) is not None:
        config = dataclasses.replace(config, optimizers=OptimizersConfig(
            G=_with_lr(config.optimizers.G, lr), D=_with_lr(config.optimizers.D, lr)))
    if (gamma := given.pop('gamma', None)) is not None:
        config = dataclasses.replace(config, loss=dataclasses.replace(config.loss, gamma=gamma))
    config = dataclasses.replace(config, run=dataclasses.replace(config.run, **given))
    validate(config)
    return config


def _with_lr(optimizer: OptimizerConfig, lr: float) -> OptimizerConfig:
    if isinstance(optimizer.lr, dict):
        largest = max(optimizer.lr.values())
        return dataclasses.replace(optimizer, lr={group: lr * value / largest for group, value in optimizer.lr.items()})
    return dataclasses.replace(optimizer, lr=lr)


def validate(config: Config) -> None:
    """Raises UserError for a configuration that cannot run. What a line on the command line may say is checked there already."""
    run, data, loss = config.run, config.data, config.loss
    rates = [rate for name in ('G', 'D') for rate in _rates(getattr(config.optimizers, name).lr)]
    for fine, text in (
        (data.resolution in RESOLUTIONS, f'{data.path} holds {data.resolution}x{data.resolution} images; training takes '
            f'{", ".join(map(str, RESOLUTIONS))}: python dataset_tool.py convert SOURCE DEST.zip --resolution=N'),
        (data.channels in (1, 3, 4), f'{data.path} has {data.channels} channels; training takes 1, 3 or 4'),
        (0 <= run.seed < 2 ** 32, f'--seed={run.seed}: 0 to 4294967295'),
        (run.batch >= 1, f'--batch={run.batch}: at least 1'),
        (run.batch_gpu >= 1, f'--batch-gpu={run.batch_gpu}: at least 1'),
        (run.kimg > 0, f'--kimg={run.kimg}: more than 0'),
        (run.tick > 0, f'--tick={run.tick}: more than 0 (thousands of images)'),
        (run.snap >= 1 and run.img_snap >= 1, f'--snap={run.snap} --img-snap={run.img_snap}: at least 1 tick'),
        (run.keep_last >= 0 and run.workers >= 0, f'--keep-last={run.keep_last} --workers={run.workers}: 0 or more'),
        (run.metric_every >= 1, f'--metric-every={run.metric_every}: at least 1 snapshot'),
        (all(math.isfinite(rate) and rate > 0 for rate in rates), f'learning rates {rates}: more than 0'),
        (math.isfinite(loss.gamma) and loss.gamma >= 0, f'--gamma={loss.gamma}: 0 or more'),
        (loss.r1_interval >= 1 and loss.g_reg_interval >= 1, f'intervals {loss.r1_interval} and {loss.g_reg_interval}: at least 1 step'),
        (loss.pl_weight >= 0, f'pl_weight {loss.pl_weight}: 0 or more'),
        (0 <= loss.style_mixing <= 1, f'style_mixing {loss.style_mixing}: a chance, 0 to 1'),
        (config.ema.kimg >= 0, f'ema_kimg {config.ema.kimg}: 0 or more'),
    ):
        if not fine:
            raise UserError(text)


def check_processes(config: Config, world_size: int) -> None:
    """Raises UserError when a step's batch cannot be dealt out evenly to the processes."""
    if config.run.batch % world_size:
        raise UserError(f'--batch={config.run.batch} cannot be split over {world_size} processes: give a multiple of {world_size}')


def check_keys(given, known, where: str, complete: bool = True) -> None:
    """Raises UserError for a key that is not known, with the nearest that is, and for one that is missing."""
    for key in given:
        if key not in known:
            raise UserError(f'{where}: {key!r} is not known.{suggest(str(key), known)} Known: {", ".join(known)}')
    missing = [key for key in known if key not in given]
    if complete and missing:
        raise UserError(f'{where}: {missing[0]!r} is missing')


def _rates(lr) -> list[float]:
    return list(lr.values()) if isinstance(lr, dict) else [lr]
