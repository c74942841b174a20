"""Fréchet distance of two Gaussians: FID when the features are the 2015 Inception's (Heusel et al., arXiv 1706.08500, eq. 6)."""

import numpy as np

from metrics.inputs import array

PARTS = (4, 3, 2, 1)  # --extrapolate looks at 1/4, 1/3, 1/2 of the images and at all of them


def frechet_distance(mu_a, cov_a, mu_b, cov_b):
    """|mu_a - mu_b|^2 + tr(cov_a) + tr(cov_b) - 2 tr((cov_a cov_b)^(1/2)).

    mu_a, mu_b:   [D], means
    cov_a, cov_b: [D, D], symmetric, may be singular (fewer samples than features): negative eigenvalues, which only rounding makes, are
                  taken as 0
    Returns a float in squared units of the features, at least 0. Raises ValueError for shapes that do not fit, for infinities, and for
    matrices that are no covariances.

    The trace of the root is the sum of the singular values of A^T B, where cov_a = A A^T and cov_b = B B^T are symmetric factors: unlike
    the roots of the eigenvalues of cov_a cov_b it does not blow rounding errors up from eps to eps^(1/2) where an eigenvalue is 0.
    """
    mu_a, cov_a, mu_b, cov_b = (array(x).astype(np.float64) for x in (mu_a, cov_a, mu_b, cov_b))
    for mu, cov in ((mu_a, cov_a), (mu_b, cov_b)):
        if mu.shape != mu_a.shape or mu.ndim != 1 or not len(mu) or cov.shape != (len(mu), len(mu)):
            raise ValueError(f'means [D] and covariances [D, D] of one D are needed, not {[x.shape for x in (mu_a, cov_a, mu_b, cov_b)]}')
        if not (np.isfinite(mu).all() and np.isfinite(cov).all()):
            raise ValueError('means and covariances must be finite')
        if np.abs(cov - cov.T).max() > 1e-3 * np.abs(cov).max():
            raise ValueError('covariances must be symmetric')
    roots = np.linalg.svd(symmetric_factor(cov_a).T @ symmetric_factor(cov_b), compute_uv=False)
    distance = np.square(mu_a - mu_b).sum() + np.trace(cov_a) + np.trace(cov_b) - 2 * roots.sum()
    return max(float(distance), 0.0)


def symmetric_factor(cov):
    """A [D, rank] with cov = A A^T, from the eigenvectors of a symmetric [D, D]; eigenvalues that are 0 but for rounding are left out."""
    values, vectors = np.linalg.eigh((cov + cov.T) / 2)
    if values.min(initial=0) < -1e-3 * np.abs(values).max(initial=0):
        raise ValueError(f'no covariance: an eigenvalue is {values.min():.3g}, the largest {values.max():.3g}')
    kept = values > max(values.max(initial=0), 0) * len(cov) * np.finfo(np.float64).eps
    return vectors[:, kept] * np.sqrt(values[kept])


def extrapolated(counts, distances):
    """The distance that an unlimited number of samples would have: distances fitted by a line in 1/N (Chong and Forsyth, arXiv 1911.07023).

    counts, distances: numbers of samples N, at least two different ones, and the distances measured with them
    Returns (distance at 1/N = 0, slope in distance times N, root mean square residual of the fit). Raises ValueError for too few counts.
    """
    counts, distances = np.asarray(counts, np.float64), np.asarray(distances, np.float64)
    if len(np.unique(counts)) < 2:
        raise ValueError('a line in 1/N needs at least two different numbers of samples')
    design = np.stack([np.ones_like(counts), 1 / counts], axis=1)
    (limit, slope), *_rest = np.linalg.lstsq(design, distances, rcond=None)
    residual = np.sqrt(np.mean(np.square(design @ [limit, slope] - distances)))
    return float(limit), float(slope), float(residual)


def figures(real, drawn, subject):
    """The distance of two sets' FeatureStats, and with subject.extrapolate (limit, slope, residual) of the line in 1/N."""
    reference = real.mean_cov()
    score = frechet_distance(*reference, *drawn.mean_cov())
    if not subject.extrapolate:
        return [score]
    order = np.random.RandomState(0).permutation(drawn.total)
    counts = [drawn.total // part for part in PARTS]
    if counts[0] < 2:
        raise ValueError(f'--extrapolate needs more than {drawn.total} images')
    rows = [drawn.features[order[:count]].astype(np.float64) for count in counts[:-1]]
    distances = [frechet_distance(*reference, x.mean(axis=0), np.cov(x, rowvar=False)) for x in rows]
    return [score, *extrapolated(counts, [*distances, score])]


def notes(real, drawn):
    """What a reader should know of a distance of these sets."""
    smaller, features = min(drawn.total, real.total), drawn.dim or 0
    if smaller <= features:
        yield f'{smaller} images have a singular covariance of {features} features: compare with scores of the same numbers only'
    if drawn.total < 50_000:
        yield f'{drawn.total} images: the distance is larger than that of 50,000 would be, see --extrapolate'
