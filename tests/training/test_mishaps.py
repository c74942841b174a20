"""What becomes of a run when something goes wrong: data, numbers, the disk."""

import pytest
import torch

from dnnlib.util import UserError
from tests.training.runs import assert_same_snapshot, steps
from tests.training.tiny import make_images, tiny_run
from training import checkpoint, run_folder
from training.training_loop import Training, train


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
