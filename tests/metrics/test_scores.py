"""The pure functions of features, by known answers and second sources."""

import warnings

import numpy as np
import pytest
import scipy.linalg
import torch

from metrics.feature_stats import FeatureStats
from metrics.frechet_distance import extrapolated, frechet_distance, symmetric_factor
from metrics.inception_score import RunningScore, inception_score
from metrics.kernel_distance import kernel_distance, unbiased_mmd
from metrics.path_length import path_length, path_pair, prepared, slerp
from metrics.precision_recall import neighbour_radii, precision_recall


def random_cov(size, seed, rank=None):
    root = np.random.RandomState(seed).randn(size, rank or 2 * size)
    return root @ root.T / root.shape[1]


# ---- Fréchet distance


def test_frechet_of_commuting_gaussians():
    rng = np.random.RandomState(0)
    basis = np.linalg.qr(rng.randn(24, 24))[0]
    a, b = rng.rand(24) * 5, rng.rand(24) * 5
    mu_a, mu_b = rng.randn(24), rng.randn(24)
    expected = np.square(mu_a - mu_b).sum() + np.square(np.sqrt(a) - np.sqrt(b)).sum()
    assert frechet_distance(mu_a, basis * a @ basis.T, mu_b, basis * b @ basis.T) == pytest.approx(expected, rel=1e-12)


def test_frechet_of_any_two_gaussians_in_the_plane():
    """tr (AB)^(1/2) of 2 x 2 matrices is (tr AB + 2 (det AB)^(1/2))^(1/2)."""
    a, b = random_cov(2, 1), random_cov(2, 2)
    root = np.sqrt(np.trace(a @ b) + 2 * np.sqrt(np.linalg.det(a @ b)))
    expected = np.trace(a) + np.trace(b) - 2 * root
    assert frechet_distance([0, 0], a, [0, 0], b) == pytest.approx(expected, rel=1e-9)


def test_frechet_agrees_with_scipy():
    a, b = random_cov(48, 3), random_cov(48, 4)
    expected = 3.0 ** 2 + np.trace(a) + np.trace(b) - 2 * np.trace(scipy.linalg.sqrtm(a @ b).real)
    assert frechet_distance(np.eye(48)[0] * 3, a, np.zeros(48), b) == pytest.approx(expected, rel=1e-8)


def test_frechet_of_a_set_with_itself_and_shifted():
    a = random_cov(64, 5, rank=10)  # singular
    assert frechet_distance(np.ones(64), a, np.ones(64), a) < 1e-10 * np.trace(a)
    assert frechet_distance(np.ones(64), a, np.full(64, 1.5), a) == pytest.approx(64 * 0.25, rel=1e-10)


def test_frechet_of_singular_covariances_keeps_its_digits():
    """Two ranges that meet in one direction only: rounding under a root would show in the fifth digit."""
    rng = np.random.RandomState(6)
    basis = np.linalg.qr(rng.randn(400, 400))[0]
    a = 1e4 * basis[:, :20] @ basis[:, :20].T
    b = 1e-2 * basis[:, 19:60] @ basis[:, 19:60].T
    expected = 20 * 1e4 + 41 * 1e-2 - 2 * 10
    assert frechet_distance(np.zeros(400), a, np.zeros(400), b) == pytest.approx(expected, rel=1e-11)
    assert symmetric_factor(a).shape == (400, 20)


def test_frechet_of_a_collapsed_set_is_the_trace():
    a = random_cov(8, 7)
    assert frechet_distance(np.zeros(8), a, np.zeros(8), np.zeros((8, 8))) == pytest.approx(np.trace(a), rel=1e-12)


def test_frechet_of_samples_approaches_the_known_distance():
    rng = np.random.RandomState(8)
    mix = rng.randn(6, 6)
    true = frechet_distance(np.zeros(6), mix.T @ mix, np.ones(6), np.eye(6))
    stats = [FeatureStats(200_000), FeatureStats(200_000)]
    for _part in range(20):
        stats[0].add(rng.randn(10_000, 6) @ mix)
        stats[1].add(rng.randn(10_000, 6) + 1)
    assert frechet_distance(*stats[0].mean_cov(), *stats[1].mean_cov()) == pytest.approx(true, rel=0.01)


