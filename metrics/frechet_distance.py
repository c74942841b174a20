"""Frechet distance of two Gaussians, which FID is with Inception features (Heusel et al. 2017, arXiv 1706.08500, eq. 6)."""

import numpy as np


def moments(features):
    """(mean [D], covariance [D, D]) of features [N, D], in float64."""
    features = np.asarray(features, dtype=np.float64)
    return features.mean(axis=0), np.cov(features, rowvar=False)


def frechet_distance(mu_a, cov_a, mu_b, cov_b):
    """|mu_a - mu_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^(1/2)), with the trace of the root from the symmetric C_a^(1/2) C_b C_a^(1/2).

    mu_a, mu_b: [D]; cov_a, cov_b: [D, D], symmetric, may be singular (fewer samples than features). Returns a float, at least 0.
    """
    mu_a, cov_a, mu_b, cov_b = (np.asarray(x, dtype=np.float64) for x in (mu_a, cov_a, mu_b, cov_b))
    values, vectors = np.linalg.eigh(cov_a)
    root = (vectors * np.sqrt(values.clip(min=0))) @ vectors.T
    trace = np.sqrt(np.linalg.eigvalsh(root @ cov_b @ root).clip(min=0)).sum()
    return float(max(np.square(mu_a - mu_b).sum() + np.trace(cov_a) + np.trace(cov_b) - 2 * trace, 0))
