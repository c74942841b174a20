"""What a run is and what it takes, in words: the effective recipe, parameters and disk."""

from dnnlib.util import UserError, format_bytes
from torch_utils import distributed
from training import clock, memory
from training.ada import KIMG, TARGET
from training.config import Config
from training.ema import ema_beta
from training.memory import Needs
from training.options import PIPES, AugmentConfig, DiscriminatorConfig, WindowsConfig

FEW_IMAGES = 5000  # below, D learns its images by heart within hundreds of kimg (Karras et al. 2020, figure 1)


def describe(config: Config, world_size: int = 1) -> str:
    """The recipe that really runs, a line each: what --dry-run and the start of log.txt show."""
    run, data, g, d, loss = config.run, config.data, config.generator, config.discriminator, config.loss
    at_once, group = config.images_at_once(world_size), config.mbstd_group(world_size)

    def adam(name: str, interval: int) -> str:
        set_to, runs = getattr(config.optimizers, name), config.optimizer(name)
        lr = ', '.join(f'{key} {value:.6g}' for key, value in runs.lr.items()) if isinstance(runs.lr, dict) else f'{runs.lr:.6g}'
        text = f'Adam, lr {lr}, betas {runs.betas[0]:.6g} {runs.betas[1]:.6g}, eps {runs.eps:g}'
        if interval == 1:
            return text
        return f'{text} (lr {set_to.lr}, betas {set_to.betas[0]:g} {set_to.betas[1]:g} scaled for a penalty interval of {interval})'

    def steps(interval: int) -> str:
        return 'in every step' if interval == 1 else f'every {interval} steps, weighted by {interval}'

    flips = ', and as many mirrored left to right (--no-mirror leaves them out)' if data.mirror else ''
    balance = f', small classes more often, with a balance of {data.class_balance:g}' if data.class_balance else ''
    D = '' if d.class_name == DiscriminatorConfig.class_name else f'{d.class_name}, '
    labels = f'{data.label_dim} classes or label values' if data.label_dim else 'none (unconditional)'
    path_length = f'weight {loss.pl_weight:g} {steps(loss.g_reg_interval)}' if loss.pl_weight else 'off'
    ramp = f', at most {config.ema.rampup:g} of the images seen' if config.ema.rampup is not None else ''
    half = f'{run.precision}' + (f', in the highest {g.half_res} (G) and {d.half_res} (D) resolutions' if g.half_res or d.half_res else '')
    half += ', and features' if config.features_kwargs()['half'] and d.features != 'none' else ''
    full = 'x'.join(map(str, data.sides)) if data.size else f'{data.resolution} pixels'
    grown = f'{config.grow.sizes} (size:kimg), then {full}; {config.grow.fade:g} kimg of fade-in'
    lines = {
        'preset': run.cfg,
        'data': f'{data.path}: {data.images:,} images{flips}{balance}, {"x".join(map(str, data.sides))}, {data.channels} channels',
        'labels': labels,
        'G': f'{g.class_name}, z {g.z_dim}, w {g.w_dim}, {g.mapping_layers} mapping layers, '
             f'channels {f"min({g.channel_base} / res, {g.channel_max})" if g.channel_base else f"{g.channel_max} at most"}'
             + (f', all widths times {run.width:g}' if run.width != 1 else ''),
        'G synthesis': ', '.join(f'{key}={value}' for key, value in g.synthesis.items()) or 'as the class has it',
        'D': f'{D}channels min({d.channel_base} / res, {d.channel_max}), minibatch groups of {group}'
             + (f', as many as a pass holds, in place of {d.mbstd_group}' if group != d.mbstd_group else '')
             + (', each of one class or group of classes' if min(group, config.class_group) > 1 else '')
             + (f', the first {d.freeze} layers frozen' if d.freeze else ''),
        'precision': half + (', float32 in TF32 on a GPU' if run.allow_tf32 else ''),
        'G optimizer': adam('G', loss.g_reg_interval),
        'D optimizer': adam('D', loss.r1_interval),
        'loss': f'non-saturating logistic; R1 gamma {loss.gamma:.6g} {steps(loss.r1_interval)}; path length {path_length}; '
                f'style mixing {loss.style_mixing:g}',
        'augment': augmentation(config.augment),
        'EMA': f'half-life {config.ema.kimg:g} kimg ({ema_beta(run.batch, config.ema.kimg, None, 0):.6g} a step){ramp}',
        'batch': f'{run.batch}: {world_size} process(es), {run.batch // world_size // at_once} pass(es) of {at_once}',
        **({'growing': grown} if config.grow.sizes else {}),
        **({'windows': windows(config.windows)} if config.windows.on else {}),
        'length': f'{run.kimg:g} kimg, a tick every {run.tick:g} kimg, a snapshot every {run.snap} ticks, pictures every {run.img_snap}',
        'seed': str(run.seed),
    }
    if advice := small_data(config):
        lines['few images'] = advice
    return '\n'.join(f'{name + ":":13}{text}' for name, text in lines.items())


