"""The loop: accumulation, several processes, gradients that are not finite, signals."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from PIL import Image

from dnnlib.util import UserError
from tests.helpers import one_group, relative_error
from tests.training.runs import NO_NOISE, augmented, gradients, same_state, stats_of, steps, weights
from tests.training.tiny import tiny_run
from torch_utils.misc import allow_tf32
from torch_utils.pixels import from_uint8
from training import checkpoint, run_folder, training_loop
from training.latents import draw_latents
from training.loss import phases
from training.options import LossConfig
from training.training_loop import Training, batches, train


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
from tests.training.runs import NO_NOISE, augmented, gradients, steps
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
    with one_group(2, script, labelled, out, run) as children:
        printed, errors = zip(*(child.communicate(timeout=300) for child in children), strict=True)
        assert [child.returncode for child in children] == [0, 0], errors
    assert 'kimg 0.016' in printed[0] and printed[1] == ''

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
