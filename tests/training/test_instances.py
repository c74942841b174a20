"""Fakes that stand for real pictures: what a look is, what z says of it, and runs with --instances."""

import dataclasses

import numpy as np
import pytest
import torch

from dnnlib.util import UserError
from tests.training.runs import assert_same_snapshot, steps, weights
from tests.training.test_graphs import assert_same, trained
from tests.training.test_projected import FEATURES
from tests.training.test_windows import pictures, windows_run  # noqa: F401  (pictures is a fixture)
from tests.training.tiny import make_images, tiny_run
from training import checkpoint, instances
from training.dataset import spread
from training.instances import Looks
from training.latents import Latents
from training.networks import MappingNetwork
from training.projected import FeatureHead
from training.training_loop import Training, train

ROW = dict(pl_weight=0, style_mixing=0)


class Pictures:
    """A data set in memory of pictures [N, 3, 4, 4], whose first channels tell classes apart."""

    def __init__(self, classes, count=200):
        random = np.random.RandomState(0)
        self.labels = random.randint(0, max(classes, 1), count)
        shade = random.randint(0, 100, [count, 3, 4, 4]) + 15 * self.labels[:, None, None, None]
        self.pixels, self.classes = shade.astype(np.uint8), classes

    def spread(self, most):
        return spread(len(self.pixels), most)

    def __getitem__(self, i):
        return self.pixels[i], self.get_label(i)

    def get_label(self, i):
        return np.eye(self.classes, dtype=np.float32)[self.labels[i]] if self.classes else np.zeros(0, np.float32)


def maps_of(images):
    return [images, images.square(), images, images.abs()]


def looks_and_labels(classes, numbers=5):
    data = Pictures(classes)
    found = Looks(data, maps_of, numbers)
    images = torch.from_numpy(data.pixels) / 127.5 - 1
    c = torch.from_numpy(np.stack([data.get_label(i) for i in range(len(data.pixels))]))
    return found, images, c, torch.from_numpy(data.labels)


@pytest.mark.parametrize('classes', [0, 4])
def test_looks_are_whitened_within_their_class(classes):
    found, images, c, labels = looks_and_labels(classes)
    looks = found.of(maps_of(images), c)
    assert looks.shape == (200, 5) and torch.allclose(looks.T @ looks / 200, torch.eye(5), atol=1e-3)
    for index in range(max(classes, 1)):
        assert looks[labels == index].mean(0).abs().max() < 1e-3
    assert found.shares.sum() == pytest.approx(1) and (found.shares.diff() < 0).all()
    moved = images.clone().requires_grad_()
    found.distances(found.of(maps_of(moved), c), looks + 1).sum().backward()
    assert moved.grad.abs().sum() > 0


def test_distances_count_where_pictures_differ_and_nowhere_if_nothing_was_asked_for():
    found, images, c, _ = looks_and_labels(4)
    looks = found.of(maps_of(images), c)
    assert found.distances(looks, looks).abs().max() == 0
    step = torch.tensor([[1.0, 0, 0, 0, 0], [0, 0, 0, 0, 2.0]])
    assert torch.allclose(found.distances(looks[:2] + step, looks[:2]), found.shares[[0, 4]] * torch.tensor([1, 4]), rtol=1e-3)
    assert found.distances(looks[:3], torch.zeros(3, 5)).tolist() == [0, 0, 0]
    assert found.distances(looks, looks[torch.randperm(200)]).mean() == pytest.approx(2, rel=0.2)


def test_windows_that_are_a_part_say_nothing():
    found, images, c, _ = looks_and_labels(4)
    windows = torch.tensor([[4, 0, 0], [8, 0, 0], [4, 0, 0], [8, 2, 2], [4, 0, 0]])
    known = found.of_reals(images[:5], c[:5], windows, 2)
    assert torch.allclose(known[::2], found.of(maps_of(images[:5:2]), c[:5:2]), atol=1e-4) and known[1::2].abs().max() == 0
    assert found.of_reals(images[:5], c[:5], None, 5).any(dim=1).all()


def test_pictures_without_anything_apart_have_looks_of_zero():
    data = Pictures(4)
    data.pixels[:] = data.labels[:, None, None, None]
    found = Looks(data, maps_of, 5)
    assert found.of(maps_of(torch.rand(3, 3, 4, 4)), torch.eye(4)[:3]).tolist() == [[0] * 5] * 3
    assert found.shares.isfinite().all() and found.directions.isfinite().all()


def test_z_begins_to_say_what_columns_of_classes_say():
    torch.manual_seed(0)
    found = looks_and_labels(12, 4)[0]
    mapping, plain = (MappingNetwork(z_dim=10, c_dim=c_dim, w_dim=16, num_ws=2, num_layers=1) for c_dim in (12, 0))
    groups = [0, 1] * 6
    with torch.no_grad():
        mapping.embed.weight.copy_((found.classes @ torch.randn(found.classes.shape[1], 16).double()).T)
    before = mapping.fc0.weight.detach().clone()
    assert found.begin(mapping, groups) and not found.begin(plain, []) and not found.begin(mapping, groups[:7])
    first = mapping.fc0.weight.detach()
    assert torch.equal(first[:, 4:], before[:, 4:]) and not torch.equal(first[:, :4], before[:, :4])
    columns = mapping.embed(torch.eye(12)).detach()
    looks = torch.linalg.lstsq(found.along.T, (found.classes[2] - found.classes[0])[:, None]).solution[:, 0].float()  # of one group
    said, told = first[:, :4] @ looks, first[:, 10:] @ (columns[2] - columns[0]) / columns.square().mean().sqrt()
    assert torch.cosine_similarity(said, told, dim=0) > 0.95 and 0.7 < said.norm() / told.norm() < 1.3