def windows(config: WindowsConfig) -> str:
    """Which parts of pictures D judges."""
    ramp = f', the highest growing from 1 in {config.ramp:g} kimg' if config.ramp else ''
    weight = f'; distance from the whole picture weighted with {config.consistency:g}' if config.consistency else ''
    return f'{config.whole:.0%} whole pictures, the others at scales {config.scale_min:g} to {config.scale_max:g}{ramp}{weight}'


def augmentation(augment: AugmentConfig) -> str:
    """What happens to images before D judges them."""
    chance = {'noaug': '', 'fixed': f', each with chance {augment.p}',
              'ada': f', each with chance p: {augment.p or 0:g} at first, then as it keeps r_t, the mean sign of D(real), at '
                     f'{augment.target or TARGET:g}; from 0 to 1 in {augment.ada_kimg or KIMG:g} kimg at most'}[augment.kind]
    return f'{", ".join(PIPES[augment.pipe])}{chance}' if chance else 'none'


def small_data(config: Config) -> str:
    """What may help a run on few images and is not done yet, '' for nothing."""
    chosen = [text for text, missing in (('--aug=ada', config.augment.kind == 'noaug'), ('--mirror', not config.data.mirror)) if missing]
    if config.data.images >= FEW_IMAGES or not chosen:
        return ''
    return f'D may learn {config.data.images:,} by heart: try {", ".join(chosen)} and a gamma of several times {config.loss.gamma:g}'


def parameter_counts(counts: dict[str, int]) -> str:
    """The line of parameter counts of G and D."""
    return f'{"parameters:":13}' + ', '.join(f'{name} {count:,}' for name, count in counts.items())


def costs(settings: Config, needed: Needs, memory: str) -> str:
    """What --dry-run adds to the recipe: parameter counts, the line of `memory.fit`, and the disk that snapshots take."""
    pair = 2 * needed.weights['G'] + needed.weights['D'] + 2 * sum(needed.weights.values())
    kept = f'the last {settings.run.keep_last} are kept' if settings.run.keep_last else 'all are kept'
    macs = ', '.join(f'{name} {macs / 1e9:.4g} GMAC' for name, macs in needed.macs.items())
    lines = {'an image': f'{macs} (multiply-accumulates, forward)', 'disk': f'{format_bytes(pair)} a snapshot; {kept}'}
    image, disk = (f'{name + ":":13}{text}' for name, text in lines.items())
    return '\n'.join([parameter_counts(needed.parameters), image, memory, disk])


def print_plan(settings: Config, device: str, world_size: int, chosen: bool, loaded: list[str]) -> None:
    """What --dry-run prints; the arguments are those of `memory.fit`, and what `transfer.check` says.

    Raises UserError, after the recipe, for what does not fit.
    """
    needed, problem = memory.needs(settings), None
    try:
        settings, line = memory.fit(settings, needed, device, world_size, chosen)
    except UserError as err:
        problem, line = err, 'memory:      does not fit'
    distributed.print0('\n'.join([describe(settings, world_size), costs(settings, needed, line), *loaded]))
    if problem:
        raise problem
    seconds, images = clock.timed_pass(settings, device, world_size)
    seconds *= settings.run.batch / world_size / images * clock.mean_step_cost(settings, 0) / clock.phase_costs(needed.macs)['G']
    distributed.print0(f'{"time:":13}{clock.estimate(settings, seconds, settings.run.kimg * 1000)}, from one pass on {device}')
