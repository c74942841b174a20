"""The training loop, in one process or several: what happens in a step, and when a run logs, draws, saves and stops.

Nothing in a step depends on what went before except through the weights, the optimizers and the running means that a snapshot holds:
latents and random states are drawn anew in every step from (seed, images seen), data by its position. So a resumed run repeats itself.
Latents, images and groups of the minibatch deviation are dealt out to processes and passes in turns (n-th image to process n mod P), which
makes the gradient independent of both numbers.
"""

import contextlib
import copy
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch

from dnnlib.util import UserError, atomic_path
from torch_utils import distributed
from torch_utils.misc import allow_tf32, count_parameters, keep_freed_memory
from torch_utils.pixels import from_uint8
from torch_utils.training_stats import Averages
from training import checkpoint, growing, plugins, pretrained, snapshot, transfer
from training.ada import Augmentation
from training.augment import NUMBERS
from training.clock import Pace, StopSignal, TickClock
from training.config import Config
from training.config_json import to_json
from training.dataset import ImageDataset, batches
from training.ema import ema_beta, update_ema
from training.held_out import HeldOut
from training.loss import GanLoss, Latents, phases
from training.optimizer import make_optimizer, restore, step_if_finite
from training.state import expect_state
from training.summary import describe, parameter_counts
from training.windows import NUMBERS as WINDOW_NUMBERS
from training.windows import Windows

MAX_SKIPPED = 100  # steps in a row without finite gradients that end a run


def draw_latents(settings: Config, dataset: ImageDataset, images: int, phase: str, windows: Windows | None = None) -> Latents:
    """This process's latents for a phase of the step after `images`: its share of what one process alone would draw.

    windows: of the pictures in the data set, None for whole ones
    """
    batch, z_dim = settings.run.batch, settings.generator.z_dim
    random = torch.Generator().manual_seed(distributed.mix_seed(settings.run.seed, images, phase))
    z, z_mix = torch.randn([2, batch, z_dim], generator=random)
    chance, mix_position = torch.rand([2, batch], generator=random)
    items = torch.randint(len(dataset), [batch], generator=random).tolist()
    c = torch.from_numpy(np.stack([dataset.drawn_label(i) for i in items]))
    numbers = torch.rand(batch, 2, NUMBERS, generator=random, dtype=torch.float64) if settings.augment.kind != 'noaug' else None
    parts = None
    if windows is not None:
        parts = windows.of_items(items, torch.rand(batch, WINDOW_NUMBERS, generator=random, dtype=torch.float64).numpy(), images)
    latents = Latents(z, z_mix if settings.loss.style_mixing else None, chance, mix_position, c, numbers, parts)
    return latents.strided_slice(distributed.rank(), distributed.world_size())


def frozen_features(settings: Config, dataset: ImageDataset, device: torch.device) -> pretrained.FrozenFeatures:
    """The features that D judges, calibrated with images from all over the data set."""
    items = np.linspace(0, len(dataset) - 1, min(pretrained.CALIBRATION, len(dataset))).round().astype(int)
    images = from_uint8(torch.from_numpy(np.stack([dataset[int(i)][0] for i in items])))
    return pretrained.calibrated(settings.discriminator.features, images, device)


