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

    from inference.latents import class_label
    from inference.sheets import sheet
    from metrics import detectors
    from metrics.kernel_distance import kernel_distance
    from metrics.nearest import feature_vectors
    from metrics.subject import dataset_of
    from training.data.labels import group_of

    if context.cfg:
        raise UserError('classes looks at a trained network: give --network, not --cfg')
    names = context.meta['dataset']['classes']
    if not context.G.c_dim or not names:
        raise UserError('classes: this network has no classes with names; calc_metrics.py scores it')
    groups = [context.class_text] if context.class_text else list(dict.fromkeys(map(group_of, names)))
    if context.class_text:
        class_label(context.G, context.class_text, names)  # raises for one it has not
    dataset = dataset_of(context.meta, data)
    detector = detectors.load('efficientnet-lite0', device=context.device)
    real = images_of(dataset, groups)
    rows, distances = [], {}
    with tqdm(groups, unit='class', disable=None, leave=False) as bar:
        for text in bar:
            drawn, seen = samples(context, text), np.stack([dataset.pixels(name) for name in real[text]])
            sets = [feature_vectors(images, detector, device=context.device).numpy() for images in (drawn, seen)]
            distances[text] = 1000 * kernel_distance(*sets)[0] if min(map(len, sets)) > 1 else None
            rows.append(list(drawn[:show].transpose(0, 2, 3, 1)))
    known = [value for value in distances.values() if value is not None]
    mean = float(np.mean(known)) if known else None
    print(', '.join(f'{name} {"-" if value is None else f"{value:.0f}"}' for name, value in distances.items())
          + (f'; mean {mean:.0f}' if known else ''))
    context.write('classes', sheet(rows, groups), {
        'distance': 'kernel distance x 1000, pooled features of EfficientNet-Lite0', 'samples of each': len(context.seeds),
        'real images': {text: len(real[text]) for text in groups}, 'classes': distances, 'mean': mean})


def samples(context, text):
    """uint8 [N, C, R, R] of the seeds in a class, or in those of a group, each as often as it was learned."""
    import numpy as np

    from inference.latents import classes_named, drawn_class, latents_of, one_hot

    names, sizes = (context.meta['dataset'][key] for key in ('classes', 'class_sizes'))
    members = classes_named(text, names)
    labels = [one_hot(context.G, drawn_class(members, sizes, seed)) for seed in context.seeds]
    pictures = [context.picture(latents_of(context.G, seed, label)) for seed, label in zip(context.seeds, labels, strict=True)]
    return np.stack(pictures).transpose(0, 3, 1, 2)


def images_of(dataset, groups):
    """{class or group: file names of a data set that are of it}. Raises UserError where a class has none, or labels are no classes."""
    from training.data.labels import group_of

    labels = dataset.labels
    if not dataset.class_names or dataset.files.block is not None or labels.vectors:
        raise UserError(f'classes: {dataset.path} has no classes with names, or is read in blocks: give one zip or folder with --data')
    own = {name: dataset.class_names[index] for name, index in labels.by_name.items()}
    found = {text: [name for name in dataset.files.names if text in (own.get(name), group_of(own.get(name, '')))] for text in groups}
    missing = next((text for text, items in found.items() if not items), None)
    if missing is not None:
        raise UserError(f'classes: {dataset.path} has no images of {missing}: give the set of these classes with --data')
    return found
