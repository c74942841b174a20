"""What a run says while it works: signals, the time it will take, progress within a step, ticks."""

import os
import signal
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from tests.training.tiny import make_images, tiny_run
from training import clock, memory
from training.held_out import HeldOut
from training.loss import phases
from training.training_loop import Training

WELL = SimpleNamespace(tick=lambda stats, waited: {}, look=lambda values, say: {})


@pytest.fixture(scope='module')
def images(tmp_path_factory):
    return make_images(tmp_path_factory.mktemp('data') / 'images')


@pytest.fixture
def now(monkeypatch):
    """A list with the time on the monotonic clock."""
    time = [100.0]
    monkeypatch.setattr(clock.time, 'monotonic', lambda: time[0])
    return time


def test_eta_is_the_smaller_of_kimg_and_minutes(images, monkeypatch):
    dataset, settings = tiny_run(images, kimg=0.1)
    told, now = [], [0.0]
    monkeypatch.setattr(clock.time, 'monotonic', lambda: now[0])
    log = SimpleNamespace(say=told.append, stats=lambda images, values: None)
    stats = SimpleNamespace(collect=lambda: {name: {'mean': 0.0} for name in ('Loss/G', 'Loss/D_real', 'Loss/D_fake')})
    for ends in (float('inf'), 30.0, 5.0):
        now[0] = 0.0
        training = SimpleNamespace(images=0, seconds=0.0, settings=settings, stats=stats, device=torch.device('cpu'), skipped={},
                                   augment=SimpleNamespace(pipe=None, p=0.0), dataset=SimpleNamespace(distinct=5),
                                   held_out=HeldOut(dataset, 4), loss=None, recorder=None,
                                   health=WELL)
        ticks = clock.TickClock(training, ends)
        now[0], training.images = 10.0, 50
        ticks.tick(log)
    assert ['ETA 10s' in told[0], 'ETA 10s' in told[1], 'ETA 0s' in told[2]] == [True] * 3, told


def test_first_signal_is_noted_and_answered_at_once(capfd):
    before = signal.getsignal(signal.SIGTERM)
    with clock.StopSignal() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.number == signal.SIGTERM
        assert capfd.readouterr().out == 'SIGTERM: stops after this step, with a snapshot; a second one ends at once, without\n'
    assert signal.getsignal(signal.SIGTERM) is before


def test_ctrl_c_leaves_compilers_alone(capfd):
    """A terminal sends it to them as well, and their death would look like a fault in what they compile."""
    with clock.StopSignal() as stop:
        with stop.held():
            compiler = subprocess.Popen([sys.executable, '-c', 'print("compiled", flush=True); input()'], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, text=True)
            assert compiler.stdout.readline() == 'compiled\n'
            compiler.send_signal(signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)
            assert compiler.communicate('\n')[0] == '' and compiler.returncode == 0
        assert stop.number == signal.SIGINT and 'SIGINT: stops after this step' in capfd.readouterr().out


def test_a_step_costs_its_phases_by_their_share_of_steps(images):
    _, settings = tiny_run(images)  # path length every 2 steps, R1 every 3
    macs = {'G': 100, 'D': 10}
    costs = clock.phase_costs(macs)
    assert clock.step_cost(settings, macs) == costs['G'] + costs['G_reg'] / 2 + costs['D'] + costs['D_reg'] / 3
    assert costs['G'] == 320 and costs['D'] == 160
    _, plain = tiny_run(images, gamma=0, row={'pl_weight': 0})
    assert clock.step_cost(plain, macs) == 480


def test_estimates_in_words(images):
    _, settings = tiny_run(images)  # batches of 4
    assert clock.estimate(settings, 90, 4000) == 'about 1m 30s a step, 1d 01h 00m for 4 kimg'
    assert clock.estimate(settings, 0.25, 4000, minutes=2) == 'about 0.25s a step, 2m 00s for 4 kimg or the --minutes given'


def test_a_slow_first_pass_tells_how_long_the_run_takes(images, now):
    _, settings = tiny_run(images, batch=8, batch_gpu=2)
    told = []
    pace = clock.Pace(settings, torch.device('cpu'), SimpleNamespace(say=told.append), lambda: 0, 8000, ends=now[0] + 63)
    now[0] += 6.0
    pace.passed('G', 1, 4)
    macs = memory.needs(settings).macs
    seconds = 24 * clock.step_cost(settings, macs) / clock.phase_costs(macs)['G']
    assert told == [f'estimate: {clock.estimate(settings, seconds, 8000, 57 / 60)}']
    now[0] += 3.0
    pace.passed('G', 2, 4)
    assert len(told) == 1


