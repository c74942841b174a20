"""Trains a GAN: python train.py --cfg=inr --data=ffhq.zip. Everything else follows from the preset's row and the data."""

from pathlib import Path

import click

from dnnlib import cli
from dnnlib.util import UserError, fetch, optional
from training.config import KNOBS, PRECISIONS, Config, DataConfig, build, check_processes
from training.presets import PRESETS


def presets() -> dict[str, dict]:
    """All rows: training's, and inr's where that folder is there."""
    return {**PRESETS, **optional('inr.presets', 'PRESETS', {})}


def decoders() -> tuple[str, ...]:
    """What --decoder takes; nothing where inr is not there."""
    return optional('inr.presets', 'DECODERS', ())


def known_metrics(_ctx, _param, text: str | None) -> str | None:
    """--metrics, checked; '' for none."""
    if text is None or text == 'none':
        return text and ''
    from metrics.registry import parse_list

    parse_list(text)
    return text


def preset_list() -> str:
    """The end of --help: a paragraph for each preset."""
    return '\n\n'.join(f'{name}: {row["summary"]} ({row["cost"]})' for name, row in presets().items())


@click.command(context_settings={'show_default': True, 'max_content_width': 140}, epilog='Presets.\n\n' + preset_list())
@click.option('--cfg', type=cli.PresetName(presets), help='Preset; the list is below.')
@click.option('--data', metavar='PATH', help="Zip or folder of images that dataset_tool.py made, or 'demo'.")
@click.option('--outdir', type=Path, default='training-runs', help='Where the numbered run folders are.')
@click.option('--kimg', type=cli.FiniteRange(min=0, min_open=True), show_default='preset',
              help='Total length in thousands of images, also when it is resumed; fractions are fine.')
@click.option('--minutes', type=cli.FiniteRange(min=0, min_open=True), help='Stop, with a snapshot, after so long.',
              show_default='no limit')
@click.option('--batch', type=click.IntRange(min=1), help='Images of a step, over all GPUs.', show_default='preset')
@click.option('--batch-gpu', type=click.IntRange(min=1), show_default='what fits into memory',
              help='Most images at once on a device; the rest of a batch is accumulated.')
@click.option('--gamma', type=cli.FiniteRange(min=0), help='R1 weight.', show_default='preset')
@click.option('--lr', type=cli.FiniteRange(min=0, min_open=True), show_default='preset',
              help='Learning rate of both networks; groups of G keep their ratio to the largest.')
@click.option('--width', type=cli.FiniteRange(min=0, min_open=True, max=16), show_default='1',
              help="Factor for the channels of both networks and for w: 0.25 makes a preset fit a small machine.")
@click.option('--decoder', type=cli.PresetName(decoders), help="Rung of the paper's Table 4, for --cfg=paper.", show_default='preset')
@click.option('--fmm-rank', type=cli.Rank(), help='Rank of FMM; 1 is squeeze-and-excitation, full a hypernetwork.', show_default='preset')
@click.option('--squash', type=click.Choice(['demod', 'tanh', 'sigmoid']), help="FMM's squash, for --cfg=inr.", show_default='preset')
@click.option('--noise/--no-noise', default=None, help='Spatial noise, for --cfg=inr.', show_default='preset')
@click.option('--coord-skips/--no-coord-skips', default=None, show_default='preset',
              help='Coordinates for every layer of a block, or for its first alone.')
@click.option('--mixing', type=cli.FiniteRange(0, 1), help='Chance of mixing two styles.', show_default='preset')
@click.option('--equalized-lr/--no-equalized-lr', default=None, help='Equalized learning rates in G.', show_default='preset')
@click.option('--pixel-norm/--no-pixel-norm', default=None, help='Scale z to mean square 1.', show_default='preset')
@click.option('--seed', type=click.IntRange(0, 2 ** 32 - 1), help='Seed of all that is random.', show_default='0')
@click.option('--cond/--no-cond', default=None, help='Train with the labels of the data.', show_default='without')
@click.option('--mirror/--no-mirror', default=None, help='Double the data by x-flips.', show_default='preset')
@click.option('--subset', type=click.IntRange(min=1), help='Train on so many of the images.', show_default='all')
@click.option('--tick', type=cli.FiniteRange(min=0, min_open=True), show_default='4; on the CPU less',
              help='Thousands of images between lines.')
@click.option('--snap', type=click.IntRange(min=1), help='Ticks between snapshots.', show_default='50; on the CPU 10')
@click.option('--img-snap', type=click.IntRange(min=1), help='Ticks between pictures.', show_default='10; on the CPU 4')
@click.option('--keep-last', type=click.IntRange(min=0), help='Snapshots to keep; 0 keeps all.', show_default='3')
@click.option('--metrics', metavar='LIST', callback=known_metrics, show_default='none',
              help='Scores of the averaged G, such as fid5k,kid5k; calc_metrics.py --help lists them. The first decides which snapshot '
                   "is kept as network-best; 'none' ends it.")
@click.option('--metric-every', type=click.IntRange(min=1), metavar='N', help='Score every N-th snapshot, and the last.', show_default='1')
@click.option('--workers', type=click.IntRange(min=0), show_default='3; on the CPU 0',
              help='Processes that load data; 0 loads in the main one, which on a CPU costs about 1% of a step.')
@click.option('--device', default='auto', help='auto, cpu, cuda or cuda:N; auto is a GPU if there is one.')
@click.option('--precision', type=click.Choice(PRECISIONS), show_default='auto',
              help='Of the highest resolutions; auto is fp16 on a GPU if the preset has it, else fp32.')
