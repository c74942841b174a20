"""Copies: the training images that a generator's images are nearest to."""

import click

from dnnlib.util import UserError
from figures.context import figure


@figure(seeds='0-255')
@click.option('--data', metavar='PATH', help="Zip or folder of the training images, or 'demo'.  [default: the network's own data set]")
@click.option('--show', type=click.IntRange(1, 64), default=16, help='How many samples to show, those nearest to a training image first.')
@click.option('--near', type=click.IntRange(1, 8), default=3, help='Training images beside each.')
def nearest(context, data, show, near):
    """Samples beside the training images they are nearest to, flipped ones included, by pixels and by features: is it copying?"""
    import numpy as np
    import torch

    from inference.sheets import enlarged, sheet
    from metrics import detectors
    from metrics.nearest import assess, feature_vectors, pixel_vectors
    from metrics.subject import dataset_of
    from torch_utils.misc import size_of

    if context.cfg:
        raise UserError('nearest looks at a trained network: give --network, not --cfg')
    dataset, size = dataset_of(context.meta, data), size_of(context.G)
    if dataset.size != size or len(dataset) < 3:
        raise UserError('nearest: {} has {} images of {}x{}; at least 3 of {}x{} are needed: give the training images with --data'.format(
            dataset.path, len(dataset), *dataset.size, *size))
    reals = read(dataset)
    samples = torch.from_numpy(np.stack([context.picture(context.ws(seed)) for seed in context.seeds])).permute(0, 3, 1, 2)
    detector = detectors.load('efficientnet-lite0', device=context.device)
    views = {'pixels': pixel_vectors, 'features': lambda images: feature_vectors(images, detector, device=context.device)}
    reports = {name: assess(view(samples), view(reals), view(reals.flip(3)), near) for name, view in views.items()}
    order = np.minimum(*(report.ratios for report in reports.values())).argsort()[:show]
    rows = []
    for i in order:
        row = [samples[i]]
        for report in reports.values():
            row += [None, *(reals[item].flip(2) if mirrored else reals[item]
                            for item, mirrored in zip(report.found.items[i], report.found.mirrored[i], strict=True))]
        rows.append([None if x is None else enlarged(x.permute(1, 2, 0).numpy(), 96) for x in row])
    names = ['seed', *(heading for name in views for heading in ('', f'by {name}', *[''] * (near - 1)))]
    for name, report in reports.items():
        told = ', '.join(f'{key} {value:.3g}' for key, value in report.numbers.items())
        print(f'{name}: {told}')
    context.write('nearest', sheet(rows, [context.seeds[i] for i in order], names), {
        'training images': len(reals), 'shown': [context.seeds[i] for i in order],
        **{name: {**report.numbers, 'ratios': report.ratios.tolist(), 'items': report.found.items[:, 0].tolist(),
                  'mirrored': report.found.mirrored[:, 0].tolist()} for name, report in reports.items()}})


def read(dataset):
    """All images of a data set, uint8 [N, C, R, R]."""
    import numpy as np
    import torch

    return torch.from_numpy(np.stack([dataset[i][0] for i in range(len(dataset))]))
