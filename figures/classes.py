"""Classes one by one: the score of a whole set is that of its largest class."""

import click

from dnnlib.util import UserError
from figures.context import figure


@figure(seeds='0-191')
@click.option('--data', metavar='PATH', help="Zip or folder with the real images of the classes, or 'demo'.  [default: the network's own "
              'data set]')
@click.option('--show', type=click.IntRange(1, 64), default=16, help='Samples of each class to show.')
def classes(context, data, show):
    """A row of samples of each class, or group of classes, and their kernel distance x 1000 to the real images of it.

    The classes of a group are drawn as often as they were learned. --class gives the row of one.
    """
    import numpy as np
    from tqdm import tqdm

    from inference.sheets import sheet
    from metrics import detectors
    from metrics.kernel_distance import kernel_distance
    from metrics.subject import dataset_of
    from training.data.labels import group_of

    if context.cfg:
        raise UserError('classes looks at a trained network: give --network, not --cfg')
    names = context.meta['dataset']['classes']
    if not context.G.c_dim or not names:
        raise UserError('classes: this network has no classes with names; calc_metrics.py scores it')
    groups = [context.class_text] if context.class_text else list(dict.fromkeys(map(group_of, names)))
    for text in groups:  # before anything is looked at
        members_of(context, text)
    dataset = dataset_of(context.meta, data)
    detector = detectors.load('efficientnet-lite0', device=context.device)
    real = real_items(dataset, groups)
    rows, distances = [], {}
    with tqdm(total=sum(map(len, real.values())) + len(groups) * len(context.seeds), unit='img', disable=None, leave=False) as bar:
        for text in groups:
            seen = features(detector, (dataset[i][0] for i in real[text]), bar)
            drawn = [sample(context, seed, text).transpose(2, 0, 1) for seed in context.seeds]
            found = features(detector, drawn, bar)
            distances[text] = 1000 * kernel_distance(found, seen)[0] if min(len(found), len(seen)) > 1 else None
            rows.append([pixels.transpose(1, 2, 0) for pixels in drawn[:show]])
    known = [value for value in distances.values() if value is not None]
    mean = float(np.mean(known)) if known else None
    print(', '.join(f'{name} {"-" if value is None else f"{value:.0f}"}' for name, value in distances.items())
          + (f'; mean {mean:.0f}' if known else ''))
    context.write('classes', sheet(rows, groups), {
        'distance': 'kernel distance x 1000, pooled features of EfficientNet-Lite0', 'samples of each': len(context.seeds),
        'real images': {text: len(real[text]) for text in groups}, 'classes': distances, 'mean': mean})


def members_of(context, text):
    """The numbers of the network's classes that a name means: a class, or those of a group. Raises UserError for a name it has not."""
    from inference.latents import class_label, classes_of_group

    names = context.meta['dataset']['classes']
    return classes_of_group(text, names) or [int(class_label(context.G, text, names).argmax())]


def sample(context, seed, text):
    """uint8 [R, R, C] of a seed in a class, or in one of a group's, each as often as it was learned, where the file says how often."""
    import random

    from inference.latents import latents_of, one_hot

    members, sizes = members_of(context, text), context.meta['dataset']['class_sizes']
    weights = [sizes[index] for index in members] if sizes else []
    index = random.Random(seed).choices(members, weights if any(weights) else None)[0]
    return context.picture(latents_of(context.G, seed, one_hot(context.G, index)))


def real_items(dataset, groups):
    """{class or group: the items of a data set that are of it}. Raises UserError where a class has none, or labels are no classes."""
    from training.data.labels import group_of

    if not dataset.class_names or dataset.files.block is not None:
        raise UserError(f'classes: {dataset.path} has no classes with names, or is read in blocks: give one zip or folder with --data')
    own = [dataset.labels.by_name.get(name) for name in dataset.files.names]
    own = ['' if index is None else dataset.class_names[index] for index in own]
    found = {text: [i for i, name in enumerate(own) if name and text in (name, group_of(name))] for text in groups}
    missing = next((text for text, items in found.items() if not items), None)
    if missing is not None:
        raise UserError(f'classes: {dataset.path} has no images of {missing}: give the set of these classes with --data')
    return found


def features(detector, images, bar):
    """float64 [N, D] of uint8 images [C, H, W], any number of them."""
    import itertools

    import numpy as np
    import torch

    rows, images = [], iter(images)
    while batch := list(itertools.islice(images, 32)):
        rows.append(detector.features(torch.from_numpy(np.stack(batch))).double().cpu().numpy())
        bar.update(len(batch))
    return np.concatenate(rows)
