"""Going on with a run: which one, with which options, on the same data."""

import dataclasses
from pathlib import Path

from dnnlib.options import kept
from dnnlib.util import UserError
from torch_utils import distributed
from training import checkpoint, plugins
from training.config import OPTIONS, Config, override
from training.data.opening import absolute, is_missing
from training.dataset import ImageDataset


def resumed(where: str, outdir: Path, given: dict) -> tuple[Path, Path | None, Config]:
    """(run folder, network file of the snapshot to go on from or None, configuration) for --resume, with the options that may change.

    where: 'latest', a run folder, or one of its network files;  outdir: where 'latest' is looked for;  given: {option: value}
    Raises UserError where there is nothing to resume, and for an option that differs from the run's and may not.
    """
    place = checkpoint.find_latest_run(outdir) if where == 'latest' else Path(where)
    if place.is_file():
        if not checkpoint.SNAPSHOT_NAME.fullmatch(place.name):
            raise UserError(f'--resume={place}: give a run folder or its network-snapshot-*.safetensors; --init-from takes any weights')
        folder, network = place.parent, place
    elif place.is_dir():
        folder, network = place, checkpoint.find_resumable(place, distributed.print0)
    else:
        raise UserError(f'--resume={place}: no such run folder or snapshot; --resume=latest finds the newest run in {outdir}')
    settings = checkpoint.stored_config(folder)
    table = {**OPTIONS, **{row.name: row for row in plugins.knob_rows()}}
    for name, value in given.items():
        row = table[name]
        if row.resume or (name, value) == ('precision', 'auto'):
            continue
        stored = kept(settings, row.place)
        stored = row.as_option(stored) if row.as_option else stored
        if value != stored:
            raise UserError(f'--{name}={value} cannot change when a run is resumed, {folder} has {stored}: start a new run, '
                            'with --init-from if its weights are wanted')
    before, now = (text.partition(',')[0] for text in (settings.run.metrics, given.get('metrics', '')))
    if before and now and before != now:
        raise UserError(f'--metrics={given["metrics"]}: the best snapshot so far was chosen by {before}, so that must stay the first')
    return folder, network, override(settings, **{name: value for name, value in given.items() if table[name].resume})


def same_data(place: str | None, settings: Config) -> tuple[ImageDataset, Config]:
    """(data set, configuration) of a resumed run.

    place: where its data is now, or what has become of them: pictures may have been repaired or removed; None: they are where they were
    Raises UserError for other data, unless they were given with `place` and are of the same size, channels and labels.
    """
    path, data = absolute(place or settings.data.path), settings.data
    if place is None and is_missing(path):
        raise UserError(f'{path}, the data of this run, is not there any more: say where it is with --data')
    dataset = ImageDataset(path, use_labels=data.label_dim > 0, mirror=data.mirror, subset=data.subset, seed=settings.run.seed,
                           resolution=data.res)
    if dataset.digest != data.digest:
        alike = (dataset.resolution, dataset.num_channels, dataset.label_dim) == (data.resolution, data.channels, data.label_dim)
        if place is None or not alike:
            advice = f'if pictures in it were repaired or removed, say so with --data={path}' if alike else 'give its data with --data'
            raise UserError(f'{path} is not what this run was trained on (digest {dataset.digest[:12]}, it was {data.digest[:12]}): '
                            f'{advice}, or start a new run with --init-from')
        distributed.print0(f'Note: going on with {len(dataset):,} images that are not the {data.images:,} of before (another digest)')
        data = dataclasses.replace(data, digest=dataset.digest, images=len(dataset) // (2 if data.mirror else 1))
    return dataset, dataclasses.replace(settings, data=dataclasses.replace(data, path=path))
