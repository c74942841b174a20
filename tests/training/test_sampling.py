"""The order in which images are drawn: everything once, in place at once after a pause, shared among processes, in groups of a class."""

import dataclasses
import itertools
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from dnnlib.util import UserError
from tests.training.test_windows import SYNTHESIS
from tests.training.tiny import make_images, tiny_run
from training.dataset import ImageDataset
from training.held_out import HeldOut
from training.latents import draw_latents
from training.resuming import same_data
from training.sampling import ClassGroupSampler, InfiniteSampler, items_of_groups
from training.starting import new_run
from training.summary import describe
from training.windows import Windows

CLASSES = np.array([0] * 9 + [2] * 4 + [1] * 30 + [5])


def take(sampler, count):
    return list(itertools.islice(sampler, count))


def test_sampler_visits_everything_once_per_epoch():
    order = take(InfiniteSampler(10, seed=3), 40)
    epochs = [order[i:i + 10] for i in range(0, 40, 10)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4
    assert order != take(InfiniteSampler(10, seed=4), 40)
    assert order[:10] == [9, 1, 0, 8, 2, 4, 3, 5, 7, 6]  # pinned: a run resumed with a later version goes on in the same order


def test_sampler_resumes_and_shares_among_ranks():
    order = take(InfiniteSampler(7, seed=1), 60)
    for start in (0, 1, 6, 7, 23):
        assert take(InfiniteSampler(7, seed=1, start=start), 30) == order[start:start + 30]
        for world_size in (2, 3):
            for rank in range(world_size):
                part = InfiniteSampler(7, seed=1, rank=rank, world_size=world_size, start=start)
                assert take(part, 10) == order[start + rank:start + rank + 10 * world_size:world_size]


def test_groups_hold_images_of_one_class():
    sampler = ClassGroupSampler(CLASSES, batch=8, group=4, seed=1)
    groups = sampler.groups(0)
    assert groups.shape == (3 + 1 + 8 + 1, 4) and set(groups.flat) == set(range(len(CLASSES)))
    assert sorted(CLASSES[groups[:, 0]].tolist()) == [0] * 3 + [1] * 8 + [2] + [5] and (CLASSES[groups] == CLASSES[groups[:, :1]]).all()
    order = np.array(take(sampler, 8 * 13)).reshape(13, 4, 2)  # two epochs of 13 groups: 13 steps of two
    assert order.transpose(0, 2, 1).reshape(26, 4).tolist() == [*groups.tolist(), *sampler.groups(1).tolist()]
    assert sampler.groups(0).tolist() != sampler.groups(1).tolist() != ClassGroupSampler(CLASSES, 8, 4, seed=2).groups(1).tolist()
    assert take(sampler, 8) == [43, 13, 43, 18, 43, 34, 43, 22]  # pinned: a run resumed with a later version goes on in the same order


@pytest.mark.parametrize('world, passes', [(1, 1), (2, 1), (1, 2), (2, 2), (4, 1)])
def test_every_pass_of_every_process_has_whole_groups(world, passes):
    """The minibatch deviation of n images puts image i in group i mod (n / size), see training.layers."""
    whole, start = take(ClassGroupSampler(CLASSES, 16, 4), 160), 48
    for rank in range(world):
        own = take(ClassGroupSampler(CLASSES, 16, 4, rank=rank, world_size=world, start=start), 32 // world)
        assert own == whole[start + rank:start + 32:world]
        for step in np.array(own).reshape(2, -1):
            for i in range(passes):
                grouped = CLASSES[step[i::passes]].reshape(4, -1)
                assert (grouped == grouped[0]).all()


@pytest.mark.parametrize('batch, stored, at_once', [
    (12, 4, 12), (12, 4, 6), (12, 4, 3), (12, 3, 4), (12, 3, 2), (24, 4, 6), (6, 4, 6), (16, 4, 1),
])
def test_groups_of_the_deviation_stay_within_one_class(labelled, batch, stored, at_once):
    dataset, settings = tiny_run(labelled, use_labels=True, class_groups=True, batch=batch, batch_gpu=at_once, row=dict(mbstd_group=stored))
    group = settings.mbstd_group(1)
    assert settings.images_at_once(1) == at_once and at_once % group == 0 and settings.class_group % group == 0
    order = np.array(take(ClassGroupSampler(dataset.item_classes, batch, settings.class_group), batch))
    for i in range(passes := batch // at_once):
        grouped = dataset.item_classes[order[i::passes]].reshape(group, -1)
        assert (grouped == grouped[0]).all()
    text = describe(settings, 1)
    assert (', each of one class' in text) == (group > 1)


def test_fakes_are_grouped_as_reals_are(tmp_path):
    """Labels and windows are of the same items, classes as frequent as those of the sampler's groups."""
    folder = tmp_path / 'native'
    folder.mkdir()
    classes = [0] * 9 + [1] * 2 + [2]
    for i, each in enumerate(classes):
        Image.new('RGB', (16 << each, 16 << each)).save(folder / f'{i:02d}.png')
    (folder / 'dataset.json').write_text(json.dumps({'labels': [[f'{i:02d}.png', each] for i, each in enumerate(classes)]}))
    given = dict(cfg='inr-small', cond=True, res=16, windows=True, whole=0.0, scale_min=1.0, scale_max=4.0, kimg=1.0)
    dataset, settings = new_run(str(folder), None, given, 'cpu')
    assert settings.class_group == 4
    windows = Windows(settings, dataset, SYNTHESIS)
    frequency, scales = np.zeros(3), [set(), set(), set()]
    for images in range(0, 16 * 300, 16):
        latents = draw_latents(settings, dataset, images, 'G', windows)
        labels = latents.c.argmax(1)
        assert (labels.reshape(4, 4) == labels[:4]).all()
        for label, side in zip(labels.tolist(), latents.windows[:, 0].tolist(), strict=True):
            scales[label].add(side > 16)
            assert side <= 16 << label
        frequency += np.bincount(labels, minlength=3) / (16 * 300)
    assert scales == [{False}, {False, True}, {False, True}]
    np.testing.assert_allclose(frequency, np.array([5, 1, 1]) / 7, atol=0.05)  # groups: 18, 4 and 2 items with their flips
    items = items_of_groups(dataset, 16, 4, torch.Generator().manual_seed(0))
    assert set(items) <= set(range(24)) and len(set(items)) > 6


def test_held_out_images_are_judged_in_groups_of_a_class(tmp_path):
    dataset = ImageDataset(make_images(tmp_path / 'shapes', count=40, classes=3), use_labels=True, subset=8, class_balance=1)
    held_out, seen = HeldOut(dataset, batch=8, group=4), []
    loss = SimpleNamespace(stage=None, judge=lambda reals, labels, numbers: seen.append(labels.argmax(1)) or torch.zeros(len(reals), 1))
    held_out.scores(loss, {'Scores/real': 1.0, 'Scores/fake': 0.0}, 8)
    assert [len(labels) for labels in seen] == [8] * 4
    assert all((labels.reshape(4, 2) == labels[:2]).all() for labels in seen) and len(torch.cat(seen).unique()) == 3


def test_where_classes_cannot_be_grouped(tmp_path):
    path = make_images(tmp_path / 'shapes', classes=2)
    asked = dict(cfg='inr-small', kimg=1.0)
    assert new_run(str(path), None, asked | {'cond': True}, 'cpu')[1].class_group == 4  # the preset's
    assert new_run(str(path), None, asked | {'cond': True, 'class_groups': False}, 'cpu')[1].class_group == 1
    plain = new_run(str(path), None, asked, 'cpu')[1]
    assert not plain.discriminator.class_groups and plain.class_group == 1
    with pytest.raises(UserError, match='--class-groups: .* has no classes .*--cond and a single .*; --no-class-groups goes without'):
        new_run(str(path), None, asked | {'class_groups': True}, 'cpu')
    given = dataclasses.replace(plain, discriminator=dataclasses.replace(plain.discriminator, class_groups=True))
    with pytest.raises(UserError, match='--class-groups'):
        same_data(None, given)
    assert 'each of one class' not in describe(given, 1)
    (path / 'dataset.json').write_text('{"labels": [' + ', '.join(f'["{i:02d}.png", [0, {i}]]' for i in range(10)) + ']}')
    assert not new_run(str(path), None, asked | {'cond': True}, 'cpu')[1].discriminator.class_groups
    assert not ImageDataset(path, use_labels=True).can_group
