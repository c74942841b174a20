"""Clusters of pictures that look alike: how a set is divided, and what the columns of its labels begin as."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from PIL import Image

from dnnlib.util import UserError
from inr.trunk import Trunk
from tests.training.tiny import make_images, make_set, tiny_run
from training import clusters, transfer
from training.checkpoint import save_networks
from training.data.labels import Labels
from training.dataset import ImageDataset
from training.layers import FullyConnectedLayer
from training.training_loop import Training

LOOKS = [[1.0, 0, 0], [0.9, 0.1, 0], [0, 0, 1], [1.0, 0, 0]]
NAMES = ['a/1', 'a/2', 'a/3', 'b/1']


def planted(random, centres, each):
    """(looks, which centre each is near) of points around centres, in a mixed order."""
    where = random.permutation(np.repeat(np.arange(len(centres)), each))
    return np.asarray(centres)[where] + random.normal(0, 0.02, (len(where), len(centres[0]))), where


def test_planted_clusters_are_found_in_each_class():
    random = np.random.RandomState(0)
    looks, where = planted(random, np.eye(5), 8)
    classes = np.isin(where, (3, 4)).astype(int)  # the last two are another class
    found, names, means = clusters.divide(looks, classes, ['x', 'y'], total=5)
    assert names == ['x/1', 'y/1', 'x/2', 'y/2', 'x/3']  # the first of all classes, then the second ones
    assert len({(cluster, centre) for cluster, centre in zip(found, where, strict=True)}) == 5
    for index, name in enumerate(names):
        assert {'xy'[each] for each in classes[found == index]} == {name[0]}
        assert means[index] == pytest.approx(looks[found == index].mean(0))
    again = clusters.divide(looks, classes, ['x', 'y'], total=5)
    assert again[0].tolist() == found.tolist() and again[1] == names


def test_larger_clusters_come_first_and_a_class_without_images_has_none():
    looks = np.concatenate([np.tile([[1.0, 0]], (2, 1)), np.tile([[0, 1.0]], (6, 1))])
    found, names, _means = clusters.divide(looks, np.full(8, 1), ['none', 'x'], total=2)
    assert names == ['x/1', 'x/2'] and found.tolist() == [1, 1, 0, 0, 0, 0, 0, 0]


def test_shares_follow_the_root_of_sizes():
    assert clusters.shares(np.array([100, 400, 900]), 60).tolist() == [10, 20, 30]
    assert clusters.shares(np.array([1, 3, 10_000]), 300).tolist() == [1, 1, 292]  # half of the images at most


def test_looks_have_length_one_and_do_not_depend_on_scale_or_shift():
    features = np.random.RandomState(1).normal(size=(30, 12))
    looks = clusters.looks_of(features, np.arange(30) % 3)
    assert looks.shape == (30, 12) and np.linalg.norm(looks, axis=1) == pytest.approx(np.ones(30))
    assert abs(clusters.looks_of(3 * features + 5, np.arange(30) % 3)) == pytest.approx(abs(looks))
    assert clusters.looks_of(np.random.RandomState(1).normal(size=(90, 60)), np.zeros(90, int)).shape == (90, clusters.LOOK)
    assert clusters.looks_of(np.ones([5, 4]), np.zeros(5, int)).tolist() == [[1]] * 5  # nothing differs


def test_pictures_that_look_alike_are_told_from_others(tmp_path):
    pixels = make_set(tmp_path / 'noise.zip', 6, 32)
    assert pixels.shape[0] == 6
    folder = tmp_path / 'flat'
    make_images(folder, 6, 32)
    for i, file in enumerate(sorted(folder.glob('*.png'))):
        Image.new('RGB', (32, 32), (250, 250 - i, 250)).save(file)
    with ImageDataset(f'{tmp_path}/noise.zip,{folder}') as dataset:
        done = []
        features = clusters.features_of(dataset, torch.device('cpu'), done.append)
    assert features.shape == (12, 432) and sum(done) == 12
    found, _names, _means = clusters.divide(clusters.looks_of(features, np.zeros(12, int)), np.zeros(12, int), ['all'], 2)
    assert len(set(found[:6])) == len(set(found[6:])) == 1 and found[0] != found[6]


@pytest.mark.parametrize(('labels', 'classes', 'message'), [
    ([[0.5, 1.0]] * 3, None, 'lists of numbers, not classes'),
    ([0, 1, 1], ['a/1', 'a/2'], 'has the class a/1, which is divided already'),
])
def test_what_cannot_be_divided(tmp_path, labels, classes, message):
    make_set(tmp_path / 'set.zip', 3, labels=labels, classes=classes)
    with ImageDataset(tmp_path / 'set.zip') as dataset, pytest.raises(UserError, match=message):
        clusters.groups_of(dataset)


def test_classes_of_sets_with_and_without_names_or_labels(tmp_path):
    for labels, classes, expected in (([0, 2, 0], ['a', 'b', 'c'], ['a', 'b', 'c']), ([0, 2, 0], None, ['0', '1', '2']),
                                      (None, None, ['all'])):
        make_set(tmp_path / 'set.zip', 3, labels=labels, classes=classes)
        with ImageDataset(tmp_path / 'set.zip') as dataset:
            found, names = clusters.groups_of(dataset)
            assert names == expected and found.tolist() == (labels or [0, 0, 0])


def cosines(weight):
    columns = torch.nn.functional.normalize(weight.detach(), dim=0)
    return columns.T @ columns


def test_columns_begin_as_clusters_look(tmp_path):
    class Network(torch.nn.Module):
        def __init__(self, inputs):
            super().__init__()
            self.mapping = torch.nn.Module()
            self.mapping.embed = FullyConnectedLayer(inputs, 512)

    labels = Labels({}, 4, NAMES, looks=LOOKS)
    G, D = Network(4), Network(6)
    rest = D.mapping.embed.weight[:, 4:].clone()
    for network in (G, D):
        clusters.begin(network, labels, seed=3)
    weight = G.mapping.embed.weight.detach()
    assert torch.equal(weight, D.mapping.embed.weight[:, :4]) and torch.equal(rest, D.mapping.embed.weight[:, 4:])
    assert weight.square().mean().item() == pytest.approx(1, abs=0.1)
    expected = torch.tensor([[1, 0.997, 0.5, 0.5], [0.997, 1, 0.5, 0.5], [0.5, 0.5, 1, 0], [0.5, 0.5, 0, 1]])
    assert (cosines(weight) - expected).abs().max() < 0.1
    plain = torch.nn.Module()
    plain.mapping = torch.nn.Module()
    clusters.begin(plain, labels, seed=3)  # a generator of others, without such a layer


def test_a_run_on_clusters_begins_with_them(tmp_path):
    make_images(tmp_path / 'data', 8)
    content = {'labels': [[f'{i:02d}.png', i % 4] for i in range(8)], 'classes': NAMES, 'looks': LOOKS}
    (tmp_path / 'data' / 'dataset.json').write_text(json.dumps(content))
    dataset, settings = tiny_run(tmp_path / 'data', use_labels=True)
    training = Training(settings, dataset)
    for network in (training.G, training.D, training.G_ema):
        found = cosines(network.mapping.embed.weight)
        assert found[0, 1] > 0.9 > found[0, 2]


def test_columns_taken_of_a_group_keep_half_of_the_look(tmp_path):
    make_images(tmp_path / 'whole', 8)
    names = {'labels': [[f'{i:02d}.png', i % 2] for i in range(8)], 'classes': ['a', 'b']}
    (tmp_path / 'whole' / 'dataset.json').write_text(json.dumps(names))
    dataset, settings = tiny_run(tmp_path / 'whole', use_labels=True)
    settings = dataclasses.replace(settings, data=dataclasses.replace(settings.data, classes=['a', 'b']))
    source = Training(settings, dataset)
    save_networks(tmp_path / 'a.safetensors', source.networks, settings, 0)
    make_images(tmp_path / 'data', 8)
    content = {'labels': [[f'{i:02d}.png', i % 4] for i in range(8)], 'classes': NAMES, 'looks': LOOKS}
    (tmp_path / 'data' / 'dataset.json').write_text(json.dumps(content))
    dataset, settings = tiny_run(tmp_path / 'data', use_labels=True)
    training = Training(settings, dataset)
    begun = training.G.mapping.embed.weight.detach().clone()
    transfer.load(tmp_path / 'a.safetensors', training.networks, transfer.Classes(NAMES, looks=True))
    theirs = source.G.mapping.embed.weight.detach()[:, [0, 0, 0, 1]] * 2 ** 0.5  # twice as many inputs
    looks = begun * theirs.norm(dim=0) / begun.norm(dim=0)  # a column that has grown as it learned is not to drown its look
    assert torch.allclose(training.G.mapping.embed.weight, (theirs + looks) / 2 ** 0.5)
    transfer.load(tmp_path / 'a.safetensors', training.networks, transfer.Classes(NAMES))
    assert torch.allclose(training.G.mapping.embed.weight, theirs)


def test_the_trunk_of_a_hypernetwork_begins_with_looks_too():
    network = torch.nn.Module()
    network.mapping = Trunk(64, 4, 32, 2)
    clusters.begin(network, Labels({}, 4, NAMES, looks=LOOKS), seed=3)
    found = cosines(network.mapping.embedding.T)
    assert found[0, 1] > 0.9 and abs(found[0, 3]) < 0.8
