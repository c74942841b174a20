"""Runs that go on are the runs that were not stopped, bit for bit."""

import subprocess
import sys
import time

import pytest
import torch
from safetensors.torch import load_file

from dnnlib.util import UserError
from tests.helpers import ROOT, relative_error
from tests.training.runs import assert_same_snapshot, augmented, same_state, stats_of, steps
from tests.training.tiny import make_set, tiny_run
from training import checkpoint, run_folder
from training.resuming import same_data
from training.starting import new_run
from training.training_loop import Training, train


@pytest.mark.parametrize('class_groups', [False, True])
@pytest.mark.parametrize('stop_at', [0.016, 0.024], ids=['at a tick', 'between ticks'])
def test_resume_is_bit_exact(labelled, folder, stop_at, class_groups):
    run = dict(use_labels=True, tick=0.016, snap=100, class_groups=class_groups)
    dataset, whole = tiny_run(labelled, kimg=0.048, **run)
    train(whole, dataset, folder('whole'))
    _, half = tiny_run(labelled, kimg=stop_at, **run)
    halves = folder('halves')
    train(half, dataset, halves)
    train(whole, dataset, halves, resume=run_folder.find_resumable(halves))
    assert_same_snapshot(halves, folder.root / 'whole', 48)
    assert [line['images'] for line in stats_of(halves)] == [16, 32, 48]


@pytest.mark.parametrize('stop_at', [0.016, 0.024], ids=['at a change of p', 'between two'])
def test_resume_is_bit_exact_with_adaptive_augmentation(labelled, folder, stop_at):
    ada_run = dict(kind='ada', pipe='bgcfnc', p=0.5, target=0.5, ada_kimg=0.1)
    dataset, whole = tiny_run(labelled, use_labels=True, kimg=0.048, tick=0.016, snap=100)
    whole = augmented(whole, **ada_run)
    train(whole, dataset, folder('whole'))
    _, half = tiny_run(labelled, use_labels=True, kimg=stop_at, tick=0.016, snap=100)
    halves = folder('halves')
    train(augmented(half, **ada_run), dataset, halves)
    train(whole, dataset, halves, resume=run_folder.find_resumable(halves))
    assert_same_snapshot(halves, folder.root / 'whole', 48)
    p = [line['Augment/p'] for line in stats_of(halves)]
    assert len(set(p)) > 1 and 0.5 not in p
    log = (halves / 'log.txt').read_text()
    assert f'aug p {p[0]:.3f} r ' in log


def test_states_of_older_runs_resume_with_augmentation(images, folder):
    dataset, settings = tiny_run(images, kimg=0.008)
    train(settings, dataset, folder('run'))
    network = checkpoint.network_path(folder.root / 'run', 8)
    state = torch.load(checkpoint.state_path(network), weights_only=True)
    assert state.pop('augment') is None
    torch.save(state, checkpoint.state_path(network))
    training = Training(augmented(settings, kind='ada', p=0.25), dataset)
    training.resume(network)
    assert training.augment.p == 0.25
    assert 'augment' not in steps(training, 1).state_dict()['optimizers']


def test_workers_change_nothing(images, folder):
    for name, workers in (('none', 0), ('two', 2)):
        dataset, settings = tiny_run(images, kimg=0.016, workers=workers)
        train(settings, dataset, folder(name))
        last = checkpoint.network_path(folder.root / name, 16)
    assert same_state(load_file(last), load_file(checkpoint.network_path(folder.root / 'none', 16)))


def test_resume_after_kill(images, folder):
    killed, script = folder('killed'), """
import sys
from pathlib import Path
from tests.training.tiny import tiny_run
from training.training_loop import train
dataset, settings = tiny_run(sys.argv[1], kimg=100, tick=0.016, snap=2, keep_last=0)
train(settings, dataset, Path(sys.argv[2]))
"""
    child = subprocess.Popen([sys.executable, '-c', script, str(images), str(killed)], cwd=ROOT, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 240
    while len((killed / 'stats.jsonl').read_text().splitlines() if (killed / 'stats.jsonl').exists() else []) < 3:  # one past a snapshot
        assert child.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    child.kill()
    child.wait()
    last = run_folder.find_resumable(killed)
    total = checkpoint.read_header(last)['images'] + 32
    dataset, settings = tiny_run(images, kimg=total / 1000, tick=0.016, snap=2, keep_last=0)
    train(settings, dataset, killed, resume=last)
    train(settings, dataset, folder('whole'))
    assert_same_snapshot(killed, folder.root / 'whole', total)


def test_classes_of_a_resumed_run_keep_their_names(tmp_path):
    path, names = tmp_path / 'a.zip', ['a/1', 'b/1', 'a/2']
    make_set(path, 12, labels=[0, 1, 2] * 4, classes=names)
    settings = new_run(str(path), None, dict(cfg='inr-tiny', kimg=1.0, cond=True), 'cpu')[1]
    for labels, classes, message in (([2, 1, 0] * 4, names[::-1], r'other classes .* in another order, a/2 for a/1: .*--init-from'),
                                     ([0, 1, 2] * 3 + [0, 0, 0], names, r'other clusters than this run \(a/1 has grown.*--like=BEFORE')):
        make_set(path, 12, labels=labels, classes=classes)
        with pytest.raises(UserError, match=message):
            same_data(str(path), settings)
    make_set(path, 10, labels=([0, 1, 2] * 4)[:10], classes=names)  # two pictures removed
    dataset, now = same_data(str(path), settings)
    assert now.data.images == len(dataset) // 2 == 10 and now.data.class_sizes == [4, 3, 3]


def test_resume_takes_new_rates(images, folder):
    dataset, settings = tiny_run(images, kimg=0.008)
    train(settings, dataset, folder('run'))
    _, slower = tiny_run(images, kimg=0.008, lr=0.001)
    training = Training(slower, dataset)
    training.resume(checkpoint.network_path(folder.root / 'run', 8))
    assert training.optimizers['G'].param_groups[0]['lr'] == pytest.approx(0.001 * 2 / 3)
    assert training.optimizers['G'].state_dict()['state'][0]['step'] == 2 + 1  # two main steps and one path-length step


@pytest.mark.parametrize('first, then', [(False, None), (None, False)])
def test_resume_with_another_layout_goes_on_with_the_same_moments(images, folder, first, then):
    dataset, settings = tiny_run(images, kimg=0.012, channels_last=first)
    train(settings, dataset, folder('run'))
    network, moved = checkpoint.network_path(folder.root / 'run', 12), {}
    for layout in (first, then):
        training = Training(tiny_run(images, channels_last=layout)[1], dataset)
        training.resume(network)
        before = {name: p.detach().clone() for name, p in training.D.named_parameters()}
        steps(training, 1)
        moved[layout] = {name: p.detach() - before[name] for name, p in training.D.named_parameters()}
    for name, step in moved[first].items():
        assert relative_error(moved[then][name], step) < 1e-3, name
