"""When a run is saved and how it goes back: snapshots and their scores, what a full disk does to them, weights that are not finite."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from dnnlib.util import UserError
from torch_utils import distributed
from torch_utils.misc import allow_tf32
from training import checkpoint, health, run_folder


class Saver:
    """Writes and scores the snapshots of a run.

    training: training_loop.Training;  folder: of the run;  log: snapshot.RunLog;  evaluate: as of `training_loop.train`
    at:       images of the last snapshot, None where there is none
    `missed` says that the last one could not be written and is to be tried again. All processes must call its methods.
    """

    def __init__(self, training, folder: Path, log, evaluate: Callable | None, at: int | None = None):
        self.training, self.folder, self.log, self.evaluate, self.at = training, folder, log, evaluate, at
        self.missed, self._back_to = False, None

    def save(self) -> bool:
        """Writes a snapshot, removes those that are too old, and scores it if there is a way to. Returns whether it could be written.

        Raises UserError, in all processes, for numbers that are not finite: they take the place of no good ones.
        """
        training, log = self.training, self.log
        distributed.at('snapshot')
        if (reason := health.problem(training)) is not None:
            raise UserError(f'{reason}, so it is not saved: go on from the last snapshot with a lower --lr')
        state = training.state_dict()
        self.missed = not self._written(state)  # before it is scored, which may take longer than there is time
        self.at = self.at if self.missed else training.images
        distributed.at('score')
        allow_tf32(False)  # scores are those that calc_metrics.py gives
        scores, cost = self.evaluate(training.G_ema, training.images, log.say) if self.evaluate else ({}, None)
        allow_tf32(training.settings.run.allow_tf32)
        better = cost is not None and cost < training.best
        if better:
            training.best = state['best'] = cost
            if distributed.is_main():
                with log.going_on(checkpoint.BEST):
                    self._write_networks(self.folder / checkpoint.BEST)
                    if not self.missed:
                        checkpoint.save_state(checkpoint.state_path(self._path), state)
        if scores:
            log.stats(training.images, {**scores, **training.health.look(health.recall(scores), log.say)})
            told = ', '.join(f'{name} {score:.4g}' for name, score in scores.items())
            log.say(f'kimg {training.images / 1000:g}: {told}{" (best so far)" if better else ""}')
        return not self.missed

    @property
    def _path(self) -> Path:
        return checkpoint.network_path(self.folder, self.training.images)

    def _write_networks(self, path: Path) -> None:
        checkpoint.save_networks(path, self.training.networks, self.training.settings, self.training.images)

    def _written(self, state: dict) -> bool:
        """Whether the snapshot could be written by the main process."""
        done = not distributed.is_main()
        if distributed.is_main():
            with self.log.going_on('this snapshot, and tries again at the next tick'):
                checkpoint.save_state(checkpoint.state_path(self._path), state)
                self._write_networks(self._path)
                run_folder.remove_old(self.folder, self.training.settings.run.keep_last)
                done = True
        return distributed.max_(torch.tensor(float(not done), device=self.training.device)).item() == 0

    @contextlib.contextmanager
    def on_error(self) -> Iterator[None]:
        """An error in the block passes on after a snapshot was written, unless the last one is of this step.

        An error within a step may leave one network a step ahead; going on from there is then no longer bit for bit what it would have
        been.
        """
        try:
            yield
        except distributed.PeerLost:
            raise  # in the middle of a step: the last snapshot is what can be gone on from bit for bit
        except Exception:
            distributed.shutdown()  # nobody waits for processes that are somewhere else
            images, self.evaluate = self.training.images, None
            if distributed.is_main() and self.at != images:
                try:
                    if self.save():
                        self.log.say(f'An error ends the run, saved at {images / 1000:g} kimg: '
                                     f'python train.py --resume={self.folder} goes on')
                except Exception as problem:
                    self.log.say(f'An error ends the run at {images / 1000:g} kimg, which could not be saved: {problem}')
            raise

    def roll_back(self, reason: str) -> None:
        """Goes back to the last good snapshot: what a passing fault of the machine has spoiled comes right the second time, bit for bit.

        reason: what is wrong. Raises UserError, a report, where there is no way back or the same has happened from there on before.
        """
        report = f'{reason}; stats.jsonl has the losses before. Lower --lr or --gamma, or take --precision=fp32'
        network = run_folder.find_resumable(self.folder, self.log.say)
        if network is None:
            raise UserError(f'{report}, in a new run: there is no snapshot to go back to')
        if network == self._back_to:
            raise UserError(f'{report}: it is the second time from {network.name} on, so no passing fault of the machine. '
                            f'python train.py --resume={self.folder} --lr=... goes on from there')
        self.training.resume(network)
        if distributed.is_main():
            run_folder.set_aside_later(self.folder, network)
        self._back_to, self.at, self.missed = network, self.training.images, False
        self.log.say(f'{reason}: going back to {network.name}, once')
