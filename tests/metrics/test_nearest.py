"""Nearest training images by brute force, and planted copies: as they are, flipped, noisy."""

import numpy as np
import pytest
import torch

from metrics.nearest import assess, feature_vectors, neighbours, pixel_vectors
from tests.metrics.test_sliced_wasserstein import pictures


def brute_force(rows, bank, flipped, left_out):
    """For each row: (distance, item, mirrored) of all training images that count, the nearest first."""
    found = []
    for row, out in zip(rows, left_out, strict=True):
        pairs = [min((float((row - x[i]).norm()), i, mirrored) for mirrored, x in enumerate((bank, flipped)))
                 for i in range(len(bank)) if i not in out]
        found.append(sorted(pairs))
    return found


@pytest.mark.parametrize('offset', [0, 1000])
def test_neighbours_by_brute_force(offset, monkeypatch):
    monkeypatch.setattr('metrics.nearest.BLOCK', 7)
    rows, bank, flipped = (torch.randn(n, 5, dtype=torch.float64) + offset for n in (20, 31, 31))
    left_out = np.stack([np.arange(20), np.arange(20) + 3], axis=1)
    for out in (None, left_out):
        found = neighbours(rows, bank, flipped, 3, out)
        expected = brute_force(rows, bank, flipped, [()] * 20 if out is None else out)
        assert found.distances == pytest.approx(np.array([[d for d, *_ in row[:3]] for row in expected]), abs=1e-4 if offset else 1e-5)
        assert found.items.tolist() == [[i for _, i, _ in row[:3]] for row in expected]
        assert found.mirrored.tolist() == [[bool(m) for *_, m in row[:3]] for row in expected]


def test_few_images_and_what_is_refused():
    x = torch.randn(3, 4)
    assert neighbours(x, x, x, 5).items.shape == (3, 3) and neighbours(x, x, x, 1).distances.max() == 0
    assert neighbours(x, x, x, 5, np.arange(3)[:, None]).items.shape == (3, 2)
    itself = np.zeros((3, 1), int)
    for rows, bank, out, message in ((x[:0], x, None, 'needed'), (x[:, :2], x, None, 'needed'), (x, x[:1], itself, 'at least 2'),
                                     (x * np.nan, x, None, 'finite'), (x, x * np.inf, None, 'finite')):
        with pytest.raises(ValueError, match=message):
            neighbours(rows, bank, bank, 1, out)


def test_pixels_are_in_levels_of_a_byte():
    images = torch.zeros(2, 3, 64, 64, dtype=torch.uint8)
    images[1] = 10
    for x in (images, images[:, :1], torch.cat([images, images[:, :1]], dim=1), images[:, :, :16, :16]):
        a, b = pixel_vectors(x)
        assert (a - b).norm().item() == pytest.approx(10, rel=1e-5)
    assert pixel_vectors(images).shape == (2, 3 * 32 * 32)


def test_planted_copies_are_found():
    reals, fresh = pictures(120), pictures(30, seed=1)
    noise = torch.randint(-12, 13, (5, 3, 64, 64), generator=torch.Generator().manual_seed(0))
    samples = torch.cat([fresh, reals[10:15], reals[20:25].flip(3), (reals[30:35].int() + noise).clamp(0, 255).to(torch.uint8)])
    report = assess(*(pixel_vectors(x) for x in (samples, reals, reals.flip(3))))
    planted = [*range(10, 15), *range(20, 25), *range(30, 35)]
    assert report.found.items[30:, 0].tolist() == planted and report.found.items.shape == (45, 3)
    assert report.found.mirrored[30:, 0].tolist() == [False] * 5 + [True] * 5 + [False] * 5
    assert (report.ratios[30:] < 0.3).all() and (report.ratios[30:40] == 0).all() and (report.ratios[:30] > 0.6).all()
    assert report.numbers['copies'] == pytest.approx(15 / 45) and report.numbers['copies_of_reals'] < 0.05
    assert report.numbers['closer'] == (report.ratios < 1).mean() > 15 / 45 and 0.05 < report.numbers['closer_of_reals'] < 0.5
    alone = assess(*(pixel_vectors(x) for x in (fresh, reals, reals.flip(3))))
    assert alone.numbers['copies'] == 0 and alone.numbers['median_ratio'] == pytest.approx(1, abs=0.2)
    assert assess(*(pixel_vectors(x) for x in (reals, reals, reals.flip(3)))).numbers['median_ratio'] == 0


def test_ratios_by_hand():
    bank = torch.tensor([[0.0], [1.0], [4.0], [100.0]])
    far = torch.full((4, 1), -1e3)
    report = assess(torch.tensor([[4.5], [0.4], [100.0], [103.0]]), bank, far, k=2)
    assert report.found.items.tolist() == [[2, 1], [0, 1], [3, 2], [3, 2]]
    assert report.ratios == pytest.approx([0.5 / 3, 0.4, 0, 3 / 96], rel=1e-4)
    assert report.numbers['median_ratio'] == pytest.approx((0.4 + 0.5) / 2 / 2, rel=1e-4)  # of 0.4, 0.5, 0, 3 and of 1, 1, 3, 96
    # left out in turn: 0 -> 1 (1, and 1 -> 4: 3), 1 -> 0 (1, 0 -> 4: 4), 4 -> 1 (3, 1 -> 0: 1), 100 -> 4 (96, 4 -> 1: 3)
    assert report.numbers['closer_of_reals'] == 0.5 and report.numbers['copies_of_reals'] == 0.5
    assert report.numbers['copies'] == report.numbers['closer'] == 1


def test_features_by_batches():
    class Means:
        def features(self, images):
            assert len(images) <= 2
            return images.double().mean(dim=(2, 3))

    images = pictures(5)
    assert torch.allclose(feature_vectors(images, Means(), batch=2), images.float().mean(dim=(2, 3)))
