"""The loop: resuming bit for bit, accumulation, several processes, gradients that are not finite, signals."""

import dataclasses
import json
import os
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from dnnlib.util import UserError
from tests.helpers import ROOT, relative_error
from tests.training.tiny import make_images, tiny_run
from torch_utils.misc import allow_tf32
from torch_utils.pixels import from_uint8
from training import checkpoint, run_folder, training_loop
from training.config import LossConfig
from training.latents import draw_latents
from training.loss import phases
from training.options import AugmentConfig
from training.training_loop import Training, batches, train

NO_NOISE = {'synthesis': {'use_noise': False}}  # noise knows its process and pass


@pytest.fixture(scope='module')
def images(tmp_path_factory):
    return make_images(tmp_path_factory.mktemp('data') / 'images')


@pytest.fixture(scope='module')
def labelled(tmp_path_factory):
    return make_images(tmp_path_factory.mktemp('data') / 'labelled', classes=3)


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


def assert_same_snapshot(one, other, images):
    tensors, others = (load_file(checkpoint.network_path(folder, images)) for folder in (one, other))
    assert tensors.keys() == others.keys()
    assert [key for key in tensors if not torch.equal(tensors[key], others[key])] == []
    paths = [checkpoint.state_path(checkpoint.network_path(folder, images)) for folder in (one, other)]
    state, expected = (torch.load(path, weights_only=True) for path in paths)
    del state['seconds'], expected['seconds']
    assert same_state(state, expected)
    assert stats_of(one) == stats_of(other)


@pytest.fixture
def folder(tmp_path):
    """A function that makes run folders below `folder.root`."""
    def make(name):
        (tmp_path / name).mkdir()
        return tmp_path / name

    make.root = tmp_path
    return make


@pytest.mark.parametrize('stop_at', [0.016, 0.024], ids=['at a tick', 'between ticks'])
def test_resume_is_bit_exact(labelled, folder, stop_at):
    dataset, whole = tiny_run(labelled, use_labels=True, kimg=0.048, tick=0.016, snap=100)
    train(whole, dataset, folder('whole'))
    _, half = tiny_run(labelled, use_labels=True, kimg=stop_at, tick=0.016, snap=100)
    halves = folder('halves')
    train(half, dataset, halves)
    train(whole, dataset, halves, resume=run_folder.find_resumable(halves))
    assert_same_snapshot(halves, folder.root / 'whole', 48)
    assert [line['images'] for line in stats_of(halves)] == [16, 32, 48]


def augmented(settings, **given):
    return dataclasses.replace(settings, augment=AugmentConfig(**given))


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


