"""Going on with a run: which one, with which options, on the same data."""

import dataclasses
from pathlib import Path

from dnnlib.util import UserError
from torch_utils import distributed
from training import checkpoint
from training.config import KNOBS, Config, override
from training.dataset import ImageDataset, resolve

SHAPING = ('cfg', 'batch', 'seed', 'cond', 'mirror', 'subset', 'precision', 'width', 'mixing', *KNOBS)
# what a run is: given again with --resume, it must be the same


def resumed(options: dict, given: dict) -> tuple[Path, Path | None, Config]:
    """(run folder, network file of the snapshot to go on from or None, configuration) for --resume, with the options that may change.

    options: all of train.py's; given: those that are part of the configuration
    Raises UserError where there is nothing to resume and for an option of SHAPING that differs from the run's.
    """
    place = Path(options['resume'])
    if options['resume'] == 'latest':
        place = checkpoint.find_latest_run(options['outdir'])
    if place.is_file():
        if not checkpoint.SNAPSHOT_NAME.fullmatch(place.name):
            raise UserError(f'--resume={place}: give a run folder or its network-snapshot-*.safetensors; --init-from takes any weights')
        folder, network = place.parent, place
    elif place.is_dir():
        folder, network = place, checkpoint.find_resumable(place, distributed.print0)
    else:
        raise UserError(f'--resume={place}: no such run folder or snapshot; --resume=latest finds the newest run in {options["outdir"]}')
    settings = checkpoint.stored_config(folder)
    stored = {'cond': settings.data.label_dim > 0, 'mirror': settings.data.mirror, 'subset': settings.data.subset,
              'mixing': settings.loss.style_mixing,
              **dict.fromkeys(KNOBS), **settings.generator.synthesis, **dataclasses.asdict(settings.run)}
    for name in SHAPING:
        if options[name] is not None and options[name] != stored[name] and (name, options[name]) != ('precision', 'auto'):
            raise UserError(f'--{name}={options[name]} cannot change when a run is resumed, {folder} has {stored[name]}: start a new run, '
                            'with --init-from if its weights are wanted')
    before, now = (text.partition(',')[0] for text in (stored['metrics'], options['metrics'] or ''))
    if before and now and before != now:
        raise UserError(f'--metrics={options["metrics"]}: the best snapshot so far was chosen by {before}, so that must stay the first')
    changes = {name: value for name, value in given.items() if name not in SHAPING}
    return folder, network, override(settings, **changes)


def same_data(place: str | None, settings: Config) -> tuple[ImageDataset, Config]:
    """(data set, configuration) of a resumed run. place: where its data is now; None: where it was. Raises UserError for other data."""
    path, data = resolve(place or settings.data.path), settings.data
    if place is None and not path.exists():
        raise UserError(f'{path}, the data of this run, is not there any more: say where it is with --data')
    dataset = ImageDataset(path, use_labels=data.label_dim > 0, mirror=data.mirror, subset=data.subset, seed=settings.run.seed)
    if dataset.digest != data.digest:
        raise UserError(f'{path} is not what this run was trained on (digest {dataset.digest[:12]}, it was {data.digest[:12]}): '
                        'give that data with --data, or start a new run with --init-from')
    return dataset, dataclasses.replace(settings, data=dataclasses.replace(data, path=str(path)))
