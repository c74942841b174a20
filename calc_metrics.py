"""Score a generator, or a set of images, against real ones: FID, KID, IS, precision and recall, path length, KPL, other sizes."""

import json
import time
from pathlib import Path

import click

from dnnlib import cli
from dnnlib.util import UserError, format_time
from metrics import registry

OUT = Path('out') / 'metrics.jsonl'


@click.command(context_settings={'show_default': True, 'max_content_width': 140},
               epilog='Metrics.\n\n\b\n' + registry.help_text())
@click.option('--network', metavar='FILE|URL|DIR',
              help='Snapshot to score.  [default: the newest under training-runs/, else a bundled one]')
@click.option('--images', metavar='PATH', help='Folder or zip of images to score in place of a network.')
@click.option('--data', metavar='PATH', help="Zip or folder of the real images, or 'demo'.  [default: the network's own data set]")
@click.option('--res', type=click.IntRange(16, 1024), metavar='N',
              help='Size to see pictures at that were kept as they were, and of windows of --images.  [default: that of the network]')
@click.option('--metrics', 'text', metavar='LIST', default='fid50k_full', help='Names with commas between; the list is below.')
@click.option('--num', type=click.IntRange(2), metavar='N', help='Images to draw; scores are named after it.  [default: as the names say]')
@click.option('--batch', type=click.IntRange(1), metavar='N', default=32, help='Images at once in a process.')
@click.option('--psi', type=cli.PSI, metavar='NUMBER', default=1.0,
              help='Truncation of what is drawn (not for path lengths, which take 1).')
@click.option('--seed', type=click.IntRange(0, 2 ** 32 - 1), metavar='N', default=0, help='Of what is drawn.')
@click.option('--detector', 'files', metavar='[NET:]PATH', multiple=True,
              help='File of a feature network: of inception (TorchScript, or weights as pytorch-fid has), vgg16:PATH, dinov2:PATH.')
@click.option('--extrapolate', is_flag=True, help='Fit Fréchet distances against 1/N: what unlimited images would have.')
@click.option('--keypoints', metavar='dlib68|PATH', help='Keypoint extractor of kpl: dlib (pip install .[faces]), or a TorchScript.')
@click.option('--kpl-test', type=click.IntRange(1), metavar='N', default=256, help='Real images that kpl projects.')
@click.option('--kpl-steps', type=click.IntRange(1), metavar='N', default=1000, help='Steps of each projection of kpl.')
@click.option('--kpl-distance', metavar='NAME', default='auto', help='Distance of the projections, as in projector.py.')
@click.option('--ridge', type=cli.FiniteRange(min=0), default=0.0, help="Ridge penalty of kpl's regression, relative to the spread of w.")
@click.option('--record', metavar='FILE', help="JSON lines to add the scores to.  [default: metrics.jsonl of the network's run, else out/]")
@click.option('--device', metavar='NAME', default='auto', help='cpu, cuda, cuda:1; auto takes a GPU if there is one.')
def main(network, images, data, res, text, num, batch, psi, seed, files, extrapolate, keypoints, kpl_test, kpl_steps, kpl_distance, ridge,
         record, device):
    """Score a generator, or a set of images, against real ones.

    Statistics of the real images are kept in the cache, so that a second score of the same data costs its drawn images alone. A run that
    was killed goes on where it was when the same command is given again. torchrun --nproc-per-node=N gives the same figures N times faster.

    \b
    python calc_metrics.py --metrics=fid50k_full,kid50k_full
    python calc_metrics.py --network=FILE --data=demo --metrics=fd_efficientnet-lite0_5k,kd_efficientnet-lite0_5k
    python calc_metrics.py --images=folder/ --data=demo --metrics=fid5k --detector=inception-2015-12-05.pt
    """
    metrics = registry.parse_list(text)
    if network and images:
        raise UserError('--network and --images: both say what to score; give one of them')
    if images and not data:
        raise UserError('--images needs --data, the real images to compare with')
    if num:
        metrics = list(dict.fromkeys(metric.with_num(num) for metric in metrics))

    from inference import opening
    from metrics import detectors
    from torch_utils import distributed
    from torch_utils.misc import pick_device, size_of
    from training.dataset import open_set

    files = detectors.parse_files(files)
    dataset = _opened(data, res, later=not images) if data else None
    scored = open_set(images, res) if images else None
    place = distributed.init('cpu' if (chosen := pick_device(device)).type == 'cpu' else str(chosen))
    try:
        with cli.quiet(not distributed.is_main()):
            G, meta = opening.open_network(network, place) if scored is None else (None, None)
        if data and dataset is None:
            dataset = open_set(data, G.img_resolution if len(set(size_of(G))) == 1 else None)
        subject = subject_of(G, meta, dataset, scored, metrics)
        subject.files, subject.batch, subject.psi, subject.seed = files, batch, psi, seed
        subject.device, subject.extrapolate, subject.resume = place, extrapolate, True
        subject.say = distributed.print0
        if keypoints:
            from metrics.keypoint_prediction import KeypointPrediction
            from metrics.keypoints import load_extractor

            subject.keypoints = KeypointPrediction(load_extractor(keypoints, place), kpl_test, kpl_steps, kpl_distance, ridge)
        run(metrics, subject, record_path(record, meta), {**origin(meta), 'images': images, 'data': data})
    finally:
        distributed.shutdown()