@click.option('--allow-tf32/--no-allow-tf32', default=None, show_default='off',
              help='On a GPU: round the factors of float32 products to TF32, 10 bits.')
@click.option('--channels-last/--no-channels-last', default=None, show_default='on a CPU, and in half precision',
              help="Let D's activations lie channels last.")
@click.option('--resume', metavar='latest|DIR|FILE', help='Go on with a run, in its folder and with its options.')
@click.option('--init-from', metavar='FILE|URL', help='Start a new run from the weights of a snapshot.')
@click.option('--dry-run', is_flag=True, help='Check the data and print the recipe and what it needs; train nothing.')
def main(**options) -> int:
    """Trains a GAN on a folder or zip of images.

    python train.py --cfg=inr --data=ffhq.zip
    """
    from torch_utils import distributed
    from training import checkpoint, memory, resuming, snapshot, summary, training_loop
    from training.dataset import quick_check

    if options['resume'] and options['init_from']:
        raise UserError('--resume goes on with a run and --init-from starts one: give one of them')
    kind = device_kind(options['device'])
    folder, network, settings = resuming.resumed(options, settings_given(options)) if options['resume'] else (None, None, None)
    if settings is None:
        for name in ('cfg', 'data'):
            if options[name] is None:
                raise UserError(f'--{name} is missing: --cfg=NAME --data=PATH starts a run, --resume=latest goes on with one')
        quick_check(options['data'], use_labels=bool(options['cond']))
        if options['init_from']:
            checkpoint.read_header(fetch(options['init_from']))
        dataset, settings = new_run(options, kind)
    else:
        dataset, settings = resuming.same_data(options['data'], settings)
    world_size, chosen = distributed.world_size(), bool(options['batch_gpu'] or options['resume'])
    check_processes(settings, world_size)
    if options['dry_run']:
        needed, problem = memory.needs(settings), None
        try:
            settings, line = memory.fit(settings, needed, kind, world_size, chosen)
        except UserError as err:
            problem, line = err, 'memory:      does not fit'
        distributed.print0(summary.describe(settings, world_size) + '\n' + summary.costs(settings, needed, line))
        if problem:
            raise problem
        return 0
    if network is not None and (kimg := checkpoint.read_header(network)['kimg']) >= settings.run.kimg:
        distributed.print0(f'{folder} is at {kimg:g} of {settings.run.kimg:g} kimg already: --kimg=N makes it longer')
        return 0

    device = distributed.init(kind, settings.run.allow_tf32)
    settings, line = memory.fit(settings, memory.needs(settings), device, world_size, chosen)
    note = f'Resuming {folder} from {network.name if network else "the start, it has no snapshot yet"}'
    if folder is None:
        folder = options['outdir']
        if distributed.is_main():
            folder = snapshot.new_run_folder(folder, f'{dataset.name}-{settings.run.cfg}')
        note = f'New run in {folder}'
    given = ' '.join(f'--{name.replace("_", "-")}={value}' for name, value in settings_given(options).items() if value is not None)
    try:
        evaluate = evaluation(settings, folder, device, world_size)
        number = training_loop.train(settings, dataset, folder, device, network, options['init_from'], options['minutes'], evaluate,
                                     note=f'{note} on {device}' + (f', with {given}' if given else '') + f'\n{line}')
    finally:
        distributed.shutdown()
    return 128 + number if number else 0


def settings_given(options: dict) -> dict:
    """Those options that are part of the configuration."""
    fields = ('kimg', 'batch', 'batch_gpu', 'gamma', 'lr', 'seed', 'tick', 'snap', 'img_snap', 'keep_last', 'workers', 'precision',
              'width', 'mixing', *KNOBS, 'metrics', 'metric_every', 'allow_tf32', 'channels_last')
    return {name: options[name] for name in fields}


def evaluation(settings: Config, folder: Path, device, world_size: int):
    """What scores snapshots, None without --metrics."""
    if not settings.run.metrics:
        return None
    from inference.painter import scaled
    from metrics.during_training import Evaluation

    return Evaluation(settings, folder, device, settings.images_at_once(world_size), scaled)


def device_kind(name: str) -> str:
    """'cpu', 'cuda' or 'cuda:N' for --device, checked against this machine."""
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == 'auto':
        return 'cuda' if count else 'cpu'
    known = ['cpu', *(['cuda'] if count else []), *(f'cuda:{i}' for i in range(count))]
    if name not in known:
        raise UserError(f'--device={name}: this machine has {", ".join(known)}')
    return name


def new_run(options: dict, device: str):
    """(data set, configuration) of a new run."""
    from training.dataset import ImageDataset

    row, seed = presets()[options['cfg']], options['seed'] or 0
    mirror = row['mirror'] if options['mirror'] is None else options['mirror']
    dataset = ImageDataset(options['data'], use_labels=bool(options['cond']), mirror=mirror, subset=options['subset'], seed=seed)
    data = DataConfig(
        path=str(dataset.path.absolute()), digest=dataset.digest, resolution=dataset.resolution, channels=dataset.num_channels,
        images=len(dataset) // (2 if mirror else 1), label_dim=dataset.label_dim,
        classes=list(dataset.class_names) if dataset.label_dim and dataset.class_names else None, mirror=mirror, subset=options['subset'])
    return dataset, build(options['cfg'], row, data, device, **settings_given(options))


if __name__ == '__main__':
    cli.run(main)
