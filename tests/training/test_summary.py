"""What --dry-run says a run takes, against what it does take."""

import re

import torch

from tests.training.tiny import make_images, tiny_run
from training import checkpoint
from training.summary import costs, describe, parameter_counts, saved_bytes
from training.training_loop import train


class Exponential(torch.nn.Module):
    """Keeps its result, and its parameter, for the backward pass; as G of 5 numbers or D of 3 x 4 x 4."""

    z_dim, c_dim, img_channels, img_resolution = 5, 0, 3, 4

    def __init__(self):
        super().__init__()
        self.rate = torch.nn.Parameter(torch.ones(()))

    def forward(self, x, c):
        return (self.rate.detach().requires_grad_() + x).exp()


def test_bytes_kept_for_the_backward_pass():
    assert saved_bytes(Exponential(), Exponential()) == (5 * 4, 3 * 4 * 4 * 4)


def test_parameters_are_counted():
    linear = torch.nn.Linear(1000, 2)
    assert parameter_counts({'G': linear, 'D': torch.nn.Linear(2, 3)}) == 'parameters:  G 2,002, D 9'


def test_disk_estimate_is_what_a_snapshot_takes(tmp_path):
    dataset, settings = tiny_run(make_images(tmp_path / 'images'), row={'g_channel_max': 64, 'g_channel_base': 2048, 'd_channel_base': 2048,
                                                                       'd_channel_max': 64}, kimg=0.004)
    (tmp_path / 'run').mkdir()
    train(settings, dataset, tmp_path / 'run')
    network = checkpoint.find_resumable(tmp_path / 'run')
    size = network.stat().st_size + checkpoint.state_path(network).stat().st_size
    found = re.search(r'disk: +([\d.]+) MiB a snapshot; the last 3 are kept', costs(settings))
    assert abs(float(found[1]) * 2 ** 20 / size - 1) < 0.1
    _, all_kept = tiny_run(tmp_path / 'images', keep_last=0)
    assert 'a snapshot; all are kept' in costs(all_kept)


def test_memory_grows_with_a_pass(tmp_path):
    images = make_images(tmp_path / 'images')
    found = []
    for batch_gpu in (2, 4):
        _, settings = tiny_run(images, batch=4, batch_gpu=batch_gpu)
        number, unit = re.search(r'memory: +about ([\d.]+) (KiB|MiB)', costs(settings)).groups()
        found.append(float(number) * {'KiB': 1, 'MiB': 1024}[unit])
        assert f'{4 // batch_gpu} pass(es) of {batch_gpu}' in describe(settings)
    assert found[0] < found[1] < 2 * found[0]