def test_frechet_refuses():
    for args in (([0, 0], np.eye(2), [0], np.eye(1)), ([0], np.eye(2), [0], np.eye(2)), ([np.nan], np.eye(1), [0], np.eye(1))):
        with pytest.raises(ValueError):
            frechet_distance(*args)


def test_extrapolation_finds_the_line():
    counts = np.array([1000, 2000, 5000])
    limit, slope, residual = extrapolated(counts, 7.5 + 4000 / counts)
    assert (limit, slope) == pytest.approx((7.5, 4000)) and residual < 1e-9
    assert extrapolated([1, 2, 4], [1, 0, 1])[2] > 0.1
    with pytest.raises(ValueError, match='two different'):
        extrapolated([10, 10], [1, 2])


# ---- Kernel distance


def test_mmd_by_hand():
    a, b = np.array([[0.0], [1.0]]), np.array([[2.0], [3.0]])
    def kernel(x, y):
        return (x * y + 1) ** 3
    expected = kernel(0, 1) + kernel(2, 3) - 2 * np.mean([kernel(0, 2), kernel(0, 3), kernel(1, 2), kernel(1, 3)])
    assert unbiased_mmd(a, b) == pytest.approx(expected)
    assert kernel_distance(a, b, num_subsets=3) == (pytest.approx(expected), pytest.approx(0, abs=1e-9))


def test_kernel_distance_is_unbiased_and_sees_a_shift():
    """One feature: E k = 1 + 3 E x E y + 3 E x^2 E y^2 + E x^3 E y^3, so the MMD is made of the differences of three moments."""
    rng = np.random.RandomState(0)
    a, b = rng.uniform(-1, 1, (2, 50_000, 1))
    moved = [((b + 0.5) ** power).mean() - (a ** power).mean() for power in (1, 2, 3)]
    true = 3 * moved[0] ** 2 + 3 * moved[1] ** 2 + moved[2] ** 2
    mean, std = kernel_distance(a, b + 0.5, 500, 200)
    assert mean == pytest.approx(true, abs=3 * std / 200 ** 0.5) and std < 0.2 * true
    mean, std = kernel_distance(a, b, 500, 200)
    assert abs(mean) < 4 * std / 200 ** 0.5  # a biased estimate would be 0.005, ten times as much
    assert 0.0005 < std < 0.01


def test_kernel_distance_is_a_function_of_its_seed():
    x = np.random.RandomState(0).randn(2, 300, 4)
    assert kernel_distance(*x, 50, 5, seed=1) == kernel_distance(*x, 50, 5, seed=1) != kernel_distance(*x, 50, 5, seed=2)
    for bad in ((x[0], x[1][:, :2]), (x[0][:1], x[1]), (x[0], x[1] * np.inf)):
        with warnings.catch_warnings(action='ignore'), pytest.raises(ValueError):
            kernel_distance(*bad)


# ---- Inception score


def test_inception_score_of_known_distributions():
    certain = np.eye(10)[np.arange(200) % 10]
    assert inception_score(certain, 10) == (pytest.approx(10), pytest.approx(0, abs=1e-9))
    assert inception_score(np.full((50, 10), 0.1), 5) == (pytest.approx(1), pytest.approx(0, abs=1e-9))
    mean, std = inception_score(np.repeat(np.eye(4)[[0, 1]], 10, axis=0), 2)  # each part sees one class
    assert (mean, std) == (pytest.approx(1), pytest.approx(0, abs=1e-9))
    assert inception_score(np.repeat(np.eye(4)[[0, 1]], 10, axis=0), 1)[0] == pytest.approx(2)
    two = np.array([[0.75, 0.25], [0.25, 0.75]])
    assert inception_score(two, 1)[0] == pytest.approx(np.exp(0.75 * np.log(1.5) + 0.25 * np.log(0.5)))


