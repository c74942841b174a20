"""Tiny runs for tests: a few steps, and what they leave compared."""

import dataclasses
import json

import torch
from safetensors.torch import load_file

from tests.training.tiny import make_images, tiny_run
from training import checkpoint
from training.options import AugmentConfig
from training.training_loop import Training, batches, train

NO_NOISE = {'synthesis': {'use_noise': False}}  # noise knows its process and pass


def after_a_step(folder):
    """A tiny run on a new folder of images, one step in."""
    dataset, settings = tiny_run(make_images(folder))
    training = Training(settings, dataset)
    training.step(torch.zeros([4, 3, 16, 16], dtype=torch.uint8), torch.zeros([4, 0]))
    return training


def steps(training, count):
    data = batches(training.source, training.settings, training.images, pin=False)
    for _ in range(count):
        training.step(*next(data))
    data.close()
    return training


def weights(network):
    return torch.cat([p.detach().flatten().clone() for p in network.parameters()])


def gradients(network):
    return torch.cat([torch.zeros_like(p).flatten() if p.grad is None else p.grad.flatten().clone() for p in network.parameters()])


def stats_of(folder):
    """The lines of stats.jsonl without what the clock and the memory say."""
    clocked = ('Timing/', 'Resources/', 'timestamp', 'Health/data')
    return [{key: value for key, value in json.loads(line).items() if not key.startswith(clocked)}
            for line in (folder / 'stats.jsonl').read_text().splitlines()]


def same_state(a, b):
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same_state(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same_state, a, b))
    return torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


def assert_resumes(settings, dataset, folder, midway):
    """Trains in one go, and with a stop after `midway` images: the last snapshots are the same. Returns the folder of the first run."""
    whole, halves = folder / 'whole', folder / 'halves'
    for each in (whole, halves):
        each.mkdir()
    train(settings, dataset, whole)
    short = dataclasses.replace(settings, run=dataclasses.replace(settings.run, kimg=midway / 1000))
    train(short, dataset, halves)
    train(settings, dataset, halves, resume=checkpoint.network_path(halves, midway))
    assert_same_snapshot(whole, halves, round(1000 * settings.run.kimg))
    return whole


def assert_same_snapshot(one, other, images):
    tensors, others = (load_file(checkpoint.network_path(folder, images)) for folder in (one, other))
    assert tensors.keys() == others.keys()
    assert [key for key in tensors if not torch.equal(tensors[key], others[key])] == []
    paths = [checkpoint.state_path(checkpoint.network_path(folder, images)) for folder in (one, other)]
    state, expected = (torch.load(path, weights_only=True) for path in paths)
    del state['seconds'], expected['seconds']
    assert same_state(state, expected)
    assert stats_of(one) == stats_of(other)


def augmented(settings, **given):
    return dataclasses.replace(settings, augment=AugmentConfig(**given))
