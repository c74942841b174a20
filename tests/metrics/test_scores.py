"""Scores by known answers: analytic Gaussians, identical sets, sure and equal classifiers, a kernel by hand."""

import numpy as np
import pytest

from metrics.frechet_distance import frechet_distance, moments
from metrics.inception_score import inception_score
from metrics.kernel_distance import kernel_distance


def test_frechet_distance_of_gaussians_along_the_axes():
    """With diagonal covariances it is |d mu|^2 + sum (s_a - s_b)^2."""
    random = np.random.RandomState(0)
    mu_a, mu_b, s_a, s_b = random.rand(4, 6)
    expected = np.square(mu_a - mu_b).sum() + np.square(s_a - s_b).sum()
    assert frechet_distance(mu_a, np.diag(s_a**2), mu_b, np.diag(s_b**2)) == pytest.approx(expected, rel=1e-9)
    turn = np.linalg.qr(random.randn(6, 6))[0]
    turned = frechet_distance(turn @ mu_a, turn @ np.diag(s_a**2) @ turn.T, turn @ mu_b, turn @ np.diag(s_b**2) @ turn.T)
    assert turned == pytest.approx(expected, rel=1e-9)


def test_frechet_distance_where_covariances_do_not_commute():
    """In two dimensions tr (A B)^(1/2) = sqrt(tr AB + 2 sqrt(det AB))."""
    A, B = np.array([[2.0, 0.5], [0.5, 1.0]]), np.array([[1.0, -0.7], [-0.7, 3.0]])
    root = np.sqrt(np.trace(A @ B) + 2 * np.sqrt(np.linalg.det(A @ B)))
    expected = np.trace(A) + np.trace(B) - 2 * root
    assert frechet_distance(np.zeros(2), A, np.zeros(2), B) == pytest.approx(expected, rel=1e-9)


def test_frechet_distance_of_fewer_samples_than_features_to_itself_is_zero():
    mu, cov = moments(np.random.RandomState(0).randn(5, 20))
    assert frechet_distance(mu, cov, mu, cov) == pytest.approx(0, abs=1e-6)
    assert frechet_distance(mu + 1, cov, mu, cov) == pytest.approx(20, rel=1e-6)


def test_kernel_distance_by_hand_and_its_sign():
    a, b = np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([[1.0, 1.0], [2.0, 0.0]])
    # within a: (0/2+1)^3 = 1; within b: (2/2+1)^3 = 8; between: mean of 1.5^3, 2^3, 1.5^3, 1
    expected = 1 + 8 - 2 * np.mean([1.5**3, 2**3, 1.5**3, 1])
    assert kernel_distance(a, b, 2, 3) == (pytest.approx(expected), pytest.approx(0))
    random = np.random.RandomState(1)
    same = kernel_distance(random.randn(400, 8), random.randn(400, 8), 200, 50)
    moved = kernel_distance(random.randn(400, 8), random.randn(400, 8) + 1, 200, 50)
    assert abs(same[0]) < 0.05 and moved[0] > 20 * abs(same[0])
    with pytest.raises(ValueError, match='there are 1 and 5'):
        kernel_distance(np.zeros((1, 2)), np.zeros((5, 2)))


def test_inception_score_between_its_ends():
    sure = np.eye(10)[np.arange(100) % 10]
    assert inception_score(sure, 5) == (pytest.approx(10), pytest.approx(0))
    assert inception_score(np.full((100, 10), 0.1), 5) == (pytest.approx(1), pytest.approx(0))
    assert inception_score(np.eye(10)[np.zeros(100, int)], 1)[0] == pytest.approx(1)
    half = np.array([[0.75, 0.25], [0.25, 0.75]])
    assert inception_score(half, 1)[0] == pytest.approx(np.exp(0.75 * np.log(1.5) + 0.25 * np.log(0.5)))
    with pytest.raises(ValueError, match='3 images are too few'):
        inception_score(np.full((3, 2), 0.5), 4)
