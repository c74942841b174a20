"""Improved precision and recall (Kynkäänniemi et al., arXiv 1904.06991, eqs. 1 to 3): k-nearest-neighbour balls in feature space."""

import functools

import torch

from metrics.collection import shared_rows, to_everybody
from metrics.inputs import in_full_precision

CHUNK = 1000  # rows compared at once
NEIGHBOUR = 3


def _squared_distances(a, b):
    """[N, D], [M, D], float64 -> [N, M] >= 0."""
    return (a.square().sum(dim=1)[:, None] + b.square().sum(dim=1) - 2 * a @ b.T).clamp(min=0)


def _chunks(x):
    return (part.double() for part in x.split(CHUNK))


def neighbour_radii(x, k, numbers=None):
    """Squared distance of rows to their k-th nearest other row.  x: [N, D], tensor -> float64 [N], or [len(numbers)] of a range of rows

    The nearest of all, at distance 0, is the row itself and is left out by its place in the order.
    """
    rows, radii = x if numbers is None else x[numbers.start:numbers.stop], []
    for part in _chunks(rows):
        nearest = part.new_empty(len(part), 0)
        for columns in _chunks(x):
            nearest = torch.cat([nearest, _squared_distances(part, columns)], dim=1)
            nearest = nearest.topk(min(k + 1, nearest.shape[1]), largest=False).values
        radii.append(nearest[:, k])
    return torch.cat(radii)


def inside(points, centres, radii, numbers=None):
    """Which points lie in the ball of at least one centre.  [N, D], [M, D], squared radii [M] -> float64 [N] of 0 and 1, or of a range"""
    rows, hits = points if numbers is None else points[numbers.start:numbers.stop], []
    for part in _chunks(rows):
        hit = torch.zeros(len(part), dtype=torch.bool, device=part.device)
        for columns, within in zip(_chunks(centres), radii.split(CHUNK), strict=True):
            hit |= (_squared_distances(part, columns) <= within).any(dim=1)
        hits.append(hit.double())
    return torch.cat(hits)


@in_full_precision
def precision_recall(real, fake, k=NEIGHBOUR, share=None):
    """How many of the images look real, and how much of what is real is drawn.

    real, fake: [N, D] and [M, D], features, tensors (whose device computes) or arrays; more than k rows each
    k:          which neighbour sets the radius of a ball
    share:      (number of rows, work of a range of them) -> what all have; None: this process does all. See metrics.collection.shared_rows
    Returns (precision, recall), floats in [0, 1]: the share of fake rows in a ball of a real one, and the other way round. Memory beyond
    the features is a copy of them and a few blocks of 1000 x 1000 distances. Raises ValueError for shapes that do not fit and numbers that
    are not finite.
    """
    real, fake = (torch.as_tensor(x).detach() for x in (real, fake))
    if real.ndim != 2 or fake.ndim != 2 or real.shape[1] != fake.shape[1] or not real.shape[1] or k < 1 or min(len(real), len(fake)) <= k:
        raise ValueError(f'features [N, D] and [M, D] with N, M > k = {k} >= 1 are needed, not {tuple(real.shape)} and {tuple(fake.shape)}')
    if not (real.isfinite().all() and fake.isfinite().all()):
        raise ValueError('features must be finite')
    share = share or (lambda total, work: work(range(total)))
    real, fake = (x.to(torch.promote_types(x.dtype, torch.float32)) for x in (real, fake))
    centre = real.mean(dim=0)  # large common offsets would cost digits
    real, fake = real - centre, fake - centre
    radii = [share(len(x), functools.partial(neighbour_radii, x, k)) for x in (real, fake)]
    precision = share(len(fake), functools.partial(inside, fake, real, radii[0])).mean()
    recall = share(len(real), functools.partial(inside, real, fake, radii[1])).mean()
    return precision.item(), recall.item()


def figures(real, drawn, subject):
    """(precision, recall) of the rows that two sets' FeatureStats have kept. All processes call this and share the rows."""
    rows = [to_everybody(stats.features, subject.device) for stats in (real, drawn)]
    return precision_recall(*rows, NEIGHBOUR, functools.partial(shared_rows, device=subject.device))


def notes(real, drawn):
    """What a reader should know of the figures of these sets."""
    if max(drawn.total, real.total) > max(real.kept, drawn.kept):
        yield f'neighbours are looked for among {max(real.kept, drawn.kept)} random images of each set'