def test_fakes_stand_for_real_pictures():
    z, looks = torch.randn(3, 8), torch.randn(3, 2)
    looks[1] = 0
    own = Latents(z, z + 1, torch.rand(3), torch.rand(3), torch.zeros(3, 4))
    c, windows = torch.eye(4)[:3], torch.tensor([[16, 0, 0]] * 3)
    found = instances.stand_for(own, looks, c, windows)
    assert found.c is c and found.windows is windows and torch.equal(found.z[:, 2:], z[:, 2:]) and torch.equal(found.z[1], z[1])
    expected = looks * (1 - 0.3 ** 2) ** 0.5 + 0.3 * z[:, :2]
    assert torch.allclose(found.z[::2, :2], expected[::2]) and torch.equal(found.looks[::2], found.z[::2, :2])
    assert found.looks[1].tolist() == [0, 0] and torch.equal(found.z_mix, torch.cat([found.z[:, :2], z[:, 2:] + 1], dim=1))
    assert torch.equal(found.strided_slice(1, 2).looks, found.looks[1:2])


def test_others_are_unlike_and_known():
    looks = torch.tensor([[1.0, 0], [0, 1], [-1, 1], [0, 1.1], [0, 0], [1, 0], [1, 0], [0, 0]])
    rolled, unlike = instances.others(looks)
    assert torch.equal(rolled, looks[[4, 5, 6, 7, 0, 1, 2, 3]])
    assert unlike.tolist() == [False, True, True, False, False, True, True, False]


def test_a_head_projects_onto_a_look_that_begins_as_no_matter():
    head, x, look = FeatureHead(5, 3, 1, look_dim=4), torch.randn(2, 5, 4, 4), torch.randn(2, 4)
    cmap = torch.randn(2, 3)
    with torch.no_grad():
        assert torch.equal(head(x, cmap, look), head(x, cmap))
        head.embed_look.weight.normal_()
        assert not torch.equal(head(x, cmap, look), head(x, cmap)) and torch.equal(head(x, cmap, look * 0), head(x, cmap))


# ---- Runs


@pytest.fixture(scope='module')
def images(tmp_path_factory):
    return make_images(tmp_path_factory.mktemp('data') / 'images', classes=3)


@pytest.mark.parametrize('use_labels', [False, True])
def test_a_run_resumes_bit_for_bit(images, tmp_path, use_labels):
    dataset, settings = tiny_run(images, use_labels=use_labels, kimg=0.016, tick=0.008, snap=1, grow='8:0.008', fade=0.004, instances=1.0,
                                 **FEATURES)
    assert settings.look_dim == 4 and settings.discriminator_kwargs(1)['look_dim'] == 4
    whole, halves = tmp_path / 'whole', tmp_path / 'halves'
    for folder in (whole, halves):
        folder.mkdir()
    train(settings, dataset, whole)
    short = dataclasses.replace(settings, run=dataclasses.replace(settings.run, kimg=0.008))
    train(short, dataset, halves)
    train(settings, dataset, halves, resume=checkpoint.network_path(halves, 8))
    assert_same_snapshot(whole, halves, 16)
    D = checkpoint.load_networks(checkpoint.network_path(whole, 16))['D']
    assert D.init_kwargs['look_dim'] == 4 and D.heads[0].embed_look.weight.abs().sum() > 0


def test_looks_teach_both_networks(images):
    def trained_with(weight):
        dataset, settings = tiny_run(images, row=ROW, use_labels=True, instances=weight, **FEATURES)
        return steps(Training(settings, dataset), 2)

    one, two = trained_with(1.0), trained_with(5.0)
    assert not torch.equal(weights(one.G), weights(two.G))
    assert one.D.heads[0].embed_look.weight.abs().sum() > 0
    found = one.stats.collect()
    assert found['Loss/look']['mean'] > 0 and {'Scores/wrong_look', 'Scores/real_features'} <= found.keys()
    assert not {'Loss/look', 'Scores/wrong_look'} & trained_with(0.0).stats.collect().keys()


@pytest.mark.parametrize('more', [{}, {'aug': 'fixed', 'p': 0.5, 'augpipe': 'blit'}, {'batch_gpu': 2}])
def test_steps_with_windows_augmentation_and_passes(pictures, more):  # noqa: F811
    dataset, settings = windows_run(pictures, instances=1.0, whole=0.5, **more, **FEATURES)
    training = steps(Training(settings, dataset), 2)
    assert torch.isfinite(weights(training.G)).all() and training.stats.collect()['Loss/look']['mean'] >= 0


def test_recorded_steps_are_the_steps(pictures):  # noqa: F811
    dataset, settings = windows_run(pictures, instances=1.0, whole=0.5, **FEATURES)
    assert_same(trained(dataset, settings, 6, False), trained(dataset, settings, 6, True))


def test_a_mistake_is_a_line(images):
    with pytest.raises(UserError, match='--instances has no effect without --d-features'):
        tiny_run(images, instances=1.0)
    with pytest.raises(UserError, match='--instances needs --d-features.* a z of 2 numbers or more'):
        tiny_run(images, row=dict(z_dim=1), instances=1.0, **FEATURES)
