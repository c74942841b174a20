"""What a run is and what it takes, in words: the effective recipe, parameters, memory and disk."""

import torch

from dnnlib.util import construct_class_by_name, format_bytes
from training.config import Config


def describe(config: Config, world_size: int = 1) -> str:
    """The recipe that really runs, a line each: what --dry-run and the start of log.txt show."""
    run, data, g, d, loss = config.run, config.data, config.generator, config.discriminator, config.loss
    at_once = config.images_at_once(world_size)

    def adam(name: str, interval: int) -> str:
        set_to, runs = getattr(config.optimizers, name), config.optimizer(name)
        lr = ', '.join(f'{key} {value:.6g}' for key, value in runs.lr.items()) if isinstance(runs.lr, dict) else f'{runs.lr:.6g}'
        text = f'Adam, lr {lr}, betas {runs.betas[0]:.6g} {runs.betas[1]:.6g}, eps {runs.eps:g}'
        if interval == 1:
            return text
        return f'{text} (lr {set_to.lr}, betas {set_to.betas[0]:g} {set_to.betas[1]:g} scaled for a penalty interval of {interval})'

    def steps(interval: int) -> str:
        return 'in every step' if interval == 1 else f'every {interval} steps, weighted by {interval}'

    flips = ', and their mirror images' if data.mirror else ''
    labels = f'{data.label_dim} classes or label values' if data.label_dim else 'none (unconditional)'
    path_length = f'weight {loss.pl_weight:g} {steps(loss.g_reg_interval)}' if loss.pl_weight else 'off'
    ramp = f', at most {config.ema.rampup:g} of the images seen' if config.ema.rampup is not None else ''
    half = f'{run.precision}' + (f', in the highest {g.half_res} (G) and {d.half_res} (D) resolutions' if g.half_res or d.half_res else '')
    lines = {
        'preset': run.cfg,
        'data': f'{data.path}: {data.images:,} images{flips}, {data.resolution}x{data.resolution}, {data.channels} channels',
        'labels': labels,
        'G': f'{g.class_name}, z {g.z_dim}, w {g.w_dim}, {g.mapping_layers} mapping layers, '
             f'channels min({g.channel_base} / res, {g.channel_max})',
        'G synthesis': ', '.join(f'{key}={value}' for key, value in g.synthesis.items()) or 'as the class has it',
        'D': f'channels min({d.channel_base} / res, {d.channel_max}), minibatch groups of {config.mbstd_group(world_size)}',
        'precision': half,
        'G optimizer': adam('G', loss.g_reg_interval),
        'D optimizer': adam('D', loss.r1_interval),
        'loss': f'non-saturating logistic; R1 gamma {loss.gamma:.6g} {steps(loss.r1_interval)}; path length {path_length}; '
                f'style mixing {loss.style_mixing:g}',
        'EMA': f'half-life {config.ema.kimg:g} kimg{ramp}',
        'batch': f'{run.batch}: {world_size} process(es), {run.batch // world_size // at_once} pass(es) of {at_once}',
        'length': f'{run.kimg:g} kimg, a tick every {run.tick:g} kimg, a snapshot every {run.snap} ticks, pictures every {run.img_snap}',
        'seed': str(run.seed),
    }
    return '\n'.join(f'{name + ":":13}{text}' for name, text in lines.items())


def parameter_counts(networks: dict[str, torch.nn.Module]) -> str:
    """The line of parameter counts of G and D."""
    counts = {name: sum(p.numel() for p in networks[name].parameters()) for name in ('G', 'D')}
    return f'{"parameters:":13}' + ', '.join(f'{name} {count:,}' for name, count in counts.items())


def saved_bytes(G: torch.nn.Module, D: torch.nn.Module) -> tuple[int, int]:
    """Bytes of activations that G's and D's backward pass keep for one image, by running both on one image on the CPU in float32."""
    found = []
    z, c = torch.zeros([1, G.z_dim]), torch.zeros([1, G.c_dim])
    for network in (lambda: G(z, c), lambda: D(torch.zeros([1, G.img_channels, G.img_resolution, G.img_resolution]), c)):
        kept: dict[int, int] = {}

        def keep(tensor, kept=kept):
            if not isinstance(tensor, torch.nn.Parameter):
                kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            network()
        found.append(sum(kept.values()))
    return found[0], found[1]


def costs(settings: Config, world_size: int = 1) -> str:
    """Parameter counts, and estimates of memory and disk: the lines that --dry-run adds to the recipe.

    Memory is weights, gradients, moments and average, plus the activations of the largest pass: G's main loss (G and D), or R1, whose
    second derivative keeps about three times what a plain pass of D does. Half precision is counted as float32.
    """
    G = construct_class_by_name(class_name=settings.generator.class_name, **settings.generator_kwargs())
    D = construct_class_by_name(class_name='training.networks.Discriminator', **settings.discriminator_kwargs(world_size))
    sizes = [sum(value.numel() for value in network.state_dict().values()) * 4 for network in (G, D)]
    of_G, of_D = saved_bytes(G, D)
    at_once = settings.images_at_once(world_size)
    memory = 5 * sizes[0] + 4 * sizes[1] + at_once * max(of_G + of_D, 3 * of_D)
    pair = 2 * sizes[0] + sizes[1] + 2 * sum(sizes)
    kept = f'the last {settings.run.keep_last} are kept' if settings.run.keep_last else 'all are kept'
    return '\n'.join((
        parameter_counts({'G': G, 'D': D}),
        f'{"memory:":13}about {format_bytes(memory)} on each device, besides PyTorch itself (estimated for passes of {at_once})',
        f'{"disk:":13}{format_bytes(pair)} a snapshot; {kept}',
    ))