class Training:
    """All that a run changes: networks, optimizers, running means, counts.

    settings: configuration of the run;  dataset: for the labels of generated images;  device: of this process
    """

    def __init__(self, settings: Config, dataset: ImageDataset, device: torch.device | str = 'cpu'):
        self.settings, self.dataset, self.device = settings, dataset, torch.device(device)
        self.images, self.seconds, self.best = 0, 0.0, float('inf')
        distributed.seed(settings.run.seed, 'weights')  # all processes alike
        self.G = plugins.build_generator(settings).to(device).train()
        self.D = plugins.build_discriminator(settings, distributed.world_size()).to(device).train()
        if settings.run.channels_last or (settings.run.channels_last is None and self.device.type == 'cpu'):
            self.D.use_channels_last()  # on a CPU a quarter less time (docs/results-log.md)
        if settings.grow.sizes:
            growing.begin_at_zero(self.G.synthesis, settings.grow.sizes, settings.data.resolution)
        self.G_ema = copy.deepcopy(self.G).eval().requires_grad_(False)
        self.optimizers = {name: make_optimizer(network, settings.optimizer(name)) for name, network in (('G', self.G), ('D', self.D))}
        self.stats = Averages()
        self.augment = Augmentation(settings.augment, self.device)
        self.features = None if settings.discriminator.features == 'none' else frozen_features(settings, dataset, self.device)
        self.loss = GanLoss(self.G, self.D, settings.loss, self.stats, self.augment, self.features)
        if settings.windows.on:
            self.loss.windows = Windows(settings, dataset, self.G.synthesis)
        self.skipped = {'G': 0, 'D': 0}          # steps without finite gradients, in all
        self.skipped_in_a_row = {'G': 0, 'D': 0}
        self.held_out = HeldOut(dataset, settings.images_at_once(distributed.world_size()), self.device)
        self.after_pass = lambda phase, done, passes: None

    @property
    def networks(self) -> dict[str, torch.nn.Module]:
        """What a network file holds."""
        return {'G': self.G, 'D': self.D, 'G_ema': self.G_ema}

    @property
    def source(self) -> ImageDataset | Windows:
        """What `dataset.batches` takes for the steps."""
        return self.loss.windows or self.dataset

    def step(self, reals: torch.Tensor, real_c: torch.Tensor, real_windows: torch.Tensor | None = None) -> None:
        """One step on this process's share of a batch: uint8 [N, C, H, W], its labels [N, c_dim], and which parts [N, 3] of pictures."""
        run, world = self.settings.run, distributed.world_size()
        distributed.seed(run.seed, distributed.rank(), self.images)
        passes = len(reals) // self.settings.images_at_once(world)
        self.loss.stage = self.settings.grow.stage(self.settings.data.resolution, self.images)
        reals = growing.fit(from_uint8(reals.to(self.device, non_blocking=True)), self.loss.stage)
        real_c = real_c.to(self.device, non_blocking=True)
        for phase, interval in phases(self.settings.loss):
            if (self.images // run.batch) % interval == 0:
                latents = draw_latents(self.settings, self.dataset, self.images, phase, self.loss.windows).to(self.device)
                self._phase(phase, reals, real_c, latents, passes, real_windows)
        if world > 1:
            distributed.sum_(self.G.mapping.w_avg).div_(world)
        update_ema(self.G_ema, self.G, ema_beta(run.batch, self.settings.ema.kimg, self.settings.ema.rampup, self.images))
        self.images += run.batch
        self.augment.update(self.images, run.batch)

    def _phase(self, phase: str, reals: torch.Tensor, real_c: torch.Tensor, latents: Latents, passes: int,
               real_windows: torch.Tensor | None) -> None:
        name = phase[0]
        self.G.requires_grad_(name == 'G')
        self.D.requires_grad_(name == 'D')
        self.optimizers[name].zero_grad(set_to_none=True)
        for i in range(passes):
            self.loss.accumulate(phase, reals[i::passes], real_c[i::passes], latents.strided_slice(i, passes), 1 / passes,
                                 None if real_windows is None else real_windows[i::passes])
            self.after_pass(phase, i + 1, passes)
        stepped = step_if_finite(self.optimizers[name])
        self.skipped[name] += not stepped
        self.skipped_in_a_row[name] = 0 if stepped else self.skipped_in_a_row[name] + 1
        if self.skipped_in_a_row[name] >= MAX_SKIPPED:
            raise UserError(f'the gradients of {name} were not finite in {MAX_SKIPPED} steps in a row, at {self.images / 1000:g} kimg: '
                            'lower --lr or --gamma, or take --precision=fp32')

    def state_dict(self) -> dict:
        """What a snapshot holds beside the weights. All processes must call this."""
        return {'images': self.images, 'seconds': self.seconds, 'best': self.best, 'pl_mean': self.loss.pl_mean.cpu(),
                'skipped': dict(self.skipped), 'skipped_in_a_row': dict(self.skipped_in_a_row), 'stats': self.stats.state_dict(),
                'augment': self.augment.state_dict(),
                'optimizers': {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()}}

    def resume(self, network: Path) -> None:
        """Goes on from a snapshot; learning rates and betas are those of the configuration."""
        state = checkpoint.load_pair(network, self.networks)
        expect_state(checkpoint.state_path(network), state, self.optimizers)
        self.images, self.seconds, self.best = state['images'], state['seconds'], state['best']
        self.skipped, self.skipped_in_a_row = state['skipped'], state['skipped_in_a_row']
        self.loss.pl_mean = state['pl_mean'].to(self.device)
        self.stats.load_state_dict(state['stats'], self.device)
        self.augment.load_state_dict(state.get('augment'))  # not in older states
        for name, optimizer in self.optimizers.items():
            restore(optimizer, state['optimizers'][name])


def save(training: Training, folder: Path, log: snapshot.RunLog, evaluate: Callable | None) -> None:
    """Writes a snapshot, scores it if there is a way to, and removes those that are too old. All processes must call this.

    Raises UserError, in all processes, for weights that are not finite.
    """
    checkpoint.expect_finite(training.networks, training.images)
    allow_tf32(False)  # scores are those that calc_metrics.py gives
    scores, cost = evaluate(training.G_ema, training.images, log.say) if evaluate else ({}, None)
    allow_tf32(training.settings.run.allow_tf32)
    better = cost is not None and cost < training.best
    if better:
        training.best = cost
    state = training.state_dict()
    if not distributed.is_main():
        return
    path = checkpoint.network_path(folder, training.images)
    checkpoint.save_state(checkpoint.state_path(path), state)
    checkpoint.save_networks(path, training.networks, training.settings, training.images)
    if better:
        checkpoint.save_networks(folder / checkpoint.BEST, training.networks, training.settings, training.images)
    checkpoint.remove_old(folder, training.settings.run.keep_last)
    if scores:
        log.stats(training.images, scores)
        told = ', '.join(f'{name} {score:.4g}' for name, score in scores.items())
        log.say(f'kimg {training.images / 1000:g}: {told}{" (best so far)" if better else ""}')


@contextlib.contextmanager
def saved_on_error(training: Training, folder: Path, log: snapshot.RunLog, saved_at: Callable[[], int | None]) -> Iterator[None]:
    """An error in the block passes on after a snapshot was written, unless the last one is of this step.

    saved_at: returns the images of the last one. An error within a step may leave one network a step ahead; going on from there is then
    no longer bit for bit what it would have been.
    """
    try:
        yield
    except Exception:
        distributed.shutdown()  # nobody waits for processes that are somewhere else
        if distributed.is_main() and saved_at() != training.images:
            try:
                save(training, folder, log, None)
                log.say(f'An error ends the run, saved at {training.images / 1000:g} kimg: python train.py --resume={folder} goes on')
            except Exception as problem:
                log.say(f'An error ends the run at {training.images / 1000:g} kimg, which could not be saved: {problem}')
        raise


def train(settings: Config, dataset: ImageDataset, folder: Path, device: torch.device | str = 'cpu', resume: Path | None = None,
          init_from: str | None = None, minutes: float | None = None,
          evaluate: Callable[[torch.nn.Module, int, Callable], tuple[dict[str, float], float | None]] | None = None, note: str = '') -> int:
    """Trains until settings.run.kimg, and leaves a snapshot of the last step.

    folder:    the run folder, there already
    resume:    network file of the snapshot to go on from; None starts at the first step
    init_from: network file or URL whose weights a new run starts from, as far as they fit
    minutes:   stop after so long in this process; None: do not
    evaluate:  (G_ema, images seen, log.say) -> ({metric: score}, cost), called by all processes for every snapshot; the one of the
               lowest cost is kept as network-best.safetensors; cost None: not measured
    note:      first line of the log
    Returns 0, or the number of the signal that ended the run early. Raises UserError (data, gradients that stay out of range).
    """
    begin, main, run = time.monotonic(), distributed.is_main(), settings.run
    with contextlib.ExitStack() as stack:
        stop = stack.enter_context(StopSignal())
        keep_freed_memory()
        training = Training(settings, dataset, device)
        loaded = transfer.load(init_from, training.networks) if init_from else []
        if resume is not None:
            training.resume(resume)
        start, total = training.images, run.kimg * 1000

        def tick_ends() -> bool:
            return int(training.images / (run.tick * 1000)) > int((training.images - run.batch) / (run.tick * 1000))

        log = snapshot.RunLog(folder if main else None, start if tick_ends() else start - 1, quiet=not main)
        stack.enter_context(contextlib.closing(log))
        if main:
            checkpoint.set_aside_later(folder, resume)
            with atomic_path(folder / 'training_options.json') as temporary:
                temporary.write_text(to_json(settings), encoding='utf-8')
            pictures = snapshot.Pictures(folder, dataset, settings)
            counts = parameter_counts({name: count_parameters(getattr(training, name)) for name in ('G', 'D')})
            for text in (note, describe(settings, distributed.world_size()), counts, *loaded):
                log.say(text)
            if start == 0:
                pictures.save_reals()
                pictures.save_fakes('fakes_init.png', training.G_ema)
        distributed.barrier()

        data = stack.enter_context(contextlib.closing(batches(training.source, settings, start, pin=training.device.type == 'cuda')))
        ends = begin + 60 * minutes if minutes is not None else float('inf')
        clock, ending = TickClock(training, ends), 0
        training.after_pass = Pace(settings, training.device, log, lambda: training.images, total, ends).passed
        saved_at = drawn_at = start if resume else None
        with saved_on_error(training, folder, log, lambda: saved_at):
            while training.images < total:
                if ending := _agree(stop.number, time.monotonic() > ends, training.device):
                    break
                training.step(*clock.next(data))
                log.progress(training.images, int(total), start, ends)
                if not tick_ends():
                    continue
                clock.tick(log)
                tick = int(training.images / (run.tick * 1000))
                if tick % run.snap == 0:
                    save(training, folder, log, evaluate)
                    saved_at = training.images
                if tick % run.img_snap == 0 and main:
                    pictures.save_fakes(f'fakes{checkpoint.step_name(training.images)}.png', training.G_ema)
                    drawn_at = training.images
                clock.restart()

        if saved_at != training.images:
            save(training, folder, log, evaluate)  # before the statistics of an unfinished tick are told, so that it can be finished
        clock.tick(log)
        if drawn_at != training.images and ending <= 0 and main:
            pictures.save_fakes(f'fakes{checkpoint.step_name(training.images)}.png', training.G_ema)
        reason = 'Finished' if not ending else f'Stopped by {signal.Signals(ending).name if ending > 0 else f"--minutes={minutes:g}"}'
        log.say(f'{reason} at {training.images / 1000:g} kimg: {checkpoint.network_path(folder, training.images)}')
        if ending:
            log.say(f'Go on with: python train.py --resume={folder}')
    distributed.barrier()  # nobody leaves while another still needs the group
    return max(ending, 0)


def _agree(number: int, out_of_time: bool, device: torch.device) -> int:
    """Why the run is to stop, the same in all processes: 0 not at all, -1 out of time, else the number of a signal."""
    if distributed.world_size() > 1:
        number, out_of_time = distributed.max_(torch.tensor([number, int(out_of_time)], device=device)).tolist()
    return number or -int(out_of_time)
