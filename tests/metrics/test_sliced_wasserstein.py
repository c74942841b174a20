"""Sliced Wasserstein distance by known answers: sets that are equal, moved, mixed, blurred and noisy."""

import numpy as np
import pytest
import scipy.stats
import torch
import torch.nn.functional as F
from scipy import ndimage

from dnnlib.util import UserError
from metrics import sliced_wasserstein
from metrics.metric_main import evaluate
from metrics.registry import parse
from metrics.sliced_wasserstein import (
    distances,
    laplacian_pyramid,
    level_sizes,
    normalized,
    patches,
    random_directions,
    smoothed,
    swd,
)
from metrics.subject import Subject
from tests import tiny_snapshots
from tests.metrics.test_metric_main import Pictures


@pytest.fixture(autouse=True)
def few(monkeypatch):
    """Fewer patches and directions, for the time."""
    monkeypatch.setattr(sliced_wasserstein, 'PATCHES', 16)
    monkeypatch.setattr(sliced_wasserstein.random_directions, '__defaults__', (32, 0))


def pictures(count, size=64, seed=0):
    """uint8 [count, 3, size, size] with edges and a spectrum of all octaves: random discs on white."""
    random = np.random.RandomState(seed)
    y, x = np.mgrid[:size, :size]
    images = np.full((count, 3, size, size), 255, np.uint8)
    for image in images:
        for _disc in range(6):
            at, radius = random.rand(2) * size, random.uniform(0.03, 0.3) * size
            image[:, (y - at[0]) ** 2 + (x - at[1]) ** 2 < radius ** 2] = random.randint(0, 256, (3, 1))
    return torch.from_numpy(images)


# ---- Points


def test_a_shift_is_its_length_along_each_direction():
    a = torch.randn(500, 6)
    shift = torch.tensor([1.0, -2, 0, 0, 3, 0.5])
    directions = random_directions(6, 40)
    expected = (directions @ shift).abs().mean().item()
    found = sliced_wasserstein.sliced_wasserstein(a, (a + shift)[torch.randperm(500)], directions)  # order does not matter
    assert found == pytest.approx(expected, rel=1e-5)
    along = torch.tensor([[0, 1.0, 0, 0, 0, 0]])
    assert sliced_wasserstein.sliced_wasserstein(a, a + shift, along) == pytest.approx(2, rel=1e-5)
    assert torch.allclose(directions.norm(dim=1), torch.ones(40)) and directions.mean(dim=0).abs().max() < 0.3


@pytest.mark.parametrize('n, m', [(7, 7), (12, 8), (30, 7), (1, 5)])
def test_one_direction_is_the_distance_of_scipy(n, m):
    a, b = torch.randn(n, 1), torch.randn(m, 1) * 2 + 1
    expected = scipy.stats.wasserstein_distance(a[:, 0].numpy(), b[:, 0].numpy())
    for x, y in ((a, b), (b, a)):
        assert sliced_wasserstein.sliced_wasserstein(x, y, torch.ones(1, 1)) == pytest.approx(expected, rel=1e-5)


def test_blocks_of_directions_do_not_matter():
    a, b, directions = torch.randn(50, 4), torch.randn(50, 4), random_directions(4, 10)
    found = [sliced_wasserstein.sliced_wasserstein(a, b, directions, block) for block in (3, 10)]
    assert found[0] == pytest.approx(found[1], rel=1e-6)


def test_points_that_are_refused():
    a, directions = torch.randn(5, 4), random_directions(4, 2)
    for bad in (a[:0], a[:, :3], a * np.nan, a[0]):
        with pytest.raises(ValueError, match='points'):
            sliced_wasserstein.sliced_wasserstein(a, bad, directions)


# ---- The pyramid and its patches


def test_levels_go_down_to_sixteen_pixels():
    assert level_sizes(64) == [64, 32, 16] and level_sizes(1024)[-1] == 16 and level_sizes(16) == [16]
    assert level_sizes(48) == [48, 24] and level_sizes(33) == [33]