@pytest.mark.parametrize('phase, p', [('G', 0), ('D', 0), ('D_reg', 0), ('D_both', 0), ('G', 0.5), ('D_both', 0.5)])
def test_accumulation_equals_one_batch(labelled, phase, p):
    found = []
    for batch_gpu in (8, 4, 2):
        dataset, settings = tiny_run(labelled, use_labels=True, batch=8, batch_gpu=batch_gpu, row=NO_NOISE)
        settings = augmented(settings, kind='fixed', pipe='bgcfnc', p=p)
        training = Training(settings, dataset)
        reals, real_c = next(batches(dataset, settings, 0, pin=False))
        latents = draw_latents(settings, dataset, 0, phase)
        training._phase(phase, from_uint8(reals), real_c, latents, 8 // batch_gpu)
        found.append((gradients(training.G if phase == 'G' else training.D), training.G.mapping.w_avg.clone()))
    assert found[0][0].norm() > 0
    for cut in found[1:]:
        assert all(relative_error(one, whole) < 1e-5 for one, whole in zip(cut, found[0], strict=True) if whole.any())
    assert all(w_avg.any() == (phase != 'D_reg') for _, w_avg in found)


def test_a_run_keeps_its_groups_when_passes_become_larger(images, folder):
    run = folder('run')
    for batch_gpu, kimg in ((1, 0.004), (4, 0.008)):
        dataset, settings = tiny_run(images, batch_gpu=batch_gpu, kimg=kimg, tick=0.004)
        if batch_gpu > 1:
            stored = run_folder.stored_config(run)
            settings = dataclasses.replace(settings, discriminator=stored.discriminator)
        train(settings, dataset, run, resume=run_folder.find_resumable(run))
        header = checkpoint.read_header(checkpoint.network_path(run, round(kimg * 1000)))
        assert header['networks']['D']['init_kwargs']['epilogue_kwargs'] == {'mbstd_group_size': 1}


def test_two_processes_equal_one(labelled, tmp_path, folder):
    script = """
import os, sys, torch
from pathlib import Path
from tests.training.test_training_loop import NO_NOISE, augmented, gradients, steps
from tests.training.tiny import tiny_run
from torch_utils import distributed
from training.training_loop import Training, train
distributed.init()
dataset, settings = tiny_run(sys.argv[1], use_labels=True, batch=8, row={**NO_NOISE, 'pl_weight': 0}, kimg=0.016, tick=0.008)
settings = augmented(settings, kind='ada', pipe='bgcfnc', p=0.5)
training = steps(Training(settings, dataset), 1)
if distributed.is_main():
    torch.save([gradients(training.G), gradients(training.D)], sys.argv[2])
state = training.state_dict()
if distributed.is_main():
    torch.save([state['stats'], state['augment']], sys.argv[2] + '.stats')
train(settings, dataset, Path(sys.argv[3]))
distributed.shutdown()
"""
    run, out = folder('run'), tmp_path / 'gradients.pt'
    shared = {**os.environ, 'WORLD_SIZE': '2', 'MASTER_ADDR': '127.0.0.1', 'MASTER_PORT': free_port()}
    children = [subprocess.Popen([sys.executable, '-c', script, str(labelled), str(out), str(run)], cwd=ROOT, stdout=subprocess.PIPE,
                                 env={**shared, 'RANK': str(rank), 'LOCAL_RANK': str(rank)}) for rank in (0, 1)]
    printed = [child.communicate(timeout=300)[0] for child in children]
    assert [child.returncode for child in children] == [0, 0]
    assert b'kimg 0.016' in printed[0] and printed[1] == b''

    dataset, settings = tiny_run(labelled, use_labels=True, batch=8, row={**NO_NOISE, 'pl_weight': 0})
    alone = steps(Training(augmented(settings, kind='ada', pipe='bgcfnc', p=0.5), dataset), 1)
    of_G, of_D = torch.load(out, weights_only=True)
    assert relative_error(of_G, gradients(alone.G)) < 1e-4
    assert relative_error(of_D, gradients(alone.D)) < 1e-4
    (stats, state), expected = torch.load(f'{out}.stats', weights_only=True), alone.state_dict()['stats']
    assert same_state(state, alone.augment.state_dict()) and state['sums'][0] == 8
    assert stats.keys() == expected.keys()
    assert all(torch.allclose(stats[name], expected[name], rtol=1e-4) for name in stats)
    assert run_folder.find_resumable(run) == checkpoint.network_path(run, 16)


def free_port():
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        return str(probe.getsockname()[1])


def test_gradients_that_are_not_finite_skip_a_step(images, monkeypatch):
    dataset, settings = tiny_run(images)
    training = Training(settings, dataset)
    accumulate = training.loss.accumulate

    def spoil(phase, *args):
        accumulate(phase, *args)
        if phase == 'D':
            next(training.D.parameters()).grad[0] = float('nan')

    monkeypatch.setattr(training.loss, 'accumulate', spoil)
    G, D = weights(training.G), weights(training.D)
    training.settings = settings_without_penalties(images)
    steps(training, 2)
    assert torch.equal(weights(training.D), D) and not torch.equal(weights(training.G), G)
    assert training.skipped == {'G': 0, 'D': 2} and training.skipped_in_a_row == {'G': 0, 'D': 2}
    monkeypatch.setattr(training.loss, 'accumulate', accumulate)
    steps(training, 1)
    assert training.skipped == {'G': 0, 'D': 2} and training.skipped_in_a_row == {'G': 0, 'D': 0}
    assert not torch.equal(weights(training.D), D)

    monkeypatch.setattr(training.loss, 'accumulate', spoil)
    monkeypatch.setattr(training_loop, 'MAX_SKIPPED', 3)
    with pytest.raises(UserError, match='gradients of D were not finite in 3 steps in a row, at 0.02 kimg: lower --lr'):
        steps(training, 4)


def settings_without_penalties(images):
    return tiny_run(images, gamma=0, row={'pl_weight': 0})[1]


def test_phases_follow_the_weights_and_intervals():
    assert phases(LossConfig(gamma=1, r1_interval=16, pl_weight=2, g_reg_interval=4, style_mixing=0)) == \
        [('G', 1), ('G_reg', 4), ('D', 1), ('D_reg', 16)]
    assert phases(LossConfig(gamma=1, r1_interval=1, pl_weight=2, g_reg_interval=1, style_mixing=0)) == [('G_both', 1), ('D_both', 1)]
    assert phases(LossConfig(gamma=0, r1_interval=16, pl_weight=0, g_reg_interval=4, style_mixing=0)) == [('G', 1), ('D', 1)]


def test_penalties_run_at_their_intervals(images, monkeypatch):
    dataset, settings = tiny_run(images)  # path length every 2 steps, R1 every 3
    training, ran = Training(settings, dataset), []
    monkeypatch.setattr(training, '_phase', lambda phase, *args: ran.append((training.images // 4, phase)))
    steps(training, 4)
    assert [step for step, phase in ran if phase == 'G_reg'] == [0, 2]
    assert [step for step, phase in ran if phase == 'D_reg'] == [0, 3]
    assert len(ran) == 4 + 4 + 2 + 2


def test_adam_counts_every_step_for_every_parameter(images):
    """Those that a penalty alone does not reach, such as D's last bias, get zeros, as in the public code."""
    dataset, settings = tiny_run(images)
    training = steps(Training(settings, dataset), 1)
    for name, network in (('G', training.G), ('D', training.D)):
        counted = [training.optimizers[name].state[parameter]['step'].item() for parameter in network.parameters()]
        assert counted == [2.0] * len(counted), name


def test_lazy_rates_reach_the_optimizer(images):
    dataset, settings = tiny_run(images, row={'pl_weight': 0})  # an interval rescales although its penalty weighs nothing
    training = Training(settings, dataset)
    assert training.optimizers['G'].param_groups[0]['lr'] == pytest.approx(0.0025 * 2 / 3)
    assert training.optimizers['D'].param_groups[0]['lr'] == pytest.approx(0.002 * 3 / 4)
    assert training.optimizers['D'].param_groups[0]['betas'] == pytest.approx((0, 0.99 ** 0.75))


def test_resume_takes_new_rates(images, folder):
    dataset, settings = tiny_run(images, kimg=0.008)
    train(settings, dataset, folder('run'))
    _, slower = tiny_run(images, kimg=0.008, lr=0.001)
    training = Training(slower, dataset)
    training.resume(checkpoint.network_path(folder.root / 'run', 8))
    assert training.optimizers['G'].param_groups[0]['lr'] == pytest.approx(0.001 * 2 / 3)
    assert training.optimizers['G'].state_dict()['state'][0]['step'] == 2 + 1  # two main steps and one path-length step


def test_best_snapshot_is_kept_under_its_own_name(images, folder):
    dataset, settings = tiny_run(images, kimg=0.012, tick=0.004, snap=1, keep_last=1)
    scores = iter([5.0, 3.0, None])
    seen = []

    def evaluate(G, step, say):
        seen.append((step, G.training))
        cost = next(scores)
        say(f'cost {cost}')
        return {'score': -(cost or 0)}, cost

    run = folder('run')
    train(settings, dataset, run, evaluate=evaluate)
    assert seen == [(4, False), (8, False), (12, False)]
    assert checkpoint.read_header(run / 'network-best.safetensors')['images'] == 8
    assert [path.name for path in checkpoint.snapshots(run)] == ['network-snapshot-000000_012.safetensors']
    assert [line['score'] for line in stats_of(run) if 'score' in line] == [-5, -3, 0]
    assert torch.load(run / 'training-state-000000_012.pt', weights_only=True)['best'] == 3
    assert 'cost 3.0\nkimg 0.008: score -3 (best so far)' in (run / 'log.txt').read_text()


@pytest.mark.parametrize('channels_last, lies', [(None, True), (True, True), (False, False)])
def test_layout_of_the_discriminator(images, channels_last, lies):
    dataset, settings = tiny_run(images, channels_last=channels_last)
    weight = Training(settings, dataset).D.b8.conv0.weight
    assert weight.is_contiguous(memory_format=torch.channels_last) == lies != weight.is_contiguous()


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


def test_tf32_is_for_steps_and_not_for_scores(images, folder, monkeypatch):
    dataset, settings = tiny_run(images, kimg=0.008, tick=0.004, snap=1, allow_tf32=True)
    allowed, seen = lambda: (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32), []
    step = Training.step
    monkeypatch.setattr(Training, 'step', lambda *args: (seen.append(allowed()), step(*args)))
    before = allowed()
    try:
        allow_tf32(settings.run.allow_tf32)
        train(settings, dataset, folder('run'), evaluate=lambda *_: (seen.append(allowed()), ({}, None))[1])
        assert seen == [(True, True), (False, False)] * 2
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def test_run_folder_says_everything(images, folder, capsys):
    dataset, settings = tiny_run(images, kimg=0.008, tick=0.004, img_snap=1)
    run = folder('run')
    assert train(settings, dataset, run, note='a note') == 0
    names = {path.name for path in run.iterdir()}
    assert {'training_options.json', 'log.txt', 'stats.jsonl', 'reals.png', 'fakes_init.png', 'fakes000000_004.png', 'fakes000000_008.png',
            'network-snapshot-000000_008.safetensors', 'training-state-000000_008.pt'} < names
    assert any(name.startswith('events.out.tfevents') for name in names)
    log = (run / 'log.txt').read_text()
    assert log == capsys.readouterr().out
    for expected in ('a note', 'Adam, lr 0.00166667', 'kimg 0.008', 's/kimg', 'img/s', 'ETA', 'data wait', 'memory', 'Finished at 0.008'):
        assert expected in log
    assert np.asarray(Image.open(run / 'reals.png')).shape == (9 * 16, 16 * 16, 3)
    first, last = stats_of(run)
    assert (first['images'], last['images']) == (4, 8)
    assert {'Loss/G', 'Loss/D_real', 'Loss/D_fake', 'Scores/real', 'Progress/skipped_G'} < last.keys()
    assert {'Loss/r1', 'Loss/path_length'} < first.keys() and 'Loss/r1' not in last  # R1 runs in every third step


def test_minutes_stop_with_a_snapshot(images, folder, capsys):
    dataset, settings = tiny_run(images, kimg=1000)
    run = folder('run')
    assert train(settings, dataset, run, minutes=1e-9) == 0
    assert run_folder.find_resumable(run) == checkpoint.network_path(run, 0)
    assert f'Go on with: python train.py --resume={run}' in capsys.readouterr().out


def test_a_set_that_cannot_be_read_any_more_ends_the_run_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr('training.dataset.KEEP_BYTES', 0)
    images = make_images(tmp_path / 'images')
    dataset, settings = tiny_run(images, kimg=0.1, workers=1)
    for file in images.glob('*.png'):
        file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(UserError, match='images in a row cannot be used') as caught:
        steps(Training(settings, dataset), 10)
    assert '\n' not in str(caught.value)


def test_an_error_saves_first_and_the_run_goes_on_as_if_there_had_been_none(labelled, folder, monkeypatch, capsys):
    whole, broken = folder('whole'), folder('broken')
    dataset, settings = tiny_run(labelled, use_labels=True, kimg=0.032, tick=0.016)
    train(settings, dataset, whole)
    step = Training.step

    def failing(training, *batch):
        if training.images == 20:
            raise ValueError('a disk fails')
        step(training, *batch)

    monkeypatch.setattr(Training, 'step', failing)
    with pytest.raises(ValueError, match='a disk fails'):
        train(settings, dataset, broken)
    monkeypatch.setattr(Training, 'step', step)
    last = run_folder.find_resumable(broken)
    assert last == checkpoint.network_path(broken, 20)
    assert f'An error ends the run, saved at 0.02 kimg: python train.py --resume={broken} goes on' in capsys.readouterr().out
    train(settings, dataset, broken, resume=last)
    assert_same_snapshot(broken, whole, 32)


def spoiled_weight(training):
    next(training.G_ema.parameters())[0] = float('nan')


def spoiled_moment(training):
    next(iter(training.optimizers['D'].state.values()))['exp_avg_sq'][0] = float('inf')


def spoil(monkeypatch, act, times):
    """Calls act(training) after the step to 12 images, so many times."""
    step, left = Training.step, [None] * times

    def patched(training, *batch):
        step(training, *batch)
        if training.images == 12 and left:
            left.pop()
            act(training)

    monkeypatch.setattr(Training, 'step', patched)


@pytest.mark.parametrize('act, tick', [(spoiled_weight, 0.004), (lambda training: spoiled_nan(training.G), 0.02)])
def test_a_number_that_is_lost_once_comes_right_from_the_last_snapshot(images, folder, monkeypatch, capsys, act, tick):
    dataset, settings = tiny_run(images, kimg=0.008, tick=0.004, snap=1)
    whole, run = folder('whole'), folder('run')
    for place in (whole, run):
        train(settings, dataset, place)
    _, settings = tiny_run(images, kimg=0.024, tick=tick, snap=1)  # a tick of 20 images: the first step without gradients tells
    train(settings, dataset, whole, resume=checkpoint.network_path(whole, 8))
    capsys.readouterr()
    spoil(monkeypatch, act, times=1)
    train(settings, dataset, run, resume=checkpoint.network_path(run, 8))
    out = capsys.readouterr().out
    assert out.count(': going back to network-snapshot-000000_008.safetensors, once\n') == 1 and 'is not finite at 0.01' in out
    assert_same_snapshot(run, whole, 24)


def spoiled_nan(network):
    with torch.no_grad():
        next(network.parameters())[0] = float('nan')


@pytest.mark.parametrize('act, name', [(spoiled_weight, 'G_ema.'), (spoiled_moment, 'D.optimizer.')])
def test_what_is_not_finite_again_ends_the_run_and_takes_no_good_snapshots_place(images, folder, monkeypatch, capsys, act, name):
    dataset, settings = tiny_run(images, kimg=0.024, tick=0.004, snap=1, keep_last=1)
    run = folder('run')
    spoil(monkeypatch, act, times=9)
    report = f'{name}.* is not finite at 0.012 kimg; stats.jsonl has .* second time from network-snapshot-000000_008'
    with pytest.raises(UserError, match=report):
        train(settings, dataset, run)
    assert checkpoint.snapshots(run) == [run_folder.find_resumable(run)] == [checkpoint.network_path(run, 8)]
    out = capsys.readouterr().out
    assert out.count('going back to') == 1 and 'An error ends the run at 0.012 kimg, which could not be saved: ' + name in out


def test_without_a_snapshot_there_is_no_way_back(images, folder, monkeypatch):
    dataset, settings = tiny_run(images, kimg=0.024, tick=0.004, snap=100)
    spoil(monkeypatch, spoiled_weight, times=1)
    with pytest.raises(UserError, match='there is no snapshot to go back to'):
        train(settings, dataset, folder('run'))


def full(path, *_):
    raise OSError(28, 'No space left on device', str(path))


def test_a_full_disk_costs_a_snapshot_that_is_tried_again(images, folder, monkeypatch, capsys):
    dataset, settings = tiny_run(images, kimg=0.032, tick=0.004, snap=3, img_snap=3)
    whole, run = folder('whole'), folder('run')
    train(settings, dataset, whole)
    capsys.readouterr()
    save, left = checkpoint.save_networks, [12, 16]

    def small(path, networks, config, seen):
        if left and seen == left[0]:
            left.pop(0)
            full(path)
        save(path, networks, config, seen)

    monkeypatch.setattr(checkpoint, 'save_networks', small)
    monkeypatch.setattr('training.snapshot.save_grid', lambda path, *_: full(path) if '012' in path.name else None)
    train(settings, dataset, run)
    out = capsys.readouterr().out
    assert out.count('disk full while writing') == 2 and out.count('without this snapshot, and tries again at the next tick') == 1
    assert 'without this picture' in out
    assert checkpoint.snapshots(run) == [checkpoint.network_path(run, step) for step in (20, 24, 32)]
    assert not checkpoint.state_path(checkpoint.network_path(run, 12)).exists()
    assert_same_snapshot(run, whole, 32)


def test_an_end_that_cannot_be_saved_is_an_error(images, folder, monkeypatch):
    dataset, settings = tiny_run(images, kimg=0.012, tick=0.004, snap=2)
    save, run = checkpoint.save_networks, folder('run')
    monkeypatch.setattr(checkpoint, 'save_networks', lambda path, *args: full(path) if '012' in path.name else save(path, *args))
    with pytest.raises(UserError, match='no snapshot of the end at 0.012 kimg could be written, the last one is of 0.008 kimg'):
        train(settings, dataset, run)
    assert run_folder.find_resumable(run) == checkpoint.network_path(run, 8)


def test_a_snapshot_is_there_before_it_is_scored(images, folder):
    dataset, settings = tiny_run(images, kimg=0.008, tick=0.004, snap=1)
    run, seen = folder('run'), []

    def evaluate(G, step, say):
        seen.append(run_folder.find_resumable(run) == checkpoint.network_path(run, step))
        return {'pr_recall': 0.5 / 100 ** len(seen)}, None

    train(settings, dataset, run, evaluate=evaluate)
    assert seen == [True, True]
    assert [line['Health/recall'] for line in stats_of(run) if 'Health/recall' in line] == [0.005, 0.00005]
    assert (run / 'log.txt').read_text().count('Look: recall has fallen to 5e-05') == 1


def test_the_health_of_a_run_is_among_its_numbers(images, folder):
    dataset, settings = tiny_run(images, kimg=0.008, tick=0.004)
    train(settings, dataset, run := folder('run'))
    first, _ = stats_of(run)
    assert {'Health/loss_G', 'Health/loss_D', 'Health/D_range', 'Health/average', 'Health/variety'} <= first.keys()
    assert first['Health/loss_D'] == first['Loss/D_real'] + first['Loss/D_fake'] and 'Health/data_wait' not in first
    assert json.loads((run / 'stats.jsonl').read_text().splitlines()[1])['Health/data_wait'] >= 0
