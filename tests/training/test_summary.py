"""What --dry-run says a run takes, against what it does take."""

import re

from tests.training.tiny import make_images, tiny_run
from training import checkpoint, memory
from training.summary import costs, describe, parameter_counts
from training.training_loop import train


def test_parameters_are_counted():
    assert parameter_counts({'G': 2002, 'D': 9}) == 'parameters:  G 2,002, D 9'


def test_disk_estimate_is_what_a_snapshot_takes(tmp_path):
    dataset, settings = tiny_run(make_images(tmp_path / 'images'), row={'g_channel_max': 64, 'g_channel_base': 2048, 'd_channel_base': 2048,
                                                                       'd_channel_max': 64}, kimg=0.004)
    (tmp_path / 'run').mkdir()
    train(settings, dataset, tmp_path / 'run')
    network = checkpoint.find_resumable(tmp_path / 'run')
    size = network.stat().st_size + checkpoint.state_path(network).stat().st_size
    found = re.search(r'disk: +([\d.]+) MiB a snapshot; the last 3 are kept', costs(settings, memory.needs(settings), 'memory'))
    assert abs(float(found[1]) * 2 ** 20 / size - 1) < 0.1
    _, all_kept = tiny_run(tmp_path / 'images', keep_last=0)
    assert 'a snapshot; all are kept' in costs(all_kept, memory.needs(all_kept), 'memory')


def test_passes_are_told(tmp_path):
    images = make_images(tmp_path / 'images')
    for batch_gpu in (2, 4):
        _, settings = tiny_run(images, batch=4, batch_gpu=batch_gpu)
        assert f'{4 // batch_gpu} pass(es) of {batch_gpu}' in describe(settings)
