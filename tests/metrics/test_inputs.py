"""The public functions with what callers pass: every kind of number, autocast, another default type, empty and broken sets, odd images."""

import numpy as np
import pytest
import torch

from dnnlib.util import UserError
from metrics import detectors, inputs
from metrics.feature_stats import FeatureStats
from metrics.frechet_distance import frechet_distance
from metrics.inception_score import RunningScore, inception_score
from metrics.kernel_distance import kernel_distance
from metrics.metric_main import evaluate
from metrics.nearest import assess, pixel_vectors
from metrics.path_length import path_length
from metrics.precision_recall import precision_recall
from metrics.registry import parse
from metrics.scale_consistency import psnr, ssim
from metrics.sliced_wasserstein import swd
from metrics.subject import Subject
from tests import tiny_snapshots
from tests.metrics.test_metric_main import Pictures

A, B = np.random.RandomState(0).randint(0, 9, (2, 40, 5)).astype(np.float64)  # small whole numbers: the same in all types
KINDS = {
    'float64': lambda x: x, 'float32': lambda x: x.astype(np.float32), 'float16': lambda x: x.astype(np.float16),
    'uint8': lambda x: x.astype(np.uint8), 'list': lambda x: x.tolist(), 'tensor': torch.tensor,
    **{f'{kind} tensor': lambda x, kind=kind: torch.tensor(x).to(getattr(torch, kind))
       for kind in ('float32', 'float16', 'bfloat16', 'uint8')},
    'with gradient': lambda x: torch.tensor(x, requires_grad=True),
}


def moments(x):
    stats = FeatureStats(len(A))
    stats.add(x)
    return stats.mean_cov()


FUNCTIONS = {
    'moments': lambda a, b: np.concatenate([x.flatten() for x in moments(a)]),
    'frechet': lambda a, b: frechet_distance(moments(a)[0], np.eye(5), moments(b)[0], np.eye(5)),
    'kernel': lambda a, b: kernel_distance(a, b, num_subsets=3),
    'precision_recall': precision_recall,
    'nearest': lambda a, b: list(assess(a, b, b).numbers.values()),
}


@pytest.mark.parametrize('name', FUNCTIONS)
@pytest.mark.parametrize('kind', KINDS)
def test_any_kind_of_numbers(name, kind):
    a, b = KINDS[kind](A), KINDS[kind](B)
    assert FUNCTIONS[name](a, b) == pytest.approx(FUNCTIONS[name](A, B), rel=1e-5)


@pytest.mark.parametrize('name', FUNCTIONS)
def test_autocast_and_the_default_type_do_not_matter(name):
    a, b = torch.tensor(A).float(), torch.tensor(B).float() + 0.3
    expected = FUNCTIONS[name](a, b)
    with torch.autocast('cpu', torch.bfloat16):
        assert FUNCTIONS[name](a, b) == pytest.approx(expected, rel=1e-12)
    torch.set_default_dtype(torch.float64)
    try:
        assert FUNCTIONS[name](a, b) == pytest.approx(expected, rel=1e-12)
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize('name', ['kernel', 'precision_recall', 'nearest'])
def test_sets_that_are_refused(name):
    for bad in (A[:0], A[:, :0], A[0], np.full_like(A, np.nan), np.where(A == 3, np.inf, A)):
        other = B[:, :0] if bad.shape == (40, 0) else B
        with pytest.raises(ValueError, match=r'needed|finite') as info:
            FUNCTIONS[name](bad, other)
        assert '\n' not in str(info.value)


def test_what_is_no_covariance_is_refused():
    mean, cov = A.mean(axis=0), np.cov(A, rowvar=False)
    for bad in (-cov, np.triu(cov), np.diag([1, 1, 1, 1, -0.1])):
        with pytest.raises(ValueError, match='covariance'):
            frechet_distance(mean, cov, mean, bad)
    with pytest.raises(ValueError, match='needed'):
        frechet_distance([], np.zeros((0, 0)), [], np.zeros((0, 0)))
    given = [torch.tensor(x, requires_grad=True) for x in (mean, cov, mean + 1, cov)]
    assert frechet_distance(*given) == pytest.approx(5) and frechet_distance(*(x.bfloat16() for x in given)) == pytest.approx(5, rel=0.1)