def test_a_fast_run_is_estimated_from_its_second_step(images, now):
    _, settings = tiny_run(images)  # G, G_reg every 2 steps, D, D_reg every 3
    told, seen = [], [0]
    pace = clock.Pace(settings, torch.device('cpu'), SimpleNamespace(say=told.append), lambda: seen[0], 8000)
    for seen[0], ran in ((0, ['G', 'G_reg', 'D', 'D_reg']), (4, ['G', 'D']), (8, ['G'])):
        for phase in ran:
            now[0] += 2.0 if seen[0] == 0 else 0.5
            pace.passed(phase, 1, 1)
    macs = memory.needs(settings).macs
    costs = clock.phase_costs(macs)
    seconds = 1.0 * clock.step_cost(settings, macs) / (costs['D'] + costs['G'])  # D of the second step, G of the third
    assert told == [f'estimate: {clock.estimate(settings, seconds, 8000 - 8)}']


def test_a_run_that_grows_is_estimated_at_the_sizes_to_come(tmp_path, now):
    _, settings = tiny_run(make_images(tmp_path / 'images', resolution=32), grow='8:1,16:1', kimg=4)
    told, seen = [], [0]
    pace = clock.Pace(settings, torch.device('cpu'), SimpleNamespace(say=told.append), lambda: seen[0], 4000)
    now[0] += 6.0
    pace.passed('G', 1, 1)
    by_size = {size: memory.macs(settings, size) for size in (8, 16, 32)}
    assert by_size[32] == memory.needs(settings).macs
    assert by_size[8]['G'] < 0.5 * by_size[32]['G'] and by_size[8]['D'] < by_size[16]['D'] < by_size[32]['D']
    costs = {size: clock.step_cost(settings, macs) for size, macs in by_size.items()}
    seconds = 6.0 * (costs[8] + costs[16] + 2 * costs[32]) / 4 / clock.phase_costs(by_size[8])['G']
    assert told == [f'estimate: {clock.estimate(settings, seconds, 4000)}']


def test_a_slow_step_says_where_it_is_ever_more_seldom(images, now):
    _, settings = tiny_run(images)
    told, seen = [], [0]
    pace = clock.Pace(settings, torch.device('cpu'), SimpleNamespace(say=told.append), lambda: seen[0], 8000)
    pace.estimated = True
    for done in range(1, 21):
        now[0] += 5.0
        pace.passed('D', done, 20)
    assert told == ['in the step after 0 kimg: D, pass 4 of 20, 20s since it began',
                    'in the step after 0 kimg: D, pass 12 of 20, 1m 00s since it began']
    seen[0] = 4
    now[0] += 70.0
    pace.passed('G', 1, 20)  # the clock of a step starts with its first pass
    assert len(told) == 2
    now[0] += 90.0
    pace.passed('G', 2, 20)
    assert told[2:] == ['in the step after 0.004 kimg: G, pass 2 of 20, 1m 30s since it began']


def test_every_pass_of_a_step_is_told(images):
    dataset, settings = tiny_run(images, batch=4, batch_gpu=2)
    training, seen = Training(settings, dataset), []
    training.after_pass = lambda *told: seen.append(told)
    training.step(torch.zeros([4, 3, 16, 16], dtype=torch.uint8), torch.zeros([4, 0]))
    assert seen == [(phase, done, 2) for phase, _ in phases(settings.loss) for done in (1, 2)]


def test_a_timed_pass_is_the_second_unless_the_first_is_slow(images, monkeypatch):
    _, settings = tiny_run(images)
    seconds, count = clock.timed_pass(settings, 'cpu', 1)
    assert seconds > 0 and count == 4
    monkeypatch.setattr(clock, 'SLOW_PASS', 0.0)
    assert clock.timed_pass(settings, 'cpu', 1)[1] == 1


def test_overfitting_is_told_when_it_begins_and_when_it_comes_back(images):
    dataset, settings = tiny_run(images, kimg=0.1)
    told, signs = [], iter([0.95, 0.95, 0.5, 0.95])
    log = SimpleNamespace(say=told.append, stats=lambda images, values: None)
    names = ('Loss/G', 'Loss/D_real', 'Loss/D_fake')
    stats = SimpleNamespace(collect=lambda: {**{name: {'mean': 0.0} for name in names}, 'Signs/real': {'mean': next(signs)}})
    training = SimpleNamespace(images=0, seconds=0.0, settings=settings, stats=stats, device=torch.device('cpu'), skipped={},
                               augment=SimpleNamespace(pipe=None, p=0.0), dataset=SimpleNamespace(distinct=2),
                               held_out=HeldOut(dataset, 4), loss=None, recorder=None,
                               health=WELL)
    ticks, lines = clock.TickClock(training, float('inf')), []
    for _ in range(4):
        training.images += 20
        ticks.tick(log)
        lines.append(sum('knows its images by heart' in line for line in told))
    assert lines == [1, 1, 1, 2]
