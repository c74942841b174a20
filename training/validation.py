"""What a configuration must satisfy, wherever it comes from: command line, preset or file."""

import math

from dnnlib.options import kept, rows
from dnnlib.util import UserError
from training import growing, plugins
from training.data import RESOLUTIONS, shapes
from training.options import SLOW_MAPPING


def validate(config) -> None:
    """Raises UserError for a `config.Config` that cannot run: every option by its row, and what is no option."""
    data, loss = config.data, config.loss
    for row in rows(type(config)):
        row.check(kept(config, row.place))
    for network, name in (('G', config.generator.class_name), ('D', config.discriminator.class_name)):
        plugins.check_class_name(name, f'the configuration of {network}')
    rates = [rate for name in ('G', 'D') for lr in [getattr(config.optimizers, name).lr]
             for rate in (lr.values() if isinstance(lr, dict) else [lr])]
    gap = growing.missing_size(config.grow.sizes, data.resolution) if config.grow.fade else None
    for fine, text in (
        (data.resolution in RESOLUTIONS and data.size is None or data.res is None and _is_size(data.size, data.resolution),
            f'--res={data.res}: give one of {", ".join(map(str, RESOLUTIONS))}' if data.res else
            f'{data.path} holds {"x".join(map(str, data.sides))} images; training takes {shapes.WORDS}: '
            'python dataset_tool.py convert SOURCE DEST.zip --resolution=N'),
        (data.channels in (1, 3, 4), f'{data.path} has {data.channels} channels; training takes 1, 3 or 4'),
        (all(math.isfinite(rate) and rate > 0 for rate in rates), f'learning rates {rates}: more than 0'),
        (loss.r1_interval >= 1 and loss.g_reg_interval >= 1, f'intervals {loss.r1_interval} and {loss.g_reg_interval}: at least 1 step'),
        (loss.pl_weight >= 0, f'pl_weight {loss.pl_weight}: 0 or more'),
        (all(size < data.resolution for size, _ in growing.smaller_sizes(config.grow.sizes)),
            f'--grow={config.grow.sizes}: sizes below the {data.resolution} pixels of {data.path}'
            + (f', whose images of {"x".join(map(str, data.sides))} halve as squares of that side do' if data.size else '')),
        (gap is None, f'--grow={config.grow.sizes}: {2 * (gap or 0)} pixels are blended in from {gap}, which is missing: name it too, or '
            '--fade=0'),
        (all(1 <= size <= 1 << 20 for size in (config.generator.z_dim, config.generator.w_dim, config.generator.channel_max,
                                               config.discriminator.channel_base, config.discriminator.channel_max)),
            'sizes of latents and numbers of channels: 1 to 2^20'),
        (0 <= config.generator.mapping_layers <= 1000, f'{config.generator.mapping_layers} mapping layers: 0 to 1000'),
        (config.generator.mapping_lr == SLOW_MAPPING or not isinstance(config.optimizers.G.lr, dict),
            f'--mapping-lr={config.generator.mapping_lr:g}: --cfg={config.run.cfg} has learning rates of its own for the parts of G'),
        (not config.loss.instances or config.discriminator.features != 'none',
            '--instances needs --d-features, whose features say how pictures look'),
        (not config.loss.instances or config.generator.z_dim >= 2, '--instances needs a z of 2 numbers or more'),
        (not config.loss.instances or config.generator.synthesis.get('periodic', 'none') == 'none',
            '--instances with --periodic: fakes take the windows of real pictures, which end at their edges; leave one of them out'),
        (min(config.generator.half_res, config.discriminator.half_res) >= 0, 'a number of blocks in half precision below 0'),
        (config.discriminator.mbstd_group >= 1, f'minibatch groups of {config.discriminator.mbstd_group}: at least 1 image'),
        (all(0 <= beta < 1 for adam in (config.optimizers.G, config.optimizers.D) for beta in adam.betas), 'betas of Adam: 0 to below 1'),
        (all(adam.eps >= 0 for adam in (config.optimizers.G, config.optimizers.D)), 'eps of Adam: 0 or more'),
        (not config.windows.on or data.res is not None, '--windows needs --res=N, the size of the windows and of the whole pictures'),
        (config.windows.on or config.generator.synthesis.get('periodic', 'none') == 'none',
            '--periodic needs --windows, so that D judges pictures wherever they begin; --whole=1 keeps them whole'),
        ((config.windows.scale_max or math.inf) >= config.windows.scale_min,
         f'--scale-min={config.windows.scale_min:g} is above the highest scale of windows, {config.windows.scale_max or 1:g}'),
        (config.ema.kimg >= 0, f'ema_kimg {config.ema.kimg}: 0 or more'),
        (config.augment.kind != 'fixed' or config.augment.p is not None, '--aug=fixed needs the chance of each augmentation, --p=0 to 1'),
        (not (config.discriminator.freeze and config.grow.sizes),
         f'--freeze-d={config.discriminator.freeze} keeps layers that --grow={config.grow.sizes} has yet to train: give --grow=none'),
        (config.discriminator.freeze <= (most := 3 * (max(data.resolution, 1).bit_length() - 1) - 5),
         f'--freeze-d={config.discriminator.freeze}: D has {most} layers above its last block at {"x".join(map(str, data.sides))}'),
    ):
        if not fine:
            raise UserError(text)


def _is_size(size: list[int] | None, resolution: int) -> bool:
    """Whether images of such a [width, height] have this R."""
    return size is not None and len(size) == 2 and shapes.resolution_of(*size) == resolution


def expect_augmentation(given: dict, kind: str) -> None:
    """Raises UserError for an option about augmentation that this kind of it does not look at."""
    for name, kinds in (('p', ('ada', 'fixed')), ('augpipe', ('ada', 'fixed')), ('target', ('ada',)), ('ada_kimg', ('ada',))):
        if given.get(name) is not None and kind not in kinds:
            raise UserError(f'--{name.replace("_", "-")}={given[name]} has no effect with --aug={kind}: it is for --aug='
                            + ' and --aug='.join(kinds))


NEEDED = {  # options, and what they have no effect without
    '--d-features': ('d_features_weight', 'd_features_gamma', 'd_features_scale', 'instances'),
    '--instances': ('look_dim',),
    '--windows': ('scale_min', 'scale_max', 'whole', 'scale_ramp', 'consistency', 'anywhere'),
}


NEEDING = tuple(name[2:].replace('-', '_') for name in NEEDED)  # the options that others need


def expect_needed(given: dict, features: str, instances: float, windows: bool) -> None:
    """Raises UserError for an option about features where D judges none, about looks or about windows where there are none."""
    for needed, there in (('--d-features', features != 'none'), ('--instances', instances > 0), ('--windows', windows)):
        for name in () if there else NEEDED[needed]:
            if given.get(name) is not None:
                raise UserError(f'--{name.replace("_", "-")} has no effect without {needed}')


def expect_classes(dataset) -> None:
    """Raises UserError for a data set whose classes groups cannot be made of. dataset: ImageDataset"""
    if not dataset.can_group:
        raise UserError(f'--class-groups: {dataset.path} has no classes that groups can be made of: that takes --cond and a single zip or '
                        'folder, where a label is a class; --no-class-groups goes without')


def check_processes(config, world_size: int) -> None:
    """Raises UserError when a step's batch cannot be dealt out evenly to the processes."""
    if config.run.batch % world_size:
        raise UserError(f'--batch={config.run.batch} cannot be split over {world_size} processes: give a multiple of {world_size}')