def test_what_is_no_distribution_is_refused_on_the_way():
    probs = np.random.RandomState(0).dirichlet(np.ones(5), 50)
    assert inception_score(torch.tensor(probs).half()) == pytest.approx(inception_score(probs), rel=1e-3)
    for bad in (probs * np.nan, probs * 1.01, -probs, probs[0], np.log(probs)):
        with pytest.raises(ValueError, match='each row non-negative with sum 1'):
            RunningScore(50, 1).add(bad)


def test_distances_that_are_refused():
    for bad in ([-1e-9, 1], [], [[1.0, 2]], [np.inf]):
        with pytest.raises(ValueError, match='distances'):
            path_length(bad)
    assert path_length(torch.tensor([1e-8, 1e-8]).bfloat16().requires_grad_()) == pytest.approx(1, rel=0.01)
    with pytest.raises(ValueError, match='features'):
        FeatureStats(3).add(np.zeros(3))


def test_image_pairs():
    a = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    b = (a + 0.1).clamp(-1, 1)
    for measure in (psnr, ssim):
        expected = measure(a, b)
        with torch.autocast('cpu', torch.bfloat16):
            assert torch.equal(measure(a, b), expected)
        assert torch.allclose(measure(a.half(), b.half()), expected, rtol=1e-3) and measure(a.half(), b.half()).dtype == torch.float32
        for bad in (b[:1], b.to(torch.uint8), b[0]):
            with pytest.raises(ValueError, match='images'):
                measure(a, bad)


def pixels(channels=3, size=32):
    return torch.randint(0, 256, (3, channels, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope='module')
def lite0():
    return detectors.load('efficientnet-lite0')


def test_features_in_any_surroundings(lite0):
    """Without a word, autocast would move features by 3 percent."""
    images = pixels()
    with torch.no_grad():
        expected = lite0.features(images)
        probs = lite0.probabilities(images, expected)
        with torch.autocast('cpu', torch.bfloat16):
            assert torch.equal(lite0.features(images), expected) and torch.equal(lite0.probabilities(images, expected), probs)
            assert lite0.embed(images[:1] / 127.5 - 1).dtype == torch.float32
        torch.set_default_dtype(torch.float64)
        try:
            assert torch.equal(detectors.load('efficientnet-lite0').features(images), expected)
        finally:
            torch.set_default_dtype(torch.float32)
        assert torch.equal(lite0.features(images.numpy()), expected) and lite0.features(images[:0]).shape == (0, 1280)
        assert torch.equal(lite0.features(torch.cat([images, images[:, :1]], dim=1)), expected)
        grey = images[:, :1]
        assert torch.equal(lite0.features(grey), lite0.features(grey.repeat(1, 3, 1, 1)))
        assert lite0.features(images[:1, :, :1, :1]).isfinite().all()


@pytest.mark.parametrize('function', ['features', 'pixel_vectors', 'swd'])
def test_images_that_are_no_bytes_are_refused(function, lite0):
    """Floats would be taken for bytes: nearly black images, and a score all the same."""
    call = {'features': lite0.features, 'pixel_vectors': pixel_vectors, 'swd': lambda x: swd(x, x)}[function]
    for bad in (pixels().float(), pixels() / 127.5 - 1, pixels(channels=2), pixels().long()):
        with pytest.raises(ValueError, match='uint8 images .* are needed'):
            call(bad)


def test_swd_in_any_surroundings():
    a, b = pixels(size=16), pixels(size=16).flip(2)
    expected = swd(a, b)
    with torch.autocast('cpu', torch.bfloat16):
        assert swd(a, b) == expected
    assert swd(a.numpy(), b) == expected and swd(a[:1], b[:1])['swd'] > 0


def test_a_generator_that_draws_nan_is_refused():
    """Turned to bytes its images would be black, and have a score."""
    G = tiny_snapshots.stylegan2().eval()
    G.synthesis.b16.torgb.bias.data.fill_(torch.nan)
    with pytest.raises(UserError, match='swd: images 0 and after are not all finite') as info:
        list(evaluate([parse('swd2k').with_num(4)], Subject(Pictures(8), G)))
    assert '\n' not in str(info.value)


def test_autocast_is_put_back():
    with torch.autocast('cpu', torch.bfloat16):
        with inputs.full_precision():
            assert not torch.is_autocast_enabled('cpu')
        assert torch.is_autocast_enabled('cpu')