def test_inception_score_streams():
    probs = np.random.RandomState(0).dirichlet(np.ones(7), 103)
    running = RunningScore(103, 4)
    for first in range(0, 103, 10):
        running.add(probs[first:first + 10])
    assert running.result() == pytest.approx(inception_score(probs, 4), rel=1e-12)
    with pytest.raises(ValueError, match='10 rows have come'):
        short = RunningScore(20, 2)
        short.add(probs[:10])
        short.result()
    for bad, splits in ((probs * 2, 2), (probs, 104), (probs, 0), (-probs, 1)):
        with pytest.raises(ValueError):
            inception_score(bad, splits)


# ---- Precision and recall


def brute_force(real, fake, k):
    distances = [[[float(((p - q) ** 2).sum()) for q in b] for p in a] for a, b in ((real, real), (fake, fake), (fake, real))]
    radius = [[sorted(row)[k] for row in square] for square in distances[:2]]
    precision = np.mean([any(d <= r for d, r in zip(row, radius[0], strict=True)) for row in distances[2]])
    recall = np.mean([any(distances[2][j][i] <= radius[1][j] for j in range(len(fake))) for i in range(len(real))])
    return precision, recall


def test_precision_recall_by_brute_force(monkeypatch):
    rng = np.random.RandomState(0)
    real, fake = rng.randn(61, 3), rng.randn(43, 3) + 1.2
    expected = brute_force(real, fake, 3)
    assert 0.3 < min(expected) and max(expected) < 1
    for chunk in (1000, 10):
        monkeypatch.setattr('metrics.precision_recall.CHUNK', chunk)
        assert precision_recall(real, fake, 3) == expected
        assert precision_recall(real + 1000, fake + 1000, 3) == expected


def test_precision_recall_of_known_sets():
    rng = np.random.RandomState(1)
    real = rng.randn(400, 4)
    assert precision_recall(real, real) == (1, 1)
    assert precision_recall(real, real + 100) == (0, 0)
    collapsed = real[:1] + 1e-3 * rng.randn(400, 4)
    precision, recall = precision_recall(real, collapsed)
    assert precision == 1 and recall < 0.02
    wide = precision_recall(real, real * 4)
    assert wide[0] < 0.5 < wide[1]
    line = torch.tensor([[0.0], [1.0], [3.0], [7.0]])
    assert neighbour_radii(line, 2).tolist() == [9, 4, 9, 36] and neighbour_radii(line, 2, range(1, 3)).tolist() == [4, 9]
    with pytest.raises(ValueError, match='N, M > k = 3'):
        precision_recall(real[:3], real)


# ---- Feature statistics


def test_statistics_stream_in_any_batches():
    x = np.random.RandomState(0).randn(1000, 5).astype(np.float32) + 1000  # squares would cancel in float32
    results = []
    for size in (1, 7, 1000):
        stats = FeatureStats(1000, kept=300, seed=3)
        for first in range(0, 1000, size):
            stats.add(x[first:first + size])
        results.append(stats)
    expected = np.cov(x.astype(np.float64), rowvar=False)
    for stats in results:
        mean, cov = stats.mean_cov()
        assert mean == pytest.approx(x.astype(np.float64).mean(axis=0), rel=1e-13) and cov == pytest.approx(expected, rel=1e-9, abs=1e-11)
        assert np.array_equal(stats.features, results[0].features) and len(stats.features) == 300
    assert len(np.unique(results[0].features, axis=0)) == 300
    chosen = [int(np.flatnonzero((x == row).all(axis=1))[0]) for row in results[0].features]
    assert chosen == sorted(chosen) and 400 < np.mean(chosen) < 600  # spread over the set, not its first rows


