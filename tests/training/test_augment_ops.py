"""Single augmentations against numpy, scipy and the equations that define them."""

import math

import numpy as np
import pytest
import scipy.ndimage
import scipy.signal
import torch
from scipy.spatial.transform import Rotation

from tests.helpers import relative_error
from training import augment_ops as ops

IDENTITY = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0))


def smooth(count=1, channels=3, R=32):
    """Images without anything near the Nyquist frequency, on which all good interpolations agree."""
    rough = np.random.RandomState(0).randn(count, channels, R, R)
    return torch.from_numpy(scipy.ndimage.gaussian_filter(rough, (0, 0, 3, 3), mode='mirror') * 5)


def matrix(*rows):
    return torch.tensor([rows], dtype=torch.float64)


# ---- Pixels moved whole


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize('flip, turns, shift', [(1, 0, (0, 0)), (0, 1, (0, 0)), (0, 2, (0, 0)), (0, 3, (0, 0)), (0, 0, (2, -1)),
                                                (1, 3, (-1, 3)), (1, 1, (4, 0))])
def test_blit_is_numpy(dtype, flip, turns, shift):
    image = torch.randn(4, 5, 5).to(dtype)
    expected = image.double().numpy()
    expected = np.rot90(expected[:, :, ::-1] if flip else expected, turns, axes=(1, 2))
    expected = np.pad(expected, [(0, 0), (4, 4), (4, 4)], mode='reflect')
    expected = expected[:, 4 - shift[1]:9 - shift[1], 4 - shift[0]:9 - shift[0]]
    found = ops.blit(image[None], torch.tensor([bool(flip)]), torch.tensor([turns]), torch.tensor([shift]))[0]
    assert found.dtype == dtype and np.array_equal(found.double().numpy(), expected)


def test_blit_mirrors_again_where_the_image_ends_again():
    row = torch.arange(4.0).expand(1, 1, 4, 4)
    shifted = ops.blit(row, torch.tensor([False]), torch.tensor([0]), torch.tensor([[9, 0]]))
    assert shifted[0, 0, 0].tolist() == [3, 2, 1, 0]  # ... 3 2 1 0 1 2 3 2 1 [0 1 2 3]


# ---- Geometry


@pytest.mark.parametrize('taps, moments', [(ops.SYM2, 2), (ops.SYM6, 6)])
def test_wavelets_are_orthogonal_and_as_smooth_as_their_number_says(taps, moments):
    h = np.array(taps)
    assert h.sum() == pytest.approx(math.sqrt(2), abs=1e-11)
    for lag in range(0, len(h), 2):
        assert (h[lag:] * h[:len(h) - lag]).sum() == pytest.approx(1.0 if lag == 0 else 0.0, abs=1e-10)
    for moment in range(moments):  # the highpass filter is blind to polynomials up to that degree
        assert ((-1.0) ** np.arange(len(h)) * h * np.arange(len(h)) ** moment).sum() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize('shift', [(0, 0), (3, 0), (-2, 5), (40, -33)])
def test_a_warp_by_whole_pixels_changes_no_pixel(shift):
    images = torch.randn(1, 2, 16, 16, dtype=torch.float64)
    warped = ops.warp(images, matrix((1, 0, -shift[0] / 16), (0, 1, -shift[1] / 16)))
    assert relative_error(warped, ops.blit(images, torch.tensor([False]), torch.tensor([0]), torch.tensor([shift]))) < 1e-10


TURN = math.radians(50)
WARPS = {'shift': ((1, 0, 0.07), (0, 1, -0.12)), 'scale': ((0.8, 0, 0), (0, 0.8, 0)), 'shrink': ((1.6, 0, 0), (0, 1.6, 0)),
         'stretch': ((1.2, 0, 0), (0, 1 / 1.2, 0)),
         'turn': ((math.cos(TURN), math.sin(TURN), 0), (-math.sin(TURN), math.cos(TURN), 0)), 'shear': ((1, 0.5, 0), (0, 1, 0.1))}


@pytest.mark.parametrize('rows', WARPS.values(), ids=WARPS)
def test_warp_is_scipys_spline_on_smooth_images(rows):
    image, R = smooth(), 32
    linear = np.array(rows)[::-1, 1::-1]                          # scipy counts rows first
    offset = (R - 1) / 2 - linear @ np.full(2, (R - 1) / 2) + np.array(rows)[::-1, 2] * R
    expected = [scipy.ndimage.affine_transform(channel, linear, offset, order=3, mode='mirror') for channel in image[0].numpy()]
    assert relative_error(ops.warp(image, matrix(*rows))[0], np.stack(expected)) < 0.02


