"""What a run says while it works: that a signal has come, how long it will take, where a slow step is, and the line of a tick."""

import contextlib
import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator

import psutil
import torch

from dnnlib.util import format_bytes, format_time
from torch_utils import distributed
from training import ada, growing, memory, plugins
from training.config import Config
from training.loss import generator_loss, phases

FIRST_SILENCE, LONGEST_SILENCE = 20.0, 600.0  # seconds within a step without a line: the first time, and at most
SLOW_PASS = 5.0  # seconds of a pass beside which loading and compiling weigh little


class StopSignal:
    """While entered, the first SIGTERM or Ctrl-C is noted, in `number`, and answered with a line; the second ends the process at once."""

    def __init__(self):
        self.number = 0
        self._before: dict[int, object] = {}

    def _note(self, number: int, frame: object) -> None:
        if self.number:
            os._exit(128 + number)
        self.number = number
        if distributed.is_main():  # print() may be what was interrupted
            line = f'{signal.Signals(number).name}: stops after this step, with a snapshot; a second one ends at once, without\n'
            with contextlib.suppress(OSError):
                os.write(1, line.encode())

    def __enter__(self):
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *exc_info):
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Within it Ctrl-C spares processes that begin, such as compilers, which it would end; it is noted at the latest afterwards."""
        if not hasattr(signal, 'pthread_sigmask'):
            yield
            return
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


# ---- How long it takes


def phase_costs(macs: dict[str, int]) -> dict[str, float]:
    """Multiply-accumulates of one image in each phase of `loss.phases`, from those of one image through G and through D.

    A backward pass counts twice as much as its forward pass, where weights need no gradients as much. R1 and the path length
    differentiate twice; the latter takes half the images.
    """
    G, D = macs['G'], macs['D']
    costs = {'G': 3 * G + 2 * D, 'G_reg': 3 * G, 'D': G + 6 * D, 'D_reg': 6 * D}
    return {**costs, 'G_both': costs['G'] + costs['G_reg'], 'D_both': costs['D'] + 3 * D}


def step_cost(settings: Config, macs: dict[str, int]) -> float:
    """Multiply-accumulates of one image in a step, phases that do not run in every step weighted with their share of steps."""
    costs = phase_costs(macs)
    return sum(costs[phase] / interval for phase, interval in phases(settings.loss))


def mean_step_cost(settings: Config, begin: int) -> float:
    """Mean of `step_cost` over the images from `begin` to the end of a run, at the sizes at which they are seen."""
    counts = growing.images_by_size(settings.grow.sizes, settings.data.resolution, begin, int(settings.run.kimg * 1000))
    costs = {size: step_cost(settings, memory.macs(settings, size)) for size, count in counts.items() if count}
    return sum(counts[size] * cost for size, cost in costs.items()) / max(sum(counts.values()), 1)


def estimate(settings: Config, seconds: float, images: int, minutes: float = math.inf) -> str:
    """'8m 20s a step, 12h 03m 10s for 100 kimg'. seconds: of a step, on average; images: that are left; minutes: that there are."""
    left = min(images / settings.run.batch * seconds, 60 * minutes)
    step = format_time(seconds) if seconds >= 10 else f'{seconds:.2g}s'
    limit = ' or the --minutes given' if minutes < math.inf else ''
    return f'about {step} a step, {format_time(left)} for {images / 1000:g} kimg{limit}'


def timed_pass(settings: Config, device: torch.device | str, world_size: int) -> tuple[float, int]:
    """(seconds, images) of a pass of G's main loss with networks made for it: the second, as the first loads and compiles.

    On a CPU the first is of one image, and the last where it takes SLOW_PASS seconds.
    """
    device, most = torch.device(device), settings.images_at_once(world_size)
    G = plugins.build_generator(settings).to(device)
    D = plugins.build_discriminator(settings, world_size).to(device).requires_grad_(False)
    for images in (most if device.type == 'cuda' else 1, most):
        z, c = torch.randn([images, G.z_dim], device=device), torch.zeros([images, G.c_dim], device=device)
        begin = time.monotonic()
        loss = generator_loss(D(G.synthesis(G.mapping(z, c)), torch.zeros([images, D.c_dim], device=device))).mean()
        loss.backward()
        if device.type == 'cuda':
            torch.cuda.synchronize(device)
        if (seconds := time.monotonic() - begin) >= SLOW_PASS and device.type != 'cuda':
            break
    return seconds, images


class Pace:
    """Estimates the time of a run, and says where a step is that takes long. `passed` is told of every pass.

    The estimate is from the first pass where that takes SLOW_PASS seconds on a CPU, else from a step, the second, on a GPU the third, or
    the one after `prepare` steps where these are more: the ones before load, compile and record.

    log, images: where to say it; a function that returns the images seen;  total: images of the whole run
    ends: when time is up, on the monotonic clock
    """

    def __init__(self, settings: Config, device: torch.device, log, images: Callable[[], int], total: float, ends: float = math.inf,
                 prepare: int = 0):
        self.settings, self.device, self.log, self.images, self.total, self.ends = settings, device, log, images, total, ends
        self.prepare = max(prepare, 2 if device.type == 'cuda' else 1)
        stage = settings.grow.stage(settings.data.resolution, images())
        self.costs = phase_costs(memory.macs(settings, stage and stage.resolution))
        self.first_phase = phases(settings.loss)[0][0]
        self.silence, self.first, self.step, self.estimated = FIRST_SILENCE, images(), images(), False
        self.begin = self.said = self.step_begin = time.monotonic()
        self.work = 0.0  # costs of an image since `begin`

    def passed(self, phase: str, done: int, passes: int) -> None:
        """After pass number `done` of `passes` of a phase."""
        if self.images() != self.step:
            self.step, self.step_begin = self.images(), time.monotonic()
        if not self.estimated:
            self.work += self.costs[phase] / passes
            if phase == self.first_phase and done == 1:
                self._estimate()
        now = time.monotonic()
        if now - max(self.said, self.step_begin) >= self.silence:
            self.said, self.silence = now, min(2 * self.silence, LONGEST_SILENCE)
            self.log.say(f'in the step after {self.step / 1000:g} kimg: {phase}, pass {done} of {passes}, '
                         f'{format_time(now - self.step_begin)} since it began')

    def _estimate(self) -> None:
        """At the end of the first pass of a step."""
        gpu, steps = self.device.type == 'cuda', (self.images() - self.first) // self.settings.run.batch
        if gpu and steps >= 2:
            torch.cuda.synchronize(self.device)
        seconds = time.monotonic() - self.begin
        if steps > self.prepare or (steps == 0 and seconds >= SLOW_PASS and not gpu):
            self.estimated = True
            seconds *= mean_step_cost(self.settings, self.images()) / self.work
            left = max(self.ends - time.monotonic(), 0) / 60
            self.log.say(f'estimate: {estimate(self.settings, seconds, self.total - self.images(), left)}')
        elif steps:
            self.begin, self.work = time.monotonic(), 0.0


# ---- Ticks


class TickClock:
    """Times the steps between two ticks, and tells it in a line. ends: when time is up, on the monotonic clock."""

    def __init__(self, training, ends: float = float('inf')):
        self.ends = ends
        self.training, self.images, self.begin, self.waited = training, training.images, time.monotonic(), 0.0
        self.advised, self.told, self.started, self.ticks = False, False, False, 0

    def next(self, data: Iterator) -> list[torch.Tensor]:
        """The next batch; the time it took to come counts as waiting."""
        asked = time.monotonic()
        distributed.at('data', self.training.images)
        batch = next(data)
        distributed.at('step' if self.started else 'first step, which compiles')
        self.started = True
        self.waited += time.monotonic() - asked
        return batch

    def restart(self) -> None:
        """Starts the next tick; what happened since the last one (saving, drawing) counts as time of the run only."""
        self.training.seconds += time.monotonic() - self.begin
        self.images, self.begin, self.waited = self.training.images, time.monotonic(), 0.0

    def tick(self, log) -> None:
        """Writes a tick's line and numbers, if there were steps. All processes must call this."""
        training, stats = self.training, self.training.stats.collect()
        means = {name: value['mean'] for name, value in stats.items()}
        count, seconds, gpu = training.images - self.images, time.monotonic() - self.begin, ''
        augmented = ''
        self.restart()
        if not count:
            return
        speed, wait, memory = count / seconds, self.waited / seconds, psutil.Process().memory_info().rss
        if training.device.type == 'cuda':
            peak = torch.cuda.max_memory_allocated(training.device)
            torch.cuda.reset_peak_memory_stats(training.device)
            means['Resources/peak_gpu_bytes'] = peak
            if training.recorder and training.recorder.recorded:  # what recorded phases keep for themselves counts as allocated only once
                peak = torch.cuda.memory_reserved(training.device)
            gpu = f', GPU {format_bytes(peak)}'
        if training.augment.pipe:
            means['Augment/p'] = training.augment.p
            augmented = f'  aug p {training.augment.p:.3f} r {means["Signs/real"]:.2f}'
        means.update(training.held_out.scores(training.loss, means, training.images))
        if 'Overfitting/r_v' in means:
            augmented += f'  r_v {means["Overfitting/r_v"]:.2f}'
        left = max(training.settings.run.kimg * 1000 - training.images, 0) / speed
        left = max(min(left, self.ends - time.monotonic()), 0)
        skipped = ''.join(f'  {name} skipped {number} steps' for name, number in training.skipped.items() if number)
        log.say(f'kimg {training.images / 1000:<8g} time {format_time(training.seconds):<10} {1000 / speed:.1f} s/kimg  {speed:.1f} img/s  '
                f'ETA {format_time(left)}  data wait {wait:.0%}  memory {format_bytes(memory)}{gpu}  '
                f'loss G {means["Loss/G"]:.3f} D {means["Loss/D_real"] + means["Loss/D_fake"]:.3f}{augmented}{skipped}')
        if training.recorder and training.recorder.problem and not self.told:
            log.say(f'Steps run kernel by kernel, not recorded as CUDA graphs: {training.recorder.problem}')
            self.told = True
        self._advise(means.get('Signs/real', 0.0), log)
        means.update(training.health.look(training.health.tick(stats, wait if self.ticks else None), log.say))  # the first starts processes
        self.ticks += 1
        log.stats(training.images, {
            'Progress/kimg': training.images / 1000, **{f'Progress/skipped_{name}': number for name, number in training.skipped.items()},
            'Timing/total_seconds': training.seconds, 'Timing/seconds_per_kimg': 1000 / speed, 'Timing/images_per_second': speed,
            'Timing/data_wait_share': wait, 'Resources/memory_bytes': memory, **means})

    def _advise(self, r: float, log) -> None:
        """A line about overfitting when it begins, and again when it comes back."""
        training = self.training
        text = ada.advice(r, training.augment.p, training.settings.augment.kind, training.images / training.dataset.distinct)
        if text and not self.advised:
            log.say(text)
        self.advised = bool(text)