def test_statistics_survive_the_disk(tmp_path):
    """Saved half-way, loaded and gone on with, they are what they would have been."""
    x, probs = np.random.RandomState(0).randn(20, 3), np.random.RandomState(0).dirichlet(np.ones(4), 20)
    stats, again = FeatureStats(20, kept=10, splits=2), FeatureStats(20, kept=10, splits=2)
    stats.add(x[:7], probs[:7])
    stats.save(tmp_path / 'sub' / 'a.npz')
    again.load(tmp_path / 'sub' / 'a.npz')
    for each in (stats, again):
        each.add(x[7:], probs[7:])
    assert again.rows == 20 and np.array_equal(again.features, stats.features) and again.score.result() == stats.score.result()
    assert all(np.array_equal(a, b) for a, b in zip(again.mean_cov(), stats.mean_cov(), strict=True))
    assert [path.name for path in (tmp_path / 'sub').iterdir()] == ['a.npz']
    np.savez(tmp_path / 'b.npz', x=1)
    for other, path in ((FeatureStats(20), tmp_path / 'b.npz'), (FeatureStats(21), tmp_path / 'sub' / 'a.npz')):
        with pytest.raises(ValueError, match='holds statistics of another set'):
            other.load(path)


def test_statistics_refuse():
    with pytest.raises(ValueError, match='not all finite'):
        FeatureStats(2).add(np.array([[np.nan]]))
    one = FeatureStats(1)
    one.add(np.zeros((1, 2)))
    with pytest.raises(ValueError, match='at least 2 images, there are 1'):
        one.mean_cov()


# ---- Path length


def test_slerp_walks_the_great_circle():
    a, b = torch.tensor([[2.0, 0, 0]]), torch.tensor([[0, 5.0, 0]])
    for t in (0.0, 0.25, 1.0):
        angle = torch.tensor(t * np.pi / 2)
        expected = torch.stack([angle.cos(), angle.sin(), torch.tensor(0.0)])
        assert torch.allclose(slerp(a, b, torch.full((1, 1), t))[0], expected, atol=1e-6)


def test_path_length_of_a_linear_generator():
    """G(w) = A w: a step of eps from w0 to w1 changes the image by eps A (w1 - w0), so the length is |A (w1 - w0)|^2 wherever it begins."""
    random = torch.Generator().manual_seed(0)
    A, z = torch.randn(5, 4, dtype=torch.float64), torch.randn(2, 40, 4, dtype=torch.float64)
    for at_end in (True, False):
        pair = path_pair(lambda z, c: z[:, None], z, None, 'w', at_end, random)
        drawn = [ws[:, 0] @ A.T for ws in pair]
        distances = (drawn[0] - drawn[1]).square().sum(dim=1)
        lengths = ((z[1] - z[0]) @ A.T).square().sum(dim=1).numpy()
        assert distances.numpy() / 1e-8 == pytest.approx(lengths, rel=1e-6)
        kept = np.sort(lengths)  # of 40 samples the 1st and 99th percentile are the first and last
        assert path_length(distances) == pytest.approx(kept.mean(), rel=1e-6)
        if at_end:
            assert torch.equal(pair[0][:, 0], z[0])


def test_path_length_in_z_is_an_angle():
    z = torch.tensor([[[1.0, 0]], [[0, 2.0]]], dtype=torch.float64)
    pair = path_pair(lambda z, c: z[:, None], z, None, 'z', False, torch.Generator().manual_seed(1))
    assert (pair[0] - pair[1]).norm().item() == pytest.approx(1e-4 * np.pi / 2, rel=1e-6)


def test_path_length_leaves_outliers_out():
    distances = np.ones(1000) * 1e-8
    distances[:5], distances[-5:] = 0, 1
    assert path_length(distances) == pytest.approx(1)
    assert path_length(np.arange(1001)) == pytest.approx(500 / 1e-8)
    with pytest.raises(ValueError):
        path_length([np.nan])


def test_path_images_are_cut_and_shrunk():
    image = torch.arange(64.0).reshape(1, 1, 8, 8)
    assert torch.equal(prepared(image, crop=True), image[:, :, 3:7, 2:6]) and prepared(image, crop=False) is image
    faces = torch.randn(1, 1, 1024, 1024)
    assert torch.allclose(prepared(faces, crop=True)[0, 0, 0, 0], faces[0, 0, 384:386, 256:258].mean())
    assert prepared(faces, crop=True).shape == prepared(faces[:, :, :512, :512], crop=True).shape == (1, 1, 256, 256)  # of what is left
    large = torch.randn(1, 1, 512, 512)
    assert torch.allclose(prepared(large, crop=False)[0, 0, 3, 5], large[0, 0, 6:8, 10:12].mean())
