"""Recorded phases: what is replayed does what the phase would have done. A CPU records nothing, so there a phase is called again with the
inputs that a graph would read; on a GPU the graphs themselves are compared."""

import dataclasses
from types import SimpleNamespace

import pytest
import torch

from dnnlib.util import UserError
from tests.training.runs import NO_NOISE, after_a_step, augmented, same_state, steps
from tests.training.test_windows import pictures, windows_run  # noqa: F401  (pictures is a fixture)
from tests.training.tiny import make_images, tiny_run
from training import checkpoint, graphs, training_loop
from training.clock import TickClock
from training.optimizer import make_optimizer, step_where_finite
from training.options import OptimizerConfig
from training.training_loop import Training

DEVICE = torch.device('cuda' if torch.cuda.is_available() else 'cpu')
ROW = dict(NO_NOISE, pl_weight=0)


def called_again(function):
    result = torch.zeros([])
    return lambda: result.copy_(function()), result


def recorder():
    return graphs.Recorder(DEVICE) if DEVICE.type == 'cuda' else graphs.Recorder(DEVICE, called_again)


def trained(dataset, settings, count, recorded):
    training = Training(settings, dataset, DEVICE)
    training.recorder = recorder() if recorded else None
    return steps(training, count)


def assert_same(one, other, exact=DEVICE.type == 'cpu'):
    for name, network in one.networks.items():
        for key, value in network.state_dict().items():
            own = other.networks[name].state_dict()[key]
            assert torch.equal(own, value) if exact else torch.allclose(own, value, rtol=0.05, atol=0.05), (name, key)
    if exact:
        assert same_state(one.stats.state_dict(), other.stats.state_dict())


@pytest.mark.parametrize('more', [{}, {'style_mixing': 0.5}, {'r1_interval': 1}])
def test_recorded_steps_are_the_steps(tmp_path, more):
    dataset, settings = tiny_run(make_images(tmp_path / 'images', classes=3), use_labels=True, row={**ROW, **more})
    plain, recorded = (trained(dataset, settings, 14, each) for each in (False, True))
    assert_same(plain, recorded)
    assert set(recorded.recorder._recorded) == set(dict(training_loop.phases(settings.loss)))
    assert recorded.skipped == {'G': 0, 'D': 0}


def test_windows_are_read_anew_in_every_step(pictures):  # noqa: F811
    dataset, settings = windows_run(pictures, whole=0.3)
    assert_same(*(trained(dataset, settings, 10, each) for each in (False, True)))


def test_a_recorded_run_goes_on_from_its_snapshot(tmp_path):
    dataset, settings = tiny_run(make_images(tmp_path / 'images'), row=ROW)
    whole, half = trained(dataset, settings, 12, True), trained(dataset, settings, 7, True)
    path = checkpoint.network_path(tmp_path, half.images)
    checkpoint.save_state(checkpoint.state_path(path), half.state_dict())
    checkpoint.save_networks(path, half.networks, settings, half.images)
    half.resume(path)
    assert not half.recorder._recorded  # what was recorded reads the optimizers' moments of before
    assert_same(whole, steps(half, 5))


def test_statistics_stay_where_recorded_steps_add_to_them(tmp_path):
    training = after_a_step(tmp_path / 'images')
    held = dict(training.stats._sums)
    assert training.stats.collect()['Loss/G']['num'] == 4 and training.stats.collect() == training.stats.state_dict() == {}
    assert all(training.stats._sums[name] is value and not value.any() for name, value in held.items())


@pytest.mark.parametrize('bad', [float('inf'), float('nan')])
def test_gradients_that_are_not_finite_change_nothing(bad):
    layer = torch.nn.Linear(3, 2).to(DEVICE)
    optimizer = make_optimizer(layer, OptimizerConfig(0.1, (0.5, 0.9), 1e-8))
    same = torch.nn.Linear(3, 2).to(DEVICE)
    same.load_state_dict(layer.state_dict())
    other = make_optimizer(same, OptimizerConfig(0.1, (0.5, 0.9), 1e-8))
    for value in (1.0, bad, -2.0):
        for network, adam in ((layer, optimizer), (same, other)):
            network.weight.grad, network.bias.grad = torch.full_like(network.weight, 0.5), torch.full_like(network.bias, value)
            if adam is optimizer:
                assert step_where_finite(adam).item() == (value is bad)
            elif value is not bad:
                adam.step()
    assert all(torch.allclose(a, b) for a, b in zip(layer.parameters(), same.parameters(), strict=True))
    assert optimizer.state[layer.weight]['step'] == 2


def test_a_run_of_such_gradients_ends_when_recorded_too(tmp_path, monkeypatch):
    monkeypatch.setattr('training.training_loop.MAX_SKIPPED', 6)
    dataset, settings = tiny_run(make_images(tmp_path / 'images'), row=ROW)
    training = trained(dataset, settings, 5, True)
    training.D.b4.out.weight.data.fill_(float('nan'))
    with pytest.raises(UserError, match='the gradients of .* were not finite in 6 steps in a row'):
        steps(training, 10)
    assert training.skipped['D'] > 3


def test_what_cannot_be_recorded_goes_on_as_it_was(tmp_path):
    def failing(function):
        raise torch.OutOfMemoryError('CUDA out of memory.\nTried to allocate 2 GiB')

    dataset, settings = tiny_run(make_images(tmp_path / 'images'), row=ROW)
    plain, training = trained(dataset, settings, 9, False), Training(settings, dataset, DEVICE)
    training.recorder = graphs.Recorder(DEVICE, failing)
    clock, said = TickClock(training), []
    for _ in range(3):
        steps(training, 3)
        clock.tick(SimpleNamespace(say=said.append, stats=lambda images, means: None))
    plain.stats.collect()
    assert_same(plain, training)
    assert [line for line in said if not line.startswith('kimg')] == \
        ['Steps run kernel by kernel, not recorded as CUDA graphs: CUDA out of memory. Tried to allocate 2 GiB']


@pytest.mark.parametrize('change', [
    lambda s: dataclasses.replace(s, run=dataclasses.replace(s.run, cuda_graphs=False)),
    lambda s: dataclasses.replace(s, run=dataclasses.replace(s.run, batch_gpu=2)),
    lambda s: dataclasses.replace(s, loss=dataclasses.replace(s.loss, pl_weight=2)),
    lambda s: dataclasses.replace(s, windows=dataclasses.replace(s.windows, consistency=1.0)),
    lambda s: augmented(s, kind='ada')])
def test_runs_that_do_not_do_the_same_in_every_step_are_not_recorded(tmp_path, change):
    _, settings = tiny_run(make_images(tmp_path / 'images'), row=ROW)
    assert graphs.recordable(settings, torch.device('cuda')) and not graphs.recordable(settings, torch.device('cpu'))
    assert not graphs.recordable(change(settings), torch.device('cuda'))


def test_a_run_that_grows_is_recorded_at_each_size(tmp_path):
    dataset, settings = tiny_run(make_images(tmp_path / 'images', resolution=32), row=ROW, grow='16:0.04', fade=0.016)
    plain, recorded = (Training(settings, dataset, DEVICE) for _ in range(2))
    recorded.recorder, sizes = recorder(), []
    for _ in range(20):
        steps(plain, 1)
        steps(recorded, 1)
        sizes.append({len(static) and static[0].shape[-1] for static, *_ in recorded.recorder._recorded.values()})
    assert sizes[:3] == [set()] * 3 and sizes[3] == {16}
    assert sizes[10:16] == [set()] * 6  # blended in, which is another phase in every step
    assert sizes[-1] == {32}
    assert_same(plain, recorded)
