"""A new run: its data set, and its configuration from a preset and the options given. Going on with one: resuming.py."""

from dnnlib.util import UserError
from torch_utils import distributed
from torch_utils.misc import multiplies_bfloat16
from training import transfer
from training.config import Config, build, size_of_data
from training.dataset import ImageDataset, quick_check
from training.options import DataConfig
from training.plugins import presets
from training.validation import expect_classes

LOOK_DIM = 32  # --look-dim of new runs; older ones had 64


def highest_scale(dataset: ImageDataset, asked: float | None, whole: float | None = None) -> float:
    """The highest scale of windows: as asked for, or what half of the pictures have.

    whole: share of whole pictures; where all are whole, none need be larger than these
    Raises UserError where no picture has that scale.
    """
    sides = dataset.sides()
    usual, largest = (round(side / dataset.resolution, 3) for side in (sides[(len(sides) - 1) // 2], sides[-1]))
    if (asked or usual) > largest or (largest == 1 and asked is None and whole != 1):
        wanted = f'--scale-max={asked:g}' if asked else '--windows'
        raise UserError(f'{wanted}: the pictures of {dataset.path} are at most {largest:g} times as large as --res={dataset.resolution}, '
                        f'half of them {usual:g} times: give '
                        + (f'--scale-max={largest:g} or less' if largest > 1 else 'a smaller --res, or larger pictures'))
    return asked or usual


def new_run(place: str | None, init_from: str | None, given: dict, device: str) -> tuple[ImageDataset, Config]:
    """(data set, configuration) of a new run.

    place:     where its data is;  init_from: file or URL of the weights it starts from, None for none
    given:     {option: value};  device: see config.build
    Raises UserError for what is missing, for data that training cannot use, and as config.build does.
    """
    given = dict(given)
    for name, value in (('cfg', given.get('cfg')), ('data', place)):
        if value is None:
            raise UserError(f'--{name} is missing: --cfg=NAME --data=PATH starts a run, --resume=latest goes on with one')
    row, cond, subset = presets()[cfg := given.pop('cfg')], given.pop('cond', False), given.pop('subset', None)
    balance = given.pop('class_balance', 0.0)
    mirror, res = given.pop('mirror', row['mirror']), given.pop('res', None)
    quick_check(place, use_labels=cond, resolution=res)
    if given.get('freeze_d') and not init_from:
        raise UserError(f'--freeze-d={given["freeze_d"]} keeps layers of D as --init-from has them: give that too')
    dataset = ImageDataset(place, use_labels=cond, mirror=mirror, subset=subset, seed=given.get('seed', 0),
                           resolution=res, class_balance=balance)
    if given.get('windows', row.get('windows', False)) and res:
        given['scale_max'] = highest_scale(dataset, given.get('scale_max'), given.get('whole'))
    instances = row.get('instances') if given.get('instances') is None else given['instances']
    if instances and given.get('look_dim') is None:
        given['look_dim'] = LOOK_DIM
    if given.get('class_groups'):
        expect_classes(dataset)
    elif row.get('class_groups') and not dataset.can_group:
        given['class_groups'] = False
    if dataset.label_dim and max(dataset.labels.groups) + 1 < dataset.label_dim and not dataset.labels.looks and not init_from:
        distributed.print0('Note: the classes are clusters whose looks are not in the set: G takes longer to tell them apart')
    judges_features = (given.get('d_features') or row.get('d_features') or 'none') != 'none'
    if (given.get('precision') or 'auto') == 'auto' and judges_features and device == 'cpu' and multiplies_bfloat16():
        given['precision'] = 'bf16'
    if init_from:
        row = transfer.starting_row(init_from, row, dataset.resolution)
    data = DataConfig(
        path=dataset.place, digest=dataset.digest, resolution=dataset.resolution, channels=dataset.num_channels,
        images=dataset.images, label_dim=dataset.label_dim,
        classes=list(dataset.class_names) if dataset.label_dim and dataset.class_names else None, mirror=mirror, subset=subset,
        class_balance=balance, res=res, size=size_of_data(dataset), class_sizes=dataset.class_sizes)
    return dataset, build(cfg, row, data, device, **given)
