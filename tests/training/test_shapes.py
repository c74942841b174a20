"""Images that are no squares: their pyramid, both StyleGAN2 networks, augmentation, a run that is resumed."""

import numpy as np
import pytest
import torch
from PIL import Image

from dnnlib.util import UserError
from tests.training.test_training_loop import steps
from tests.training.tiny import make_images, tiny_run
from training import augment, augment_ops, growing, pretrained, run_folder
from training.config_json import from_json, to_json
from training.data.shapes import resolution_of
from training.layers import shape_of
from training.networks import Discriminator, Generator
from training.snapshot import Pictures
from training.training_loop import Training, train


@pytest.mark.parametrize('size, R, lowest', [
    ((128, 64), 64, (8, 4)), ((96, 64), 64, (6, 4)), ((80, 48), 32, (10, 6)), ((16, 1024), 16, (4, 256)), ((4096, 2048), 1024, (16, 8)),
    ((64, 64), 64, (4, 4)),
])
def test_pyramids(size, R, lowest):
    assert resolution_of(*size) == resolution_of(*size[::-1]) == R
    extent = [side / R for side in size]
    assert shape_of(R, extent) == size[::-1] and shape_of(4, extent) == lowest[::-1]


@pytest.mark.parametrize('size', [(48, 48), (2048, 2048), (64, 40), (64, 8), (0, 16)])
def test_sizes_that_training_does_not_take(size):
    assert resolution_of(*size) is None


@pytest.mark.parametrize('architecture', ['skip', 'resnet', 'orig'])
def test_stylegan2_networks(architecture):
    options = dict(architecture=architecture, channel_base=128, channel_max=8)
    G = Generator(8, 0, 8, 32, 3, dict(num_layers=1), options, img_size=[48, 32])
    D = Discriminator(0, 32, 3, img_size=[48, 32], **options)
    images = G(torch.randn(4, 8), None)
    assert images.shape == (4, 3, 32, 48) and D(images, None).shape == (4, 1)
    assert G.img_size == D.img_size == (48, 32) and G.init_kwargs['img_size'] == D.init_kwargs['img_size'] == [48, 32]
    assert torch.equal(type(G)(**G.init_kwargs).synthesis.b4.conv1.noise_const, torch.empty(4, 6)) is False
    assert G.synthesis.b4.const.shape[1:] == (4, 6) and G.synthesis.b32.conv1.noise_const.shape == (32, 48)
    square = Generator(8, 0, 8, 32, 3, dict(num_layers=1), options)
    assert list(square.state_dict()) == list(G.state_dict()) and 'img_size' not in square.init_kwargs and square.img_size == (32, 32)
    with pytest.raises(ValueError, match=r'\[N, 3, 32, 48\], it was given \[4, 3, 48, 32\]'):
        D(images.mT, None)
    with pytest.raises(UserError, match=r'img_size=\[40, 32\]'):
        Generator(8, 0, 8, 32, 3, img_size=[40, 32])


def test_smaller_levels_enter_where_a_run_grows():
    D = Discriminator(0, 32, 3, channel_base=128, channel_max=8, entries=[8, 16], img_size=[48, 32])
    reals = torch.rand(4, 3, 32, 48)
    small = growing.fit(reals, growing.Stage(16), 32)
    assert small.shape == (4, 3, 16, 24) and torch.allclose(small[0, 0, 0, 1], reals[0, 0, :2, 2:4].mean())
    assert D(small, None, fade=0.5).shape == (4, 1) and not torch.equal(D(small, None, fade=0.5), D(small, None, fade=1.0))


def disc(width, height, radius, x, y):
    rows, columns = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing='ij')
    return ((columns - x) ** 2 + (rows - y) ** 2 < radius ** 2).double()[None, None]


