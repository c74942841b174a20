"""The order in which images are drawn: everything once, in place at once after a pause, shared among processes, in groups of a class."""

import dataclasses
import itertools

import numpy as np
import pytest

from dnnlib.util import UserError
from tests.training.tiny import make_images, tiny_run
from training.dataset import ImageDataset
from training.latents import draw_latents
from training.resuming import same_data
from training.sampling import ClassGroupSampler, InfiniteSampler, class_group
from training.starting import new_run

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


def test_labels_of_fakes_are_grouped_too(tmp_path):
    folder = make_images(tmp_path / 'shapes', count=30, classes=6)
    dataset, settings = tiny_run(folder, use_labels=True, class_groups=True, batch=16, row=dict(mbstd_group=4))
    plain = draw_latents(tiny_run(folder, use_labels=True, batch=16)[1], dataset, 32, 'G')
    latents = draw_latents(settings, dataset, 32, 'G')
    assert class_group(settings) == 4 and (latents.z == plain.z).all()
    assert (latents.c.reshape(4, 4, 6) == plain.c[:4]).all() and len(latents.c.unique(dim=0)) > 1


def test_where_classes_cannot_be_grouped(tmp_path):
    path = make_images(tmp_path / 'shapes', classes=2)
    asked = dict(cfg='inr-small', kimg=1.0)
    assert new_run(str(path), None, asked | {'cond': True}, 'cpu')[1].discriminator.class_groups  # the preset's
    assert not new_run(str(path), None, asked | {'cond': True, 'class_groups': False}, 'cpu')[1].discriminator.class_groups
    plain = new_run(str(path), None, asked, 'cpu')[1]
    assert not plain.discriminator.class_groups and class_group(plain) == 1
    with pytest.raises(UserError, match='--class-groups: .* needs classes for that, --cond and one zip or folder'):
        new_run(str(path), None, asked | {'class_groups': True}, 'cpu')
    given = dataclasses.replace(plain, discriminator=dataclasses.replace(plain.discriminator, class_groups=True))
    with pytest.raises(UserError, match='--class-groups'):
        same_data(None, given)
    (path / 'dataset.json').write_text('{"labels": [' + ', '.join(f'["{i:02d}.png", [0, {i}]]' for i in range(10)) + ']}')
    assert not new_run(str(path), None, asked | {'cond': True}, 'cpu')[1].discriminator.class_groups
    assert not ImageDataset(path, use_labels=True).can_group