@pytest.mark.parametrize('rows', WARPS.values(), ids=WARPS)
def test_warp_follows_the_paper_step_by_step(rows):
    """Mirrored padding, doubling by the wavelet, bilinear reading, halving by the wavelet, each by somebody else's code."""
    R, pad = 16, 30
    image = np.random.RandomState(1).randn(R, R)
    h = np.array(ops.SYM6)
    x = np.pad(np.pad(image, R - 1, mode='reflect'), pad - R + 1, mode='reflect')
    for axis in (0, 1):                                           # a pixel's weight lies around the middle of its two fine pixels
        x = scipy.signal.upfirdn(h * math.sqrt(2), x, up=2, axis=axis)
        x = x.take(range(5, 5 + 2 * (R + 2 * pad)), axis=axis)
    late = np.average(np.arange(12), weights=h) - 5.5
    at = (np.arange(-5, 2 * R + 5) + 0.5 - late) / (2 * R) - 0.5
    xs, ys = np.meshgrid(at, at)
    source = np.array(rows) @ np.stack([xs.ravel(), ys.ravel(), np.ones(xs.size)])
    fine = (source[::-1] + 0.5) * 2 * R - 0.5 + late + 2 * pad
    y = scipy.ndimage.map_coordinates(x, fine, order=1).reshape(xs.shape)
    for axis in (0, 1):
        y = scipy.ndimage.correlate1d(y, h / math.sqrt(2), axis=axis, origin=-6, mode='constant').take(range(0, 2 * R, 2), axis=axis)
    found = ops.warp(torch.from_numpy(image)[None, None], matrix(*rows))
    assert relative_error(found[0, 0], y) < 1e-9


def test_images_of_a_batch_are_warped_alone():
    images = torch.randn(3, 1, 8, 8, dtype=torch.float64)
    inverse = torch.cat([matrix(*rows) for rows in (WARPS['turn'], IDENTITY, WARPS['shrink'])])
    together = ops.warp(images, inverse)
    assert relative_error(together, torch.cat([ops.warp(images[i:i + 1], inverse[i:i + 1]) for i in range(3)])) < 1e-12


def test_large_batches_are_warped_in_parts(monkeypatch):
    images, inverse = torch.randn(5, 3, 8, 8, dtype=torch.float64), matrix(*WARPS['turn']).expand(5, -1, -1)
    expected, sizes, read = ops.warp(images, inverse), [], ops.grid_sample
    monkeypatch.setattr(ops, 'AT_ONCE', 2 * 3 * 32 ** 2 + 1)
    monkeypatch.setattr(ops, 'grid_sample', lambda x, grid: (sizes.append(len(x)), read(x, grid))[1])
    assert relative_error(ops.warp(images, inverse), expected) < 1e-12 and sizes == [2, 2, 1]


# ---- Colour


def recolour(images, **given):
    count = len(images)
    values = {'brightness': 0.0, 'contrast': 1.0, 'inverted': False, 'hue': 0.0, 'saturation': 1.0, **given}
    return ops.recolour(images, *(torch.tensor([value] * count) for value in values.values()))


COLOURS = torch.rand(2, 3, 4, 4, dtype=torch.float64) * 2 - 1


def test_brightness_comes_before_contrast():
    assert relative_error(recolour(COLOURS, brightness=0.25, contrast=1.5), (COLOURS + 0.25) * 1.5) < 1e-7


def test_luma_flip_negates_the_mean_and_leaves_the_colour():
    flipped, mean = recolour(COLOURS, inverted=True), COLOURS.mean(1, keepdim=True)
    assert relative_error(flipped, COLOURS - 2 * mean) < 1e-7


@pytest.mark.parametrize('angle', [0.3, -2.0, 2 * math.pi / 3])
def test_hue_is_a_rotation_about_grey(angle):
    turn = Rotation.from_rotvec(np.full(3, angle / math.sqrt(3))).as_matrix()
    assert relative_error(recolour(COLOURS, hue=angle), torch.einsum('ij,njhw->nihw', torch.from_numpy(turn), COLOURS)) < 1e-6


def test_a_third_of_a_turn_swaps_the_channels():
    assert relative_error(recolour(COLOURS, hue=2 * math.pi / 3), COLOURS[:, [2, 0, 1]]) < 1e-6


def test_saturation_scales_the_distance_from_grey():
    grey = COLOURS.mean(1, keepdim=True)
    for factor in (0.0, 2.5):
        assert relative_error(recolour(COLOURS, saturation=factor), grey + factor * (COLOURS - grey)) < 1e-6