def test_the_pyramid_sums_to_the_image_and_holds_octaves():
    images = torch.rand(2, 3, 64, 64)
    levels = laplacian_pyramid(images)
    assert [level.shape[-1] for level in levels] == [64, 32, 16]
    x = levels[2]
    for level in (levels[1], levels[0]):
        x = sliced_wasserstein.enlarged(x) + level
    assert torch.allclose(x, images, atol=1e-5)
    flat = laplacian_pyramid(torch.full((1, 1, 32, 32), 0.7))
    assert flat[0].abs().max() < 1e-6 and torch.allclose(flat[1], torch.tensor(0.7))  # borders included
    line = np.array([1, 4, 6, 4, 1]) / 16
    expected = ndimage.convolve(images[0, 0].double().numpy(), np.outer(line, line), mode='mirror')
    assert smoothed(images)[0, 0].numpy() == pytest.approx(expected, abs=1e-6)
    with torch.autocast('cpu', torch.bfloat16):
        assert torch.equal(laplacian_pyramid(images)[0], levels[0])


def test_patches_are_windows_of_the_levels():
    images = pictures(3)
    found = patches(images, 5)
    assert found.shape == (3, 3, 5, 3 * 49)
    level = laplacian_pyramid(images)[1][2]
    windows = level.unfold(1, 7, 1).unfold(2, 7, 1).permute(1, 2, 0, 3, 4).flatten(0, 1).flatten(1)
    nearest = (found[2, 1, :, None] - windows).abs().amax(dim=2).min(dim=1)
    assert nearest.values.max() < 1e-3 and len(set(nearest.indices.tolist())) > 2
    assert torch.equal(patches(images[[2, 0]], 5), found[[2, 0]])
    grey = patches(images[:, :1], 5)
    assert grey.shape == found.shape and torch.equal(grey[..., :49], grey[..., 49:98])


def test_patches_reach_every_place():
    images = torch.arange(256).reshape(16, 16).to(torch.uint8).expand(1, 3, 16, 16)
    corners = patches(images, 4000)[0, 0, :, 0].unique()
    assert corners.tolist() == [16 * y + x for y in range(10) for x in range(10)]


def test_channels_are_normalized_apart():
    x = torch.cat([torch.randn(200, 49) * 3 + 5, torch.randn(200, 49) * 0.1, torch.full((200, 49), 7.0)], dim=1)
    found = normalized(x, 3).reshape(200, 3, 49)
    assert found.mean(dim=(0, 2)).abs().max() < 1e-6
    assert found.square().mean(dim=(0, 2)).tolist() == pytest.approx([1, 1, 0], abs=1e-5)
    assert found[:, 0].flatten()[:9].tolist() == pytest.approx(((x[:, :49] - x[:, :49].mean()) / x[:, :49].std()).flatten()[:9].tolist(),
                                                              rel=1e-3, abs=1e-5)


# ---- Sets of images


def test_equal_sets_are_at_nothing_in_any_order():
    a, b = pictures(20), pictures(20, seed=1)
    assert swd(a, a.flip(0)) == {'swd': 0, 'swd_64': 0, 'swd_32': 0, 'swd_16': 0}
    order = torch.randperm(20)
    found = swd(a, b)
    assert swd(a[order], b.flip(0), batch=3) == pytest.approx(found, rel=1e-4) and swd(b, a) == pytest.approx(found, rel=1e-4)
    assert found['swd'] == pytest.approx(np.mean([found['swd_64'], found['swd_32'], found['swd_16']])) and found['swd'] > 0
    assert swd(a.numpy(), b.numpy()) == found


def test_scale_is_a_thousand(monkeypatch):
    """Images of one colour against those that are half black: the last level is 0 in the one set, -1 or 1 in the other."""
    flat = torch.full((8, 3, 16, 16), 9, dtype=torch.uint8)
    half = torch.cat([torch.zeros(4, 3, 16, 16), torch.full((4, 3, 16, 16), 255)]).to(torch.uint8)
    expected = random_directions(147).sum(dim=1).abs().mean().item()
    assert swd(flat, half) == pytest.approx({'swd': 1000 * expected, 'swd_16': 1000 * expected}, rel=1e-5)


