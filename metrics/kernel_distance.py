"""Kernel distance: KID when the features are the 2015 Inception's (Binkowski et al., arXiv 1801.01401, section 4)."""

import numpy as np

from metrics.inputs import feature_sets


def cubic_kernel(a, b):
    """(a.b / D + 1)^3 of all pairs of rows.  [N, D], [M, D] -> [N, M], float64"""
    return (a @ b.T / a.shape[1] + 1) ** 3


def unbiased_mmd(a, b):
    """The unbiased estimate of the squared maximum mean discrepancy under the cubic kernel; it may be negative.

    a, b: float64 [N, D] and [M, D], at least two rows each
    """
    n, m = len(a), len(b)
    within_a, within_b = cubic_kernel(a, a), cubic_kernel(b, b)
    return ((within_a.sum() - np.trace(within_a)) / (n * (n - 1)) + (within_b.sum() - np.trace(within_b)) / (m * (m - 1))
            - 2 * cubic_kernel(a, b).mean())


def kernel_distance(a, b, subset_size=1000, num_subsets=100, seed=0):
    """Unbiased MMD^2 with the cubic kernel, over random subsets.

    a, b:        [N, D] and [M, D], features of the two sets
    subset_size: rows of each set in a subset, drawn without putting back; at most the smaller of N and M are taken
    num_subsets: subsets drawn
    seed:        of the subsets
    Returns (mean, standard deviation over the subsets), floats. The deviation tells of one subset, not of the mean; subsets overlap, so it
    does not shrink with their number. Raises ValueError for shapes that do not fit, fewer than 2 rows, and numbers that are not finite.
    """
    a, b = feature_sets(a, b, rows=2)
    size = min(subset_size, len(a), len(b))
    if size < 2 or num_subsets < 1:
        raise ValueError(f'at least 2 rows in a subset and 1 subset are needed, not {size} and {num_subsets}')
    random = np.random.RandomState(seed)
    values = [unbiased_mmd(*(x[random.choice(len(x), size, replace=False)].astype(np.float64) for x in (a, b)))
              for _ in range(num_subsets)]
    return float(np.mean(values)), float(np.std(values))


def figures(real, drawn, _subject):
    """(mean, deviation) of the rows that two sets' FeatureStats have kept."""
    return kernel_distance(real.features, drawn.features)


def notes(real, drawn):
    """What a reader should know of a distance of these sets."""
    if max(drawn.total, real.total) > max(real.kept, drawn.kept):
        yield f'subsets are drawn from {max(real.kept, drawn.kept)} random images of each set'
