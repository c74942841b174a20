"""Recorded phases: what is replayed does what the phase would have done. A CPU records nothing, so there a phase is called again with the
inputs that a graph would read; on a GPU the graphs themselves are compared."""

import contextlib
import dataclasses
from types import SimpleNamespace

import pytest
import torch

from dnnlib.util import UserError
from tests.helpers import relative_error
from tests.training.runs import NO_NOISE, after_a_step, augmented, same_state, steps, weights
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


def assert_same(one, other):
    """Bit for bit on a CPU. A GPU adds in another order every time, which Adam enlarges."""
    if DEVICE.type == 'cpu':
        for name, network in one.networks.items():
            assert all(torch.equal(other.networks[name].state_dict()[key], value) for key, value in network.state_dict().items()), name
        assert same_state(one.stats.state_dict(), other.stats.state_dict())
        return
    initial = Training(one.settings, one.dataset, DEVICE).networks
    for name in ('G', 'D'):
        changes = [weights(training.networks[name]) - weights(initial[name]) for training in (one, other)]
        assert relative_error(*changes) < 0.2, name
        for moments in zip(*(training.optimizers[name].state_dict()['state'].values() for training in (one, other)), strict=True):
            assert moments[0]['step'] == moments[1]['step'] and relative_error(*(each['exp_avg_sq'] for each in moments)) < 0.2
    for name, own in other.stats.state_dict().items():
        count, total, _ = one.stats.state_dict()[name].tolist()
        assert own[0] == count and own[1].item() == pytest.approx(total, rel=0.1, abs=1)


@pytest.mark.parametrize('more', [{}, {'style_mixing': 0.5}, {'r1_interval': 1}])
def test_recorded_steps_are_the_steps(tmp_path, more):
    dataset, settings = tiny_run(make_images(tmp_path / 'images', classes=3), use_labels=True, row={**ROW, **more})
    plain, recorded = (trained(dataset, settings, 14, each) for each in (False, True))
    assert_same(plain, recorded)
    assert recorded.recorder.recorded == set(dict(training_loop.phases(settings.loss)))
    assert recorded.skipped == {'G': 0, 'D': 0}


def test_windows_are_read_anew_in_every_step(pictures):  # noqa: F811
    dataset, settings = windows_run(pictures, whole=0.3)
    assert_same(*(trained(dataset, settings, 10, each) for each in (False, True)))


def test_windows_of_a_run_that_grows_begin_when_it_is_grown(pictures):  # noqa: F811
    dataset, settings = windows_run(pictures, whole=0.3, grow='8:0.024', fade=0.008)
    plain, recorded = (trained(dataset, settings, 15, each) for each in (False, True))
    assert recorded.recorder.recorded == {'G', 'D', 'D_reg'} and plain.loss.stage.resolution == 16
    assert_same(plain, recorded)
    assert_same(*(trained(dataset, settings, 5, each) for each in (False, True)))


def test_a_recorded_run_goes_on_from_its_snapshot(tmp_path):
    dataset, settings = tiny_run(make_images(tmp_path / 'images'), row=ROW)
    whole, half = trained(dataset, settings, 12, True), trained(dataset, settings, 7, True)
    path = checkpoint.network_path(tmp_path, half.images)
    checkpoint.save_state(checkpoint.state_path(path), half.state_dict())
    checkpoint.save_networks(path, half.networks, settings, half.images)
    half.resume(path)
    assert not half.recorder.recorded  # what was recorded reads the optimizers' moments of before
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


@pytest.fixture
def gpu(monkeypatch):
    """A GPU of 10 GiB, 3 of them taken by a step, on which recording goes wrong in the ways that it is told to."""
    state = SimpleNamespace(free=7 << 30, broken=False, wrong=None)

    @contextlib.contextmanager
    def graph(*args, **kwargs):
        try:
            yield
        finally:
            if state.wrong:
                raise torch.AcceleratorError(state.wrong)

    fakes = dict(max_memory_allocated=lambda: 3 << 30, mem_get_info=lambda: (state.free, 10 << 30), empty_cache=lambda: None, graph=graph,
                 CUDAGraph=lambda: SimpleNamespace(replay=lambda: None), stream=contextlib.nullcontext, current_stream=lambda: None)
    for name, fake in fakes.items():
        monkeypatch.setattr(torch.cuda, name, fake)

    def rand(*args, **kwargs):
        if state.broken:
            raise torch.AcceleratorError('operation not permitted when stream is capturing')
        return torch.zeros([])

    monkeypatch.setattr(torch, 'rand', rand)
    return state


def failing():
    raise RuntimeError('a kernel\nthat cannot be recorded')


def test_a_recording_takes_what_a_step_takes_and_leaves_as_much(gpu):
    record = graphs.CudaGraphs()
    assert record(lambda: 5)[1] == 5
    gpu.free = 5 << 30
    with pytest.raises(RuntimeError, match='5.0 GiB of memory are free, and it takes up to 3.0 beside as much for the rest'):
        record(lambda: 5)


def test_a_failed_recording_says_why_and_whether_the_gpu_goes_on(gpu):
    with pytest.raises(RuntimeError, match='^a kernel that cannot be recorded$'):
        graphs.CudaGraphs()(failing)
    gpu.wrong = 'operation failed due to a previous error during capture'
    with pytest.raises(RuntimeError, match='^operation failed due to a previous error during capture$'):
        graphs.CudaGraphs()(lambda: None)
    with pytest.raises(RuntimeError, match='^a kernel that cannot be recorded$'):  # the one that began it
        graphs.CudaGraphs()(failing)
    gpu.broken = True
    with pytest.raises(UserError, match='failed, and the GPU with it .a kernel that cannot be recorded.: go on with .*--no-cuda-graphs'):
        graphs.CudaGraphs()(failing)


def test_what_is_recorded_stays_when_no_more_can_be(tmp_path):
    def record(function):
        tries.append(function)
        if len(tries) == 2:
            raise torch.OutOfMemoryError('CUDA out of memory')
        return called_again(function)

    tries = []
    dataset, settings = tiny_run(make_images(tmp_path / 'images'), row=ROW)
    plain, training = trained(dataset, settings, 9, False), Training(settings, dataset)
    training.recorder = graphs.Recorder(torch.device('cpu'), record)
    steps(training, 9)
    assert training.recorder.recorded == {'G'} and len(tries) == 2
    if DEVICE.type == 'cpu':
        assert_same(plain, training)


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
        sizes.append({static['reals'].shape[-1] for static, *_ in recorded.recorder._recorded.values()})
    assert sizes[:3] == [set()] * 3 and sizes[3] == {16}
    assert sizes[10:16] == [set()] * 6  # blended in, which is another phase in every step
    assert sizes[-1] == {32}
    assert_same(plain, recorded)