def _opened(data, res, later):
    """The data set; None, if it may be opened later, for pictures as they were where only the network says how large they are seen."""
    from training.dataset import AnySize, open_set

    try:
        return open_set(data, res)
    except AnySize:
        if later:
            return None
        raise


def subject_of(G, meta, dataset, scored, metrics):
    """The subject to score: the network's own data set is opened where none was given and a metric needs one."""
    from inference import painter
    from metrics.subject import Subject, dataset_of
    from training.dataset import ImageDataset

    needed, labels = any(metric.row.real for metric in metrics) or (G is not None and G.c_dim > 0), None
    if dataset is None and needed:
        dataset = dataset_of(meta)
    if G is not None and G.c_dim:
        dataset = ImageDataset(dataset.place, use_labels=True, resolution=dataset.least)
        labels = labels_in_groups(G.c_dim, meta['dataset']['classes'] or [], dataset, meta['dataset']['class_sizes'])
    if scored is not None and scored.size != dataset.size:
        print('The images are {}x{}, the real ones {}x{}: the feature network resizes both'.format(*scored.size, *dataset.size))
    return Subject(dataset, G, scored, labels, draw=painter.drawing_at_scales(G))


def labels_in_groups(c_dim, names, dataset, sizes=None):
    """The labels of a data set for a network whose classes are clusters of the set's classes: (number -> [c_dim], how many); None where
    the set's labels are the network's own by number.

    An item gets the network's class of its own class's name, whatever the order, and one of 'animals' one of the network's classes
    'animals/1', 'animals/2', ..., always the same, each about as often as its images were among those learned.
    c_dim, names: how many labels the network has, and their names if they have any
    sizes: how many images of each of them it learned; None where that is not known, so that each class of a group is drawn as often
    """
    import numpy as np

    from inference.latents import classes_named, drawn_class

    groups = dataset.class_names or [str(index) for index in range(dataset.label_dim)]
    if dataset.label_dim == c_dim and (groups == names or not names or not dataset.class_names):
        return None
    members = [classes_named(name, names) for name in groups]
    if not dataset.can_group or any(size and not own for size, own in zip(dataset.class_sizes, members, strict=True)):
        raise UserError(f'this network has {c_dim} classes and {dataset.path} has {dataset.label_dim}, not the same: give its own data '
                        'with --data, or one zip or folder of its classes or their groups')

    def label(number):
        own = members[int(dataset.drawn_label(number).argmax())]
        return np.eye(c_dim, dtype=np.float32)[drawn_class(own, sizes, number)]

    if any(group not in names for group in groups):
        often = 'as it was learned' if sizes else 'each as often, for this file does not say how often they were learned'
        print(f'Classes: {dataset.path} has the groups of this network\'s {c_dim}; classes of a group are drawn {often}')
    return label, len(dataset)


def origin(meta):
    """What a score is of, to record: the snapshot's file, its SHA-256 and kimg; nothing but {'network': None} without one."""
    from dnnlib.util import fetch, file_digest

    if meta is None:
        return {'network': None}
    return {'network': meta['path'], 'network_sha256': file_digest(fetch(meta['path'])), 'kimg': meta['kimg']}


def record_path(given, meta):
    """The file that the scores are added to: --record, or that of the run which the snapshot lies in, or out/."""
    if given:
        return Path(given)
    if meta is not None and (Path(meta['path']).parent / 'training_options.json').is_file():
        return Path(meta['path']).parent / 'metrics.jsonl'
    return OUT


def add_to(record, line):
    """Adds a line to the record, or where that cannot be written to OUT. Returns which; a score is printed before, and never lost."""
    from training.run_folder import add_line

    for place in dict.fromkeys((record, OUT)):
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            add_line(place, line)
            return place
        except OSError as err:
            print(f'Not recorded in {place} ({err.strerror})', flush=True)
    return record


def run(metrics, subject, record, what):
    """Computes, prints and records the scores. what: {option: value} to record"""
    import torch

    from metrics import metric_main
    from torch_utils import distributed

    began = time.monotonic()
    try:
        for score in metric_main.evaluate(metrics, subject):
            if not distributed.is_main():
                continue
            line = metric_main.as_json(score, **what, date=time.strftime('%Y-%m-%dT%H:%M:%S'), torch=torch.__version__,
                                       processes=distributed.world_size())
            told = '  '.join(f'{name} {value:.6g}' for name, value in score.values.items())
            print('\n'.join([told, *(f'  note: {note}' for note in score.notes)]), flush=True)
            record = add_to(record, json.dumps(line))
    except metric_main.OtherProcessFailed:
        raise SystemExit(2) from None  # the process that failed says why
    distributed.print0(f'Done in {format_time(time.monotonic() - began)}; recorded in {record}')


if __name__ == '__main__':
    cli.run(main)