def test_noise_and_blur_show_where_they_are():
    real, other = pictures(64), pictures(64, seed=1)
    floor = swd(real, other, count=100)

    def more(images):
        found = swd(real, images.round().clamp(0, 255).to(torch.uint8), count=100)
        return {size: found[f'swd_{size}'] - floor[f'swd_{size}'] for size in (64, 32, 16)}

    x = other.float()
    weak, strong = (more(x + sigma * torch.randn(x.shape, generator=torch.Generator().manual_seed(0))) for sigma in (5, 20))
    assert strong[64] > 150 > weak[64] > 30 and strong[32] < 40 and abs(strong[16]) < 15 and abs(weak[32]) < 15
    weak, strong = (more(F.avg_pool2d(x, factor).repeat_interleave(factor, 2).repeat_interleave(factor, 3)) for factor in (2, 4))
    assert strong[64] > 30 > weak[64] > 10 and strong[32] > 5 > abs(weak[32]) and abs(weak[16]) < 5
    collapsed = more(pictures(8, seed=2).repeat(8, 1, 1, 1).float())
    assert collapsed[16] > 25


def test_images_that_are_refused():
    a = pictures(2, 16)
    for bad, message in ((a[:0], 'at least one'), (a.float(), 'uint8'), (pictures(2, 32), 'one size'), (a[:, :, :5, :5], 'one size'),
                         (a[0], 'size')):
        with pytest.raises(ValueError, match=message):
            swd(a, bad)
    with pytest.raises(ValueError, match='R >= 7'):
        swd(a[:, :, :6, :6], a[:, :, :6, :6])
    assert swd(a[:1], a[1:])['swd'] > 0 and swd(a, torch.cat([a, a[:, :1]], dim=1)) == swd(a, a)  # alpha is dropped


def test_large_sets_give_fewer_patches_each():
    assert sliced_wasserstein.patches_each(4096) == 16 and sliced_wasserstein.patches_each(2 ** 18) == 2
    assert sliced_wasserstein.patches_each(2 ** 30) == 1


# ---- As a metric


def test_names():
    assert parse('swd').score_name() == parse('swd16k').score_name() == 'swd16k' and parse('swd2k').num == 2000
    assert parse('swd2k').detector is None and not parse('swd2k').higher_is_better


def test_as_a_metric_it_is_the_function():
    real, fake = Pictures(20), Pictures(12, shift=30, seed=1)
    (score,) = evaluate([parse('swd2k')], Subject(real, images=fake, batch=5))
    a, b = (torch.from_numpy(x.images) for x in (real, fake))
    assert score.values == {name.replace('swd', 'swd12'): pytest.approx(value, rel=1e-5) for name, value in swd(a, b).items()}
    assert score.facts['num_real'] == 20 and score.notes == ('20 real images against 12',)


def test_of_a_generator():
    G = tiny_snapshots.stylegan2().eval()
    (score,) = evaluate([parse('swd2k').with_num(10)], Subject(Pictures(20), G, batch=4))
    assert list(score.values) == ['swd10', 'swd10_16'] and score.values['swd10'] > 10
    assert score.facts['num'] == score.facts['num_real'] == 10


def test_another_size_is_refused():
    with pytest.raises(UserError, match='real images are 16x16, the others 32x32'):
        next(iter(evaluate([parse('swd2k')], Subject(Pictures(20), tiny_snapshots.stylegan2(32)))))


def test_distances_of_half_precision_are_those_of_single():
    x, y = torch.randn(20, 1, 16, 147) * 60, torch.randn(20, 1, 16, 147) * 50
    single, half = distances(x, y, [16]), distances(x.half(), y.half().numpy(), [16])
    assert half[16] == pytest.approx(single[16], rel=1e-3)
