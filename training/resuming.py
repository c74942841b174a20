"""Going on with a run: which one, with which options, on the same data."""

import dataclasses
from pathlib import Path

from dnnlib.options import kept
from dnnlib.util import UserError
from torch_utils import distributed
from torch_utils.misc import multiplies_bfloat16
from training import checkpoint, plugins, run_folder
from training.config import OPTIONS, Config, override
from training.data.labels import group_of
from training.data.opening import absolute, is_missing
from training.dataset import ImageDataset
from training.options import DataConfig
from training.validation import expect_classes


def place(where: str, outdir: Path) -> tuple[Path, Path | None]:
    """(run folder, network file if one was named) that --resume means. Raises UserError where there is nothing to resume.

    where: 'latest', a run folder, or one of its network files;  outdir: where 'latest' is looked for
    """
    found = run_folder.find_latest_run(outdir) if where == 'latest' else Path(where)
    if found.is_file():
        if not checkpoint.SNAPSHOT_NAME.fullmatch(found.name):
            raise UserError(f'--resume={found}: give a run folder or its network-snapshot-*.safetensors; --init-from takes any weights')
        return found.parent, found
    if not found.is_dir():
        raise UserError(f'--resume={found}: no such run folder or snapshot; --resume=latest finds the newest run in {outdir}')
    if not run_folder.is_run(found):
        raise UserError(f'{found} is not a run folder: it has no {run_folder.OPTIONS}')
    return found, None


def resumed(folder: Path, network: Path | None, given: dict, device: str) -> tuple[Path | None, Config]:
    """(network file of the snapshot to go on from or None, configuration) of a run folder, with the options that may change.

    network: the snapshot to take, None takes the last whole one;  given: {option: value};  device: that goes on, such as 'cpu'
    Raises UserError for a run without a whole snapshot, and for an option that differs from the run's and may not.
    """
    network = network or run_folder.find_resumable(folder, distributed.print0)
    settings = run_folder.stored_config(folder, distributed.print0)
    if settings.run.precision == 'bf16' and device == 'cpu' and not multiplies_bfloat16():
        distributed.print0('Note: this run computes in bfloat16, which this CPU does not multiply by itself: steps take longer')
    table = {**OPTIONS, **{row.name: row for row in plugins.knob_rows()}}
    for name, value in given.items():
        row = table[name]
        if row.resume or (name, value) == ('precision', 'auto'):
            continue
        stored = kept(settings, row.place)
        stored = row.as_option(stored) if row.as_option else stored
        if value != stored:
            raise UserError(f'{row.text(value)} cannot change when a run is resumed, {folder} has {stored}: start a new run, '
                            'with --init-from if its weights are wanted')
    if given.get('whole', 1) < 1 and settings.windows.on and settings.windows.scale_max == 1:
        raise UserError(f'--whole={given["whole"]:g} has no effect: the pictures of {folder} are no larger than its images')
    if given.get('look_dim') and not settings.loss.instances:
        raise UserError('--look-dim has no effect without --instances')
    scale = settings.loss.features_scale
    if settings.loss.instances and given.get('d_features_scale', scale) != scale:
        raise UserError(f'--d-features-scale={given["d_features_scale"]:g} cannot change in a run with --instances, {folder} has '
                        f'{scale:g}: its looks were measured by these features')
    before, now = (text.partition(',')[0] for text in (settings.run.metrics, given.get('metrics', '')))
    if before and now and before != now:
        raise UserError(f'--metrics={given["metrics"]}: the best snapshot so far was chosen by {before}, so that must stay the first')
    return network, override(settings, **{name: value for name, value in given.items() if table[name].resume})


def _first_difference(data: DataConfig, dataset: ImageDataset) -> str:
    names = dataset.class_names or [str(index) for index in range(dataset.label_dim)]
    index = next(index for index, pair in enumerate(zip(data.classes, names, strict=True)) if pair[0] != pair[1])
    return f'{names[index]} for {data.classes[index]}'


def _expect_same_division(data: DataConfig, dataset: ImageDataset) -> None:
    """Raises UserError for clusters that were made again: some have grown where others have shrunk, so names mean other pictures."""
    if not (data.class_sizes and dataset.class_sizes and any(group_of(name) != name for name in data.classes or ())):
        return
    more = [now - before for before, now in zip(data.class_sizes, dataset.class_sizes, strict=True)]
    if min(more) < 0 < max(more):
        raise UserError(f'{dataset.path} has other clusters than this run ({data.classes[more.index(max(more))]} has grown, others have '
                        'shrunk): give repaired pictures the clusters of before with dataset_tool.py cluster NEW DEST.zip --like=BEFORE')


def same_data(place: str | None, settings: Config) -> tuple[ImageDataset, Config]:
    """(data set, configuration) of a resumed run.

    place: where its data is now, or what has become of them: pictures may have been repaired or removed; None: they are where they were
    Raises UserError for other data, unless they were given with `place` and are of the same size, channels and labels.
    """
    path, data = absolute(place or settings.data.path), settings.data
    if place is None and is_missing(path):
        raise UserError(f'{path}, the data of this run, is not there any more: say where it is with --data')
    dataset = ImageDataset(path, use_labels=data.label_dim > 0, mirror=data.mirror, subset=data.subset, seed=settings.run.seed,
                           resolution=data.res, class_balance=data.class_balance)
    if settings.discriminator.class_groups:
        expect_classes(dataset)
    if dataset.digest != data.digest:
        if data.classes and dataset.class_names != data.classes and dataset.label_dim == data.label_dim:
            raise UserError(f'{path} has other classes than this run or in another order, {_first_difference(data, dataset)}: start a new '
                            'run with --init-from, which knows classes by their names')
        _expect_same_division(data, dataset)
        alike = (dataset.size, dataset.num_channels, dataset.label_dim) == (data.sides, data.channels, data.label_dim)
        if place is None or not alike:
            advice = f'if pictures in it were repaired or removed, say so with --data={path}' if alike else 'give its data with --data'
            raise UserError(f'{path} is not what this run was trained on (digest {dataset.digest[:12]}, it was {data.digest[:12]}): '
                            f'{advice}, or start a new run with --init-from')
        distributed.print0(f'Note: going on with {dataset.images:,} images that are not the {data.images:,} of before (another digest)')
        data = dataclasses.replace(data, digest=dataset.digest, images=dataset.images)
    return dataset, dataclasses.replace(settings, data=dataclasses.replace(data, path=path, class_sizes=dataset.class_sizes))