def test_a_disc_that_is_turned_and_moved_stays_a_disc():
    angle = torch.tensor(0.7, dtype=torch.float64)
    there = torch.tensor([6.0, -2.0], dtype=torch.float64)  # from the middle of 64x32 pixels
    matrix = torch.stack([torch.stack([angle.cos(), angle.sin()]), torch.stack([-angle.sin(), angle.cos()])])
    moved = augment_ops.warp(disc(64, 32, 7, 32 + 6, 16 - 2), torch.cat([matrix, torch.zeros(2, 1)], 1)[None])
    moved = moved[..., 16:48]  # elsewhere are mirrored ones
    rows, columns = torch.meshgrid(torch.arange(32) + 0.5, torch.arange(16, 48) + 0.5, indexing='ij')
    middle = torch.stack([(moved * axis).sum() / moved.sum() for axis in (columns, rows)])
    spread = torch.stack([(moved * (axis - at) ** 2).sum() / moved.sum() for axis, at in zip((columns, rows), middle, strict=True)])
    assert torch.allclose(middle, matrix.T @ there + torch.tensor([32.0, 16.0], dtype=torch.float64), atol=0.02)
    assert torch.allclose(spread, torch.full_like(spread, 7 ** 2 / 4), rtol=0.05)
    turned = augment_ops.blit(disc(64, 32, 7, 42, 19), torch.tensor([False]), torch.tensor([2]), torch.zeros(1, 2))
    assert torch.equal(turned, disc(64, 32, 7, 64 - 42, 32 - 19))


def test_all_augmentations_of_oblong_images():
    numbers = torch.rand(16, augment.NUMBERS, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    images = torch.randn(16, 3, 16, 32, requires_grad=True)
    augmented = augment.AugmentPipe('bgcfnc', 1.0)(images, numbers)
    assert augmented.shape == images.shape and augmented.isfinite().all()
    cut = augment_ops.cut_out(torch.ones(1, 1, 16, 32), torch.tensor([[0.5, 0.5]]))
    assert (cut == 0).sum() == 8 * 8 and (cut[0, 0, 4:12, 12:20] == 0).all()


def test_features_are_looked_at_in_proportion():
    assert [pretrained.looked_at(side, side)[0] for side in (16, 64, 100, 256, 1024)] == [64, 64, 100, 256, 256]
    assert pretrained.looked_at(16, 32) == (64, 128) and pretrained.looked_at(256, 512) == (128, 256) == pretrained.looked_at(128, 256)
    assert pretrained.looked_at(64, 1024) == (64, 1024)
    assert [pretrained.looked_at(side, side, 2)[0] for side in (16, 32, 64, 128, 256, 1024)] == [64, 64, 128, 256, 256, 256]
    assert pretrained.looked_at(32, 128, 4) == (64, 256)


def test_a_run_of_oblong_images_resumes_bit_for_bit(tmp_path):
    options = dict(kimg=0.008, tick=0.008, snap=100, aug='fixed', p=0.5)
    dataset, settings = tiny_run(make_images(tmp_path / 'data', resolution=(32, 16)), **options)
    assert (settings.data.sides, settings.data.resolution) == ((32, 16), 16)
    whole = steps(Training(settings, dataset), 4)
    (tmp_path / 'run').mkdir()
    train(settings, dataset, tmp_path / 'run')
    halves = Training(settings, dataset)
    halves.resume(run_folder.find_resumable(tmp_path / 'run'))
    steps(halves, 2)
    for name, network in whole.networks.items():
        for key, value in network.state_dict().items():
            assert torch.equal(halves.networks[name].state_dict()[key], value), (name, key)
    first = dataset[Pictures(tmp_path, dataset, settings).items[0]][0].transpose(1, 2, 0)
    reals = np.asarray(Image.open(tmp_path / 'run' / 'reals.png'))
    assert reals.shape == (9 * 16, 16 * 32, 3) and np.array_equal(reals[:16, :32], first)


def test_other_sizes_and_data_are_refused(tmp_path):
    dataset, settings = tiny_run(make_images(tmp_path / 'data', resolution=(32, 16)))
    assert from_json(to_json(settings)) == settings
    for wrong in ('[32, 24]', '[64, 32]', '[32]', '[0, 16]'):
        with pytest.raises(UserError, match='training takes a power of two'):
            from_json(to_json(settings).replace('[\n      32,\n      16\n    ]', wrong))
    with pytest.raises(UserError, match='--windows needs --res=N'):
        tiny_run(tmp_path / 'data', windows=True)
