"""Kernel distance: squared MMD with a cubic kernel, which KID is with Inception features (Binkowski et al. 2018, arXiv 1801.01401)."""

import numpy as np


def kernel_distance(a, b, subset_size=1000, num_subsets=100, seed=0):
    """Unbiased squared MMD of features a [N, D] and b [M, D] with the kernel (x.y / D + 1)^3, over random subsets.

    subset_size: of each subset, at most min(N, M); num_subsets: how many; seed: of their choice
    Returns (mean, standard deviation) over the subsets. Around 0, and as often below, where both come from one distribution.
    Raises ValueError for fewer than two samples.
    """
    a, b = (np.asarray(x, dtype=np.float64) for x in (a, b))
    size = min(subset_size, len(a), len(b))
    if size < 2:
        raise ValueError(f'a kernel distance needs two samples or more, there are {len(a)} and {len(b)}')
    random, found = np.random.RandomState(seed), []
    for _ in range(num_subsets):
        x, y = (features[random.choice(len(features), size, replace=False)] for features in (a, b))
        k_xx, k_yy, k_xy = ((p @ q.T / a.shape[1] + 1) ** 3 for p, q in ((x, x), (y, y), (x, y)))
        within = (k_xx.sum() - np.trace(k_xx) + k_yy.sum() - np.trace(k_yy)) / (size * (size - 1))
        found.append(within - 2 * k_xy.mean())
    return float(np.mean(found)), float(np.std(found))
