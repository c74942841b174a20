"""Improved precision and recall (Kynkäänniemi et al., arXiv 1904.06991, eqs. 1 to 3): k-nearest-neighbour balls in feature space."""

import numpy as np

CHUNK = 1000  # rows compared at once


def _squared_distances(a, b):
    """[N, D], [M, D], float64 -> [N, M] >= 0."""
    return np.maximum(np.square(a).sum(axis=1)[:, None] + np.square(b).sum(axis=1) - 2 * a @ b.T, 0)


def _chunks(x):
    return (x[first:first + CHUNK].astype(np.float64) for first in range(0, len(x), CHUNK))


def neighbour_radii(x, k):
    """Squared distance of each row to its k-th nearest other row.  [N, D] -> [N]

    The nearest of all, at distance 0, is the row itself and is left out by its place in the order.
    """
    radii = []
    for rows in _chunks(x):
        nearest = np.full((len(rows), 0), np.inf)
        for columns in _chunks(x):
            nearest = np.concatenate([nearest, _squared_distances(rows, columns)], axis=1)
            nearest = np.partition(nearest, min(k, nearest.shape[1] - 1), axis=1)[:, :k + 1]
        radii.append(np.sort(nearest, axis=1)[:, k])
    return np.concatenate(radii)


def share_inside(points, centres, radii):
    """The share of points that lie in the ball of at least one centre.  [N, D], [M, D], squared radii [M] -> a float"""
    inside = 0
    for rows in _chunks(points):
        hit = np.zeros(len(rows), bool)
        for first, columns in zip(range(0, len(centres), CHUNK), _chunks(centres), strict=True):
            hit |= (_squared_distances(rows, columns) <= radii[first:first + CHUNK]).any(axis=1)
        inside += hit.sum()
    return float(inside / len(points))


def precision_recall(real, fake, k=3):
    """How many of the images look real, and how much of what is real is drawn.

    real, fake: [N, D] and [M, D], features; more than k rows each
    k:          which neighbour sets the radius of a ball
    Returns (precision, recall), floats in [0, 1]: the share of fake rows in a ball of a real one, and the other way round. Memory beyond
    the features is a few blocks of 1000 x 1000 distances. Raises ValueError for shapes that do not fit and numbers that are not finite.
    """
    real, fake = np.asarray(real), np.asarray(fake)
    if real.ndim != 2 or fake.ndim != 2 or real.shape[1] != fake.shape[1] or k < 1 or min(len(real), len(fake)) <= k:
        raise ValueError(f'features [N, D] and [M, D] with N, M > k = {k} >= 1 are needed, not {real.shape} and {fake.shape}')
    if not (np.isfinite(real).all() and np.isfinite(fake).all()):
        raise ValueError('features must be finite')
    centre = real.mean(axis=0, dtype=np.float64)  # large common offsets would cost digits
    real, fake = real - centre, fake - centre
    return share_inside(fake, real, neighbour_radii(real, k)), share_inside(real, fake, neighbour_radii(fake, k))