def test_the_order_of_all_is_the_papers():
    grey = (COLOURS + 0.2).mean(1, keepdim=True)
    steps = COLOURS + 0.2
    steps = recolour(steps * 0.7 - 2 * 0.7 * grey, hue=1.0)
    grey = steps.mean(1, keepdim=True)
    expected = grey + 1.7 * (steps - grey)
    assert relative_error(recolour(COLOURS, brightness=0.2, contrast=0.7, inverted=True, hue=1.0, saturation=1.7), expected) < 1e-6


def test_one_channel_is_grey_and_alpha_is_left_alone():
    given = dict(brightness=0.2, contrast=0.7, inverted=True, hue=1.0, saturation=1.7)
    grey = COLOURS[:, :1]
    assert relative_error(recolour(grey, **given), recolour(grey.expand(-1, 3, -1, -1), **given)[:, :1]) < 1e-6
    rgba = torch.cat([COLOURS, grey], dim=1)
    assert torch.equal(recolour(rgba, **given)[:, 3:], grey)
    assert torch.equal(recolour(rgba, **given)[:, :3], recolour(COLOURS, **given))


# ---- Filters


def response(filters, frequency):
    """Of zero-phase filters, at radians a pixel."""
    reach = filters.shape[1] // 2
    return filters.numpy() @ np.cos(frequency * np.arange(-reach, reach + 1))


def test_bands_are_octaves_that_add_up_to_the_image():
    filters = ops.band_filters()
    assert torch.allclose(filters, filters.flip(1))
    for frequency in np.linspace(0, math.pi, 9):
        assert response(filters, frequency).sum() == pytest.approx(1, abs=1e-9)
    for band, (low, high) in enumerate([(0, 1 / 8), (1 / 8, 1 / 4), (1 / 4, 1 / 2), (1 / 2, 1)]):
        middle = response(filters, math.pi * (0 if band == 0 else 1 if band == 3 else math.sqrt(low * high)))
        assert middle.argmax() == band and middle[band] > 0.7
    assert np.allclose(response(filters, 0), [1, 0, 0, 0], atol=1e-9)


@pytest.mark.parametrize('R', [4, 16, 32])
def test_amplify_is_scipys_filter(R):
    images, gains = torch.randn(2, 3, R, R, dtype=torch.float64), torch.tensor([[1.0, 2.0, 0.3, 4.0], [0.5, 1.0, 1.0, 0.0]])
    for image, gain, found in zip(images, gains, ops.amplify(images, gains), strict=True):
        taps, expected = (gain.double() @ ops.band_filters()).numpy(), image.numpy()
        for axis in (1, 2):
            expected = scipy.ndimage.correlate1d(expected, taps, axis=axis, mode='mirror')
        assert relative_error(found, expected) < 1e-9


def test_gains_of_one_change_nothing():
    images = torch.randn(1, 3, 16, 16, dtype=torch.float64)
    assert relative_error(ops.amplify(images, torch.ones(1, 4)), images) < 1e-10


def test_gains_keep_the_power_of_the_expected_spectrum():
    amplified = torch.tensor([[True, False, False, False], [False, False, True, False], [False] * 4])
    gains = ops.band_gains(amplified, torch.full([3, 4], 3.0, dtype=torch.float64))
    assert torch.allclose((gains.square() * torch.tensor(ops.BAND_POWER, dtype=torch.float64)).sum(1), torch.ones(3, dtype=torch.float64))
    assert (gains[0, 0] / gains[0, 1]).item() == pytest.approx(3) and (gains[1, 2] / gains[1, 3]).item() == pytest.approx(3)
    assert gains[2].tolist() == [1] * 4


# ---- Corruption


def test_noise_has_its_deviation_and_its_seed():
    images, deviation, seeds = torch.zeros(3, 4, 64, 64), torch.tensor([0.1, 0.3, 0.1]), torch.tensor([5, 6, 2 ** 53 - 1])
    noisy = ops.add_noise(images, deviation, seeds)
    assert noisy[:, :3].std(dim=(1, 2, 3)).tolist() == pytest.approx([0.1, 0.3, 0.1], rel=0.03)
    assert noisy[:, :3].mean().abs() < 0.01 and not noisy[:, 3].any()
    assert torch.equal(ops.add_noise(images[1:2], deviation[1:2], seeds[1:2]), noisy[1:2])
    assert not torch.allclose(noisy[0], noisy[2])


@pytest.mark.parametrize('centre, columns, rows', [((0.5, 0.5), (4, 12), (4, 12)), ((0.1, 0.99), (0, 6), (12, 16)),
                                                   ((0.24, 0.3), (0, 8), (1, 9))])
def test_cutout_is_a_square_of_half_the_width(centre, columns, rows):
    images = torch.randn(1, 4, 16, 16)
    expected = images.clone()
    expected[:, :, slice(*rows), slice(*columns)] = 0
    assert torch.equal(ops.cut_out(images, torch.tensor([centre])), expected)
