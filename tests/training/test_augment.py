"""The augmentation pipe: nothing at p = 0, the chances and strengths of the paper, images apart from each other, types, derivatives."""

import math

import numpy as np
import pytest
import scipy.ndimage
import scipy.stats
import torch

from tests.helpers import relative_error
from training import augment
from training import augment_ops as ops
from training.augment import COLUMNS, NUMBERS, TRANSFORMS, AugmentPipe, Dice
from training.options import PIPES

ALL = ('blit', 'geom', 'color', 'filter', 'noise', 'cutout')


def numbers(count, seed=0):
    return torch.rand(count, NUMBERS, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def only(**values):
    """Numbers for which, at p = 0.5, the named transforms alone happen, with these uniform numbers. '_' stands for a space."""
    result = torch.full([1, NUMBERS], 0.9, dtype=torch.float64)
    for name, value in values.items():
        column = COLUMNS[name.replace('_', ' ')]
        value = torch.as_tensor(value, dtype=torch.float64).reshape(-1)
        result[0, column], result[0, column + 1:column + 1 + len(value)] = 0, value
    return result


def normal(value):
    """The uniform number that stands for a value of the standard normal distribution."""
    return scipy.stats.norm.cdf(value)


def smooth(R=32):
    rough = np.random.RandomState(0).randn(1, 3, R, R)
    return torch.from_numpy(scipy.ndimage.gaussian_filter(rough, (0, 0, 3, 3), mode='mirror') * 5)


# ---- When


@pytest.mark.parametrize('pipe', PIPES)
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_p_zero_is_the_identity_bit_for_bit(pipe, dtype):
    images = torch.randn(4, 3, 8, 8, dtype=dtype)
    assert torch.equal(AugmentPipe(pipe, 0.0)(images), images)


def test_groups_that_are_off_leave_images_alone_bit_for_bit():
    images, dice = torch.randn(4, 3, 8, 8), numbers(4)
    without = {augment.move: ALL[2:], augment.colour: ALL[:2] + ALL[3:], augment.sharpen: ALL[:3], augment.corrupt: ALL[:4]}
    for stage, groups in without.items():
        assert stage(images, Dice(dice, 1.0, groups)) is images
        assert not torch.equal(stage(images, Dice(dice, 1.0, ALL)), images)


def test_pipes_are_the_papers_groups():
    letters = dict(zip('bgcfn', ALL, strict=False))
    for name, groups in PIPES.items():
        each = tuple(letters[letter] for letter in name.removesuffix('nc')) if name not in ALL else (name,)
        assert groups == each + ALL[4:] * name.endswith('nc')
    assert {group for group, _ in TRANSFORMS.values()} == set(ALL)


@pytest.mark.parametrize('name', TRANSFORMS)
def test_each_image_gets_each_transform_with_its_chance(name):
    happens = Dice(numbers(4000), 0.3, ALL).happens(name)
    assert happens.double().mean().item() == pytest.approx(0.3, abs=0.03)  # four standard deviations


def test_transforms_are_decided_apart():
    decided = torch.stack([Dice(numbers(4000), 0.5, ALL).happens(name) for name in TRANSFORMS]).double()
    assert (torch.corrcoef(decided) - torch.eye(len(TRANSFORMS), dtype=torch.float64)).abs().max() < 0.08


def test_the_share_of_images_changed_is_p():
    images = torch.rand(600, 1, 4, 4) + 0.5
    for group in ('noise', 'cutout'):
        changed = (AugmentPipe(group, 0.25)(images) != images).flatten(1).any(1)
        assert changed.double().mean().item() == pytest.approx(0.25, abs=0.07)


def test_one_of_the_two_turns_happens_with_probability_p():
    dice = Dice(numbers(4000), 0.4, ALL)
    alone = torch.full_like(dice.numbers, 1.0)
    for name in ('turn before', 'turn after'):
        alone[:, COLUMNS[name]] = dice.numbers[:, COLUMNS[name]]
    warped, _ = augment.geometry(Dice(alone, 0.4, ALL), torch.zeros(4000, 2, dtype=torch.float64))
    assert warped.double().mean().item() == pytest.approx(0.4, abs=0.03)


def test_the_same_numbers_give_more_at_a_higher_p():
    few, many = (Dice(numbers(100), p, ALL) for p in (0.2, 0.6))
    for name in TRANSFORMS:
        assert (many.happens(name) | ~few.happens(name)).all()


# ---- What


def backwards(**values):
    """Where the points of an image come from, with these transforms alone."""
    dice = Dice(only(**values), 0.5, ALL)
    warped, inverse = augment.geometry(dice, torch.zeros(1, 2, dtype=torch.float64))
    assert warped.all()
    return inverse[0].numpy()


def test_strengths_of_the_geometry():
    assert np.allclose(backwards(scale=normal(1)), [[2 ** -0.2, 0, 0], [0, 2 ** -0.2, 0]])
    assert np.allclose(backwards(stretch=normal(-2)), [[2 ** 0.4, 0, 0], [0, 2 ** -0.4, 0]])
    assert np.allclose(backwards(shift=[normal(1), normal(-2)]), [[1, 0, -1 / 8], [0, 1, 2 / 8]])
    cos, sin = math.cos(math.pi / 2 * 0.6), math.sin(math.pi / 2 * 0.6)
    for name in ('turn_before', 'turn_after'):
        assert np.allclose(backwards(**{name: 0.5 + 0.6 / 4}), [[cos, sin, 0], [-sin, cos, 0]])


def test_a_turn_before_and_one_after_enclose_the_stretch():
    def forwards(**values):
        return np.linalg.inv(np.vstack([backwards(**values), [0, 0, 1]]))

    parts = dict(scale=normal(1), turn_before=0.6, stretch=normal(1.5), turn_after=0.3, shift=[normal(1), normal(0.5)])
    expected = np.eye(3)
    for name, value in parts.items():
        expected = forwards(**{name: value}) @ expected
    assert np.allclose(forwards(**parts), expected)


@pytest.mark.parametrize('name, value, linear, shift', [
    ('scale', normal(1), np.eye(2) * 2 ** -0.2, (0, 0)),
    ('stretch', normal(1), np.diag([2 ** 0.2, 2 ** -0.2]), (0, 0)),       # rows, columns: wider and lower
    ('shift', [normal(0.5), normal(-1)], np.eye(2), (-4, 2)),              # 2 pixels to the right, 4 up
    ('turn_before', 0.625, np.array([[1, -1], [1, 1]]) / math.sqrt(2), (0, 0)),   # 45 degrees with the clock
])
def test_geometry_of_an_image_is_scipys(name, value, linear, shift):
    image, centre = smooth(), np.full(2, 31 / 2)
    offset = centre - linear @ (centre + shift)
    expected = [scipy.ndimage.affine_transform(channel, linear, offset, order=3, mode='mirror') for channel in image[0].numpy()]
    assert relative_error(AugmentPipe('bg', 0.5)(image, only(**{name: value}))[0], np.stack(expected)) < 0.02


@pytest.mark.parametrize('name, value, expected', [
    ('flip', 0.4, lambda x: x.flip(3)), ('flip', 0.6, lambda x: x), ('quarter_turn', 0.3, lambda x: x.rot90(1, (2, 3))),
    ('quarter_turn', 0.8, lambda x: x.rot90(3, (2, 3))), ('quarter_turn', 0.1, lambda x: x),
    ('brightness', normal(1), lambda x: x + 0.2), ('contrast', normal(-1), lambda x: x / math.sqrt(2)),
    ('luma_flip', 0.4, lambda x: x - 2 * x.mean(1, keepdim=True)), ('luma_flip', 0.6, lambda x: x),
    ('hue', 0.5 + 1 / 3, lambda x: x[:, [2, 0, 1]]), ('saturation', normal(1), lambda x: 2 * x - x.mean(1, keepdim=True)),
])
def test_strengths_of_what_is_easily_told(name, value, expected):
    images = torch.randn(1, 3, 8, 8, dtype=torch.float64)
    assert relative_error(AugmentPipe('bgc', 0.5)(images, only(**{name: value})), expected(images)) < 1e-6


@pytest.mark.parametrize('band', range(4))
def test_a_band_gets_a_normal_number_of_octaves(band):
    images = torch.randn(1, 3, 16, 16, dtype=torch.float64)
    amplified = torch.arange(4)[None] == band
    expected = ops.amplify(images, ops.band_gains(amplified, torch.full([1, 4], 2 ** 1.5, dtype=torch.float64)))
    assert relative_error(AugmentPipe('filter', 0.5)(images, only(**{f'band_{band}': normal(1.5)})), expected) < 1e-9
    assert relative_error(expected, images) > 0.01


def test_whole_shifts_reach_an_eighth_either_way():
    row = torch.arange(32.0).expand(1, 1, 32, 32)
    dice = torch.cat([only(whole_shift=[u, 0.5]) for u in np.linspace(0, 1, 200, endpoint=False)])
    found = AugmentPipe('blit', 0.5)(row.expand(200, -1, -1, -1), dice)[:, 0, 0, 16]
    assert set(found.tolist()) == set(range(12, 21))
    found = AugmentPipe('blit', 0.5)(row.mT, only(whole_shift=[0.5, 0.999]))[0, 0, :, 0]
    assert found.tolist() == [4, 3, 2, 1, *range(28)]


def test_a_warped_image_takes_its_whole_shift_along():
    image = torch.randn(1, 1, 16, 16, dtype=torch.float64)
    both = AugmentPipe('bg', 0.5)(image, only(whole_shift=[0.999, 0.5], shift=[normal(-1), 0.5]))
    assert relative_error(both, image) < 1e-6  # two pixels to the right and two back: nothing was lost at the border


def test_mean_and_deviation_over_many_draws():
    images = torch.full([3000, 1, 2, 2], 0.5)
    contrast = AugmentPipe('color', 1.0)(images, numbers(3000)).abs()[:, 0, 0, 0]
    brightness = 0.2 * torch.special.ndtri(numbers(3000)[:, COLUMNS['brightness'] + 1]) + 0.5
    octaves = (contrast / brightness.abs()).log2()
    assert octaves.mean().item() == pytest.approx(0, abs=0.03) and octaves.std().item() == pytest.approx(0.5, rel=0.04)
    noisy = AugmentPipe('noise', 1.0)(torch.zeros(1500, 1, 8, 8), numbers(1500))
    assert noisy.std().item() == pytest.approx(0.1, rel=0.05)              # E[deviation^2] of half a normal distribution
    strength = noisy.flatten(1).std(1)
    assert strength.mean().item() == pytest.approx(0.1 * math.sqrt(2 / math.pi), rel=0.05)
    cut = AugmentPipe('cutout', 1.0)(torch.ones(1500, 1, 16, 16), numbers(1500))
    assert cut.mean(0)[0, 8, 8].item() == pytest.approx(1 - 8 ** 2 / 16 ** 2, abs=0.05)


def test_filter_keeps_the_power_of_natural_spectra():
    R = 64
    frequency = np.hypot(np.fft.fftfreq(R)[:, None], np.fft.fftfreq(R)[None])
    spectrum = np.fft.fft2(np.random.RandomState(0).randn(60, 1, R, R)) / np.maximum(frequency, 1 / R)
    images = torch.from_numpy(np.fft.ifft2(spectrum).real)
    power = AugmentPipe('filter', 1.0)(images, numbers(60)).square().mean() / images.square().mean()
    assert 0.5 < power.item() < 2


# ---- For whom


@pytest.mark.parametrize('channels', [1, 3, 4])
def test_an_image_does_not_depend_on_its_neighbours(channels):
    images, dice = torch.randn(6, channels, 16, 16, dtype=torch.float64), numbers(6)
    pipe = AugmentPipe('bgcfnc', 0.4)
    together = pipe(images, dice)
    assert together.isfinite().all() and together.shape == images.shape
    for first in range(2):
        assert relative_error(pipe(images[first::2], dice[first::2]), together[first::2]) < 1e-6


def test_alpha_keeps_its_values_under_colour_and_noise():
    images = torch.randn(8, 4, 8, 8)
    for pipe, moved in (('color', False), ('noise', False), ('blit', True), ('filter', True), ('cutout', True)):
        changed = AugmentPipe(pipe, 1.0)(images, numbers(8))
        assert torch.equal(changed[:, 3], images[:, 3]) != moved and not torch.equal(changed[:, :3], images[:, :3])


@pytest.mark.parametrize('dtype, tolerance', [(torch.float64, 1e-6), (torch.float16, 2e-3), (torch.bfloat16, 1e-2)])
def test_types(dtype, tolerance):
    images, dice, pipe = torch.randn(4, 3, 8, 8).clamp(-1, 1), numbers(4), AugmentPipe('bgcfnc', 0.8)
    expected = pipe(images.to(dtype).float(), dice)
    found = pipe(images.to(dtype), dice)
    assert found.dtype == dtype and relative_error(found, expected) < tolerance


def test_autocast_and_the_default_type_change_nothing():
    images, dice, pipe = torch.randn(4, 3, 8, 8), numbers(4), AugmentPipe('bgcfnc', 0.8)
    expected = pipe(images, dice)
    with torch.autocast('cpu', torch.bfloat16):
        assert torch.equal(pipe(images, dice), expected)
    try:
        torch.set_default_dtype(torch.float64)
        again = AugmentPipe('bgcfnc', 0.8)(images, dice)
    finally:
        torch.set_default_dtype(torch.float32)
    assert again.dtype == torch.float32 and torch.equal(again, expected)


@pytest.mark.parametrize('channels', [1, 3, 4])
def test_gradients_of_both_orders(channels):
    images = torch.randn(2, channels, 6, 6, dtype=torch.float64, requires_grad=True)
    dice, pipe = numbers(2, seed=1), AugmentPipe('bgcfnc', 0.9)
    dice[:, COLUMNS['cutout']] = 1  # else there is little left to differentiate

    def cubed(images):  # the pipe is linear but for constants: a power gives the second order something to see
        return pipe(images, dice).pow(3)

    assert torch.autograd.gradcheck(cubed, images, fast_mode=True)
    assert torch.autograd.gradgradcheck(cubed, images, fast_mode=True)


def test_without_numbers_the_global_stream_decides():
    images, pipe = torch.randn(4, 3, 8, 8), AugmentPipe('bgc', 0.8)
    torch.manual_seed(5)
    one = pipe(images)
    assert not torch.equal(pipe(images), one)
    torch.manual_seed(5)
    assert torch.equal(pipe(images), one)


@pytest.mark.parametrize('images, problem', [
    (torch.zeros(2, 2, 8, 8), r'\[2, 2, 8, 8\]'), (torch.zeros(3, 8, 8), r'\[3, 8, 8\]'),
    (torch.zeros(2, 3, 8, 8, dtype=torch.uint8), 'torch.uint8'),
])
def test_what_is_no_batch_of_images_is_refused(images, problem):
    with pytest.raises(ValueError, match=problem) as caught:
        AugmentPipe('bgc', 0.5)(images)
    assert '\n' not in str(caught.value)
