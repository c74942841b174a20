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
from dataclasses import fields, replace
from pathlib import Path

import torch

from dnnlib.util import UserError, atomic_path
from torch_utils import distributed
from torch_utils.misc import count_parameters, keep_freed_memory
from torch_utils.pixels import from_uint8
from torch_utils.training_stats import Averages
from training import checkpoint, clusters, graphs, growing, health, joining, plugins, pretrained, run_folder, snapshot, transfer
from training.ada import Augmentation
from training.clock import Pace, StopSignal, TickClock
from training.config import Config
from training.config_json import to_json
from training.dataset import ImageDataset
from training.ema import ema_beta, update_ema
from training.held_out import HeldOut
from training.instances import Looks
from training.latents import Latents, draw_latents
from training.loading import batches
from training.loss import GanLoss, phases
from training.optimizer import make_optimizer, restore, step_if_finite, step_where_finite
from training.saving import Saver
from training.state import expect_state
from training.summary import describe, parameter_counts
from training.windows import Windows

MAX_SKIPPED = 100  # steps in a row without finite gradients that end a run


def has_looks(dataset: ImageDataset) -> bool:
    """Whether a run on a data set learns clusters that are known by their looks."""
    return bool(dataset.label_dim and dataset.labels.looks)


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
        if has_looks(dataset):
            for network in (self.G, self.D):
                clusters.begin(network, dataset.labels, settings.run.seed)
        if settings.grow.sizes:
            growing.begin_at_zero(self.G.synthesis, settings.grow.sizes, settings.data.resolution)
        self.G_ema = copy.deepcopy(self.G).eval().requires_grad_(False)
        self.optimizers = {name: make_optimizer(network, settings.optimizer(name)) for name, network in (('G', self.G), ('D', self.D))}
        self.stats = Averages()
        self.augment = Augmentation(settings.augment, self.device)
        features = settings.discriminator.features
        self.features = None if features == 'none' else pretrained.calibrated(features, dataset, self.device, **settings.features_kwargs())
        self.loss = GanLoss(self.G, self.D, settings.loss, self.stats, self.augment, self.features)
        if settings.windows.on:
            self.loss.windows = Windows(settings, dataset, self.G.synthesis)
        if settings.look_dim:
            self.loss.looks = Looks(self.features, settings.look_dim, self.device)
        self.skipped = {'G': 0, 'D': 0}          # steps without finite gradients, in all
        self.skipped_in_a_row = {'G': 0, 'D': 0}
        self.held_out = HeldOut(dataset, settings.images_at_once(distributed.world_size()), self.device, settings.class_group)
        self.health = health.Health(self.G_ema)
        self.after_pass = lambda phase, done, passes: None
        self.recorder = graphs.Recorder(self.device) if graphs.recordable(settings, self.device) else None

    @property
    def networks(self) -> dict[str, torch.nn.Module]:
        """What a network file holds."""
        return {'G': self.G, 'D': self.D, 'G_ema': self.G_ema}

    @property
    def source(self) -> ImageDataset | Windows:
        """What `loading.batches` takes for the steps."""
        return self.loss.windows or self.dataset

    @property
    def looks(self) -> Looks | None:
        """How real pictures look that fakes stand for, measured where it was not yet; None in a run whose fakes stand for none."""
        if self.loss.looks is not None and not self.loss.looks.measured:
            self.loss.looks.measure(self.dataset, self.settings.run.seed)
        return self.loss.looks

    @torch.no_grad()
    def begin_looks(self) -> str:
        """What z says of how pictures look and what D's heads make of it begin anew in a new run: other weights know other looks. Returns
        a line for the log."""
        groups = self.dataset.labels.groups if self.dataset.label_dim else []
        begun = [self.looks.begin(network.mapping, groups) for network in (self.G, self.G_ema)]
        for head in self.D.heads:
            head.embed_look.weight.zero_()
        return (f'instances: the first {self.looks.numbers} numbers of z say how a picture looks, '
                + ('which begins as the columns of the classes tell looks apart' if all(begun) else 'which G has yet to learn'))

    def step(self, reals: torch.Tensor, real_c: torch.Tensor, real_windows: torch.Tensor | None = None) -> None:
        """One step on this process's share of a batch: uint8 [N, C, H, W], its labels [N, c_dim], and which parts [N, 3] of pictures."""
        run, world = self.settings.run, distributed.world_size()
        distributed.seed(run.seed, distributed.rank(), self.images)
        passes = len(reals) // self.settings.images_at_once(world)
        self.loss.stage = self.settings.grow.stage(self.settings.data.resolution, self.images)
        reals = growing.fit(from_uint8(reals.to(self.device, non_blocking=True)), self.loss.stage, self.settings.data.resolution)
        real_c = real_c.to(self.device, non_blocking=True)
        if self.recorder:
            self.recorder.enter(self.loss.stage)
        skipped, looks = {}, None
        if self.loss.looks is not None and reals.shape[-1] == self.G.img_resolution:
            looks = self.looks.of_reals(reals, real_c, real_windows, len(reals) // passes)
        for phase, interval in phases(self.settings.loss):
            if (self.images // run.batch) % interval == 0:
                latents = draw_latents(self.settings, self.dataset, self.images, phase, self.loss.windows)
                latents = latents if looks is None else self.looks.stand_for(latents, looks, real_c, real_windows)
                missed = None
                if self.recorder and self.recorder.is_due(phase):
                    missed = self._recorded_phase(phase, reals, real_c, latents, real_windows)
                if missed is None:
                    missed = not self._phase(phase, reals, real_c, latents.to(self.device), passes, real_windows)
                skipped[phase] = missed
        for phase, missed in skipped.items():
            self._count_skipped(phase[0], bool(missed))
        if world > 1:
            distributed.sum_(self.G.mapping.w_avg).div_(world)
        update_ema(self.G_ema, self.G, ema_beta(run.batch, self.settings.ema.kimg, self.settings.ema.rampup, self.images))
        self.images += run.batch
        self.augment.update(self.images, run.batch)

    def _begin_phase(self, name: str) -> None:
        self.G.requires_grad_(name == 'G')
        self.D.requires_grad_(name == 'D')
        self.optimizers[name].zero_grad(set_to_none=True)

    def _recorded_phase(self, phase: str, reals: torch.Tensor, real_c: torch.Tensor, latents: Latents,
                        real_windows: torch.Tensor | None) -> torch.Tensor | None:
        """`_phase` in one pass, recorded and replayed. Returns a number on the device, 1 where the gradients were not finite; None where it
        could not be recorded, and nothing is done."""
        drawn = {field.name: value for field in fields(latents) if (value := getattr(latents, field.name)) is not None}
        floats, wholes = (None, None) if latents.windows is None else self.G.synthesis.places(latents.windows)
        given = {'reals': reals, 'real_c': real_c, 'real_windows': real_windows, 'floats': floats, 'wholes': wholes, **drawn}

        def function(inputs: graphs.Inputs) -> torch.Tensor:
            self._begin_phase(phase[0])
            places = (inputs['floats'], inputs['wholes']) if 'floats' in inputs else None
            own = replace(latents, **{name: inputs[name] for name in drawn}, places=places)
            self.loss.accumulate(phase, inputs['reals'], inputs['real_c'], own, 1.0, inputs.get('real_windows'))
            return step_where_finite(self.optimizers[phase[0]])

        result = self.recorder.run(phase, {name: value for name, value in given.items() if value is not None}, function)
        if result is not None:
            self.after_pass(phase, 1, 1)
        return result

    def _count_skipped(self, name: str, missed: bool) -> None:
        """Raises UserError where the gradients of too many steps in a row were not finite."""
        self.skipped[name] += missed
        self.skipped_in_a_row[name] = self.skipped_in_a_row[name] + 1 if missed else 0
        if self.skipped_in_a_row[name] >= MAX_SKIPPED:
            raise UserError(f'the gradients of {name} were not finite in {MAX_SKIPPED} steps in a row, at {self.images / 1000:g} kimg: '
                            'lower --lr or --gamma, or take --precision=fp32')

    def _phase(self, phase: str, reals: torch.Tensor, real_c: torch.Tensor, latents: Latents, passes: int,
               real_windows: torch.Tensor | None = None) -> bool:
        """Accumulates the gradients of a phase in so many passes and steps. Returns whether they were finite."""
        name = phase[0]
        self._begin_phase(name)
        w_avg, moved = self.G.mapping.w_avg, []
        before = w_avg.clone()
        for i in range(passes):
            w_avg.copy_(before)
            self.loss.accumulate(phase, reals[i::passes], real_c[i::passes], latents.strided_slice(i, passes), 1 / passes,
                                 None if real_windows is None else real_windows[i::passes])
            moved.append(w_avg.clone())
            self.after_pass(phase, i + 1, passes)
        w_avg.copy_(sum(moved[1:], moved[0]).div_(passes))  # as one pass would have moved it
        return step_if_finite(self.optimizers[name])

    def state_dict(self) -> dict:
        """What a snapshot holds beside the weights. All processes must call this."""
        return {'images': self.images, 'seconds': self.seconds, 'best': self.best, 'pl_mean': self.loss.pl_mean.cpu(),
                'skipped': dict(self.skipped), 'skipped_in_a_row': dict(self.skipped_in_a_row), 'stats': self.stats.state_dict(),
                'augment': self.augment.state_dict(), 'looks': self.loss.looks and self.loss.looks.state_dict(),
                'optimizers': {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()}}

    def resume(self, network: Path) -> None:
        """Goes on from a snapshot; learning rates and betas are those of the configuration."""
        state = checkpoint.load_pair(network, self.networks)
        expect_state(checkpoint.state_path(network), state, self.optimizers, self.settings.data.label_dim, self.settings.look_dim)
        self.images, self.seconds, self.best = state['images'], state['seconds'], state['best']
        self.skipped, self.skipped_in_a_row = state['skipped'], state['skipped_in_a_row']
        self.loss.pl_mean = state['pl_mean'].to(self.device)
        self.stats.load_state_dict(state['stats'], self.device)
        self.augment.load_state_dict(state.get('augment'))  # not in older states
        if self.loss.looks is not None:
            self.loss.looks.load_state_dict(state.get('looks'))
        for name, optimizer in self.optimizers.items():
            restore(optimizer, state['optimizers'][name])
        if self.recorder:
            self.recorder.forget()


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
        if resume is None:
            settings = settings.with_groups_of(distributed.world_size())
        training = Training(settings, dataset, device)
        classes = transfer.Classes.of(settings.data, has_looks(dataset))
        loaded = transfer.load(init_from, training.networks, classes) if init_from else []
        if resume is not None:
            training.resume(resume)
        elif training.loss.looks is not None:
            loaded.append(training.begin_looks())
        joining.expect_same_weights(training.networks)
        start, total = training.images, run.kimg * 1000

        def tick_ends() -> bool:
            return int(training.images / (run.tick * 1000)) > int((training.images - run.batch) / (run.tick * 1000))

        def logged() -> int:  # up to where the numbers of ticks stay
            return training.images if tick_ends() else training.images - 1

        def load() -> Iterator[list[torch.Tensor]]:
            data = batches(training.source, settings, training.images, pin=training.device.type == 'cuda', say=log.say)
            return stack.enter_context(contextlib.closing(data))

        def draw() -> int:
            with log.going_on('this picture'):
                pictures.save_fakes(f'fakes{checkpoint.step_name(training.images)}.png', training.G_ema)
            return training.images

        log = snapshot.RunLog(folder if main else None, logged(), quiet=not main)
        stack.enter_context(contextlib.closing(log))
        if main:
            run_folder.set_aside_later(folder, resume)
            with atomic_path(folder / run_folder.OPTIONS) as temporary:
                temporary.write_text(to_json(settings), encoding='utf-8')
            pictures = snapshot.Pictures(folder, dataset, settings)
            counts = parameter_counts({name: count_parameters(getattr(training, name)) for name in ('G', 'D')})
            for text in (note, describe(settings, distributed.world_size()), counts, *loaded):
                log.say(text)
            if start == 0:
                pictures.save_reals()
                pictures.save_fakes('fakes_init.png', training.G_ema)
        distributed.barrier()

        data, saver = load(), Saver(training, folder, log, evaluate, at=start if resume else None)
        ends = begin + 60 * minutes if minutes is not None else float('inf')
        clock, ending, drawn_at = TickClock(training, ends), 0, start if resume else None
        training.after_pass = Pace(settings, training.device, log, lambda: training.images, total, ends,
                                   prepare=graphs.WARM_UP + 1 if training.recorder else 0).passed
        with saver.on_error():
            while training.images < total:
                if ending := _agree(stop.number, time.monotonic() > ends, training.device):
                    break
                batch = clock.next(data)
                with stop.held() if training.images == start else contextlib.nullcontext():  # kernels are compiled
                    training.step(*batch)
                log.progress(training.images, int(total), start, ends)
                if (tick_ends() or any(training.skipped_in_a_row.values())) and (reason := health.problem(training)):
                    saver.roll_back(reason)
                    log.rewind(logged())
                    data.close()
                    data, drawn_at = load(), training.images
                    clock.restart()
                    continue
                if not tick_ends():
                    continue
                clock.tick(log)
                tick = int(training.images / (run.tick * 1000))
                if tick % run.snap == 0 or saver.missed:
                    saver.save()
                if tick % run.img_snap == 0 and main:
                    drawn_at = draw()
                clock.restart()

        if saver.at != training.images:
            saver.save()  # before the statistics of an unfinished tick are logged, so that it can be finished
        clock.tick(log)
        if drawn_at != training.images and ending <= 0 and main:
            draw()
        if saver.missed:
            last = 'it has none' if saver.at is None else f'the last one is of {saver.at / 1000:g} kimg'
            raise UserError(f'{folder}: no snapshot of the end at {training.images / 1000:g} kimg could be written, {last}')
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
