"""What --dry-run says a run takes, against what it does take."""

import dataclasses
import re

import pytest

from tests.training.tiny import make_images, tiny_run
from training import checkpoint, memory, run_folder
from training.summary import costs, describe, parameter_counts
from training.training_loop import train


def test_parameters_are_counted():
    assert parameter_counts({'G': 2002, 'D': 9}) == 'parameters:  G 2,002, D 9'


def test_disk_estimate_is_what_a_snapshot_takes(tmp_path):
    dataset, settings = tiny_run(make_images(tmp_path / 'images'), row={'g_channel_max': 64, 'g_channel_base': 2048, 'd_channel_base': 2048,
                                                                       'd_channel_max': 64}, kimg=0.004)
    (tmp_path / 'run').mkdir()
    train(settings, dataset, tmp_path / 'run')
    network = run_folder.find_resumable(tmp_path / 'run')
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


def test_augmentation_and_frozen_layers_are_told(tmp_path):
    images = make_images(tmp_path / 'images')
    for given, expected in (
        ({}, 'augment:     none'),
        ({'aug': 'fixed', 'p': 0.25, 'augpipe': 'bg'}, 'augment:     blit, geom, each with chance 0.25\n'),
        ({'aug': 'ada'}, 'color, each with chance p: 0 at first, then as it keeps r_t, the mean sign of D(real), at 0.6; '
                         'from 0 to 1 in 500 kimg at most'),
        ({'aug': 'ada', 'p': 0.1, 'target': 0.5, 'ada_kimg': 50.0}, 'p: 0.1 at first, then as it keeps r_t, the mean sign of D(real), '
                                                                    'at 0.5; from 0 to 1 in 50 kimg'),
        ({'freeze_d': 3}, 'minibatch groups of 2, the first 3 layers frozen\n'),
    ):
        assert expected in describe(tiny_run(images, **given)[1]), given


@pytest.mark.parametrize('count, mirror, given, expected', [
    (4999, False, {}, 'few images:  D may learn 4,999 by heart: try --aug=ada, --mirror and a gamma of several times 0.5'),
    (300, True, {}, 'few images:  D may learn 300 by heart: try --aug=ada and a gamma'),
    (300, False, {'aug': 'ada'}, 'try --mirror and a gamma'),
    (300, True, {'aug': 'ada'}, None), (5000, False, {}, None),
])
def test_few_images_are_told_with_what_helps(tmp_path, count, mirror, given, expected):
    settings = tiny_run(make_images(tmp_path / 'images'), **given)[1]
    text = describe(dataclasses.replace(settings, data=dataclasses.replace(settings.data, images=count, mirror=mirror)))
    assert expected in text if expected else 'few images' not in text
