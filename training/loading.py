"""Batches for training, loaded by other processes or this one, which may end without the run's end."""

import re
import signal
from collections.abc import Callable, Iterator

import torch

from torch_utils import distributed
from training.sampling import make_sampler


class Numbered(torch.utils.data.Sampler):
    """Pairs (index, position) of a sampler whose first position is `first` and whose positions are `step` apart."""

    def __init__(self, sampler: torch.utils.data.Sampler, first: int, step: int):
        self.sampler, self.first, self.step = sampler, first, step

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return ((index, self.first + i * self.step) for i, index in enumerate(self.sampler))


def batches(dataset: torch.utils.data.Dataset, settings, images: int, pin: bool,
            say: Callable[[str], None] = distributed.print0) -> Iterator[list[torch.Tensor]]:
    """This process's share of each batch, endlessly, from the position after `images`.

    dataset: ImageDataset, or windows.Windows, whose items are numbered; settings: config.Config; pin: for a GPU
    A process that loads data and ends is replaced once; when it happens again, or none can start, the main one loads, at the same position.
    `say` gets a line about it.
    """
    rank, world, workers = distributed.rank(), distributed.world_size(), settings.run.workers
    again = False
    while True:
        if workers and not _can_start():
            workers = 0
            say('No process that loads data can start (is /dev/shm full?): the main one loads, as with --workers=0')
        sampler = make_sampler(getattr(dataset, 'dataset', dataset), settings.run.seed, rank, world, images, settings.run.batch,
                               settings.class_group)
        if settings.windows.on:
            sampler = Numbered(sampler, images + rank, world)
        iterator = iter(torch.utils.data.DataLoader(dataset, batch_size=settings.run.batch // world, sampler=sampler, pin_memory=pin,
                                                    num_workers=workers, worker_init_fn=_ignore_signals))
        if getattr(signal.getsignal(signal.SIGCHLD), '__module__', '').startswith('torch.utils.data'):
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch's handler raises in whatever step is under way
        try:
            while True:
                if not all(worker.is_alive() for worker in getattr(iterator, '_workers', ())):
                    raise RuntimeError('DataLoader worker killed')
                yield next(iterator)
                images += settings.run.batch
        except Exception as err:
            problem = err.with_traceback(None)
        del iterator  # ends the processes; frames of a traceback that hold it would keep them, deaf as they are, past the end of this one
        if not workers or not (reason := _lost_worker(problem)):
            raise problem
        workers = 0 if again else workers
        then = 'the main one loads, as with --workers=0' if again else 'another takes its place'
        say(f'A process that loads data ended ({reason}): {then}')
        again = True


def _can_start() -> bool:
    """Whether there is room for what processes that load data need to talk to this one."""
    try:
        torch.multiprocessing.get_context().Queue().close()
    except OSError:
        return False
    return True


def _lost_worker(problem: Exception) -> str:
    """In a few words how a process that loads data was lost, '' where it only passes on an error in the data."""
    text = ' '.join(str(problem).split())
    if isinstance(problem, RuntimeError) and ('shared memory' in text or 'unable to mmap' in text or 'unable to resize' in text):
        return 'no room in /dev/shm'
    if isinstance(problem, RuntimeError) and text.startswith('DataLoader worker'):
        return re.sub(r'^DataLoader worker (\(pids?(\(s\))? [\d, ]+\) )?(is )?', '', text.partition('. ')[0])[:100]
    if isinstance(problem, (ConnectionError, EOFError)) and not text.startswith('Caught '):  # as errors in the data do
        return 'killed'
    return ''


def _ignore_signals(worker: int) -> None:
    """Leaves it to the main process to answer Ctrl-C and SIGTERM, which may go to all processes; it still wants a batch or none."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
