"""Runs work over numbered images in batches, in one process or several, and feeds what comes out to statistics in order.

A batch is drawn and looked at whole by one process, and the main process adds the batches in their order: so the sums are the same bit for
bit however many processes there are, as long as the batch is.
"""

import time
import zipfile
from collections import Counter

import torch
from tqdm import tqdm

from dnnlib.util import format_time
from torch_utils import distributed

SAVE_EVERY = 60  # seconds between two states on the disk
TELL_EVERY = 10  # seconds between two lines where there is no terminal


class OtherProcessFailed(Exception):
    """Raised in the processes that were well when one of them failed."""


class Clock:
    """Seconds spent on each activity: drawing, reading, features, mathematics."""

    def __init__(self):
        self.seconds = Counter()
        self._since, self._activity = 0.0, None

    def to(self, activity, device=None):
        """From now on time counts for this activity; None stops the clock."""
        if device is not None and torch.device(device).type == 'cuda':
            torch.cuda.synchronize(device)
        now = time.monotonic()
        if self._activity is not None:
            self.seconds[self._activity] += now - self._since
        self._since, self._activity = now, activity


def collect(work, stats, batch, device='cpu', title='', state=None, say=None):
    """Feeds `stats` with work(numbers) of all its rows. All processes must call this; only the main one's `stats` is filled.

    work:   a range of numbers -> (features [N, D], probabilities [N, K] or None), tensors
    stats:  FeatureStats, empty
    batch:  numbers at once
    title:  of the progress bar
    state:  file to keep the sums in on the way, and to go on from; None: none
    say:    called with a line now and then where there is no terminal; None: silent
    Returns how many rows were added here. Raises what work raises, in the process where it happens, and OtherProcessFailed in the others.
    """
    rank, world = distributed.rank(), distributed.world_size()
    main = rank == 0
    if main and state is not None and state.is_file():
        try:
            stats.load(state)
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            state.unlink(missing_ok=True)  # damaged, or of an older version: begin again
    start = stats.rows = int(_agreed(stats.rows if main else 0, device))
    firsts = list(range(start, stats.total, batch))
    if start and main and say:
        say(f'{title}: going on at {start} of {stats.total}' if start < stats.total else f'{title}: {start}, from the cache')
    began = saved = told = time.monotonic()
    with tqdm(total=stats.total, initial=start, desc=title, unit='img', disable=None if main and say else True, leave=False) as bar:
        for i in range(0, len(firsts), world):
            turn = firsts[i:i + world]
            first = turn[min(rank, len(turn) - 1)]  # processes without a batch of their own do another's, for the shapes
            made = _shared(work, range(first, min(first + batch, stats.total)), rank, len(turn), batch, device)
            if not made[0].isfinite().all():  # all processes see it
                raise ValueError(f'the features of images {turn[0]} and after are not all finite: network or images are broken')
            for place, at in enumerate(turn):
                count = min(batch, stats.total - at)
                if main:
                    stats.add(*(None if x is None else x[place, :count].cpu().numpy() for x in made))
                done = at + count
                bar.update(count)
                if main and say and bar.disable and time.monotonic() - told > TELL_EVERY and done < stats.total:
                    told = time.monotonic()
                    left = (time.monotonic() - began) / (done - start) * (stats.total - done)
                    say(f'{title}: {done} of {stats.total}, {format_time(left)} left')
            if main and state is not None and time.monotonic() - saved > SAVE_EVERY:
                keep(stats, state, say)
                saved = time.monotonic()
    return stats.total - start


def keep(stats, state, say=None):
    """Saves statistics for later; a disk that refuses costs a line, for nothing but time depends on it."""
    try:
        stats.save(state)
    except OSError as err:
        if say:
            say(f'Warning: sums are not kept: {err}')


def together(work, device='cpu'):
    """work() in every process. Raises what it raises where it fails, and OtherProcessFailed in the others: they would wait for ever."""
    problem, made = None, None
    try:
        made = work()
    except Exception as err:  # told to the others before it is raised
        problem = err
    if distributed.world_size() > 1 and distributed.max_(torch.tensor(int(problem is not None), device=device)).item():
        raise problem or OtherProcessFailed('another process failed')
    if problem:
        raise problem
    return made


def _agreed(number, device):
    """The main process's number, in all processes."""
    return distributed.sum_(torch.tensor(float(number if distributed.is_main() else 0), dtype=torch.float64, device=device)).item()


def _shared(work, numbers, rank, busy, batch, device):
    """What all processes made in this turn: ([busy, batch, D], [busy, batch, K] or None), rows beyond a batch's end are 0."""
    if distributed.world_size() == 1:
        return [x if x is None else x[None] for x in work(numbers)]
    made, shared = together(lambda: work(numbers), device), []
    for x in made:
        if x is not None:
            everyone = torch.zeros(busy, batch, x.shape[1], dtype=x.dtype, device=device)
            if rank < busy:
                everyone[rank, :len(x)] = x
            x = distributed.sum_(everyone)  # the others hold zeros there
        shared.append(x)
    return shared


def from_main(compute, names, device='cpu'):
    """{name: float} that the main process computes, in all processes.

    compute: () -> {name: float}, called in the main process alone;  names: the names it returns
    Raises what compute raises in the main process, OtherProcessFailed in the others.
    """
    problem, values = None, torch.zeros(len(names) + 1, dtype=torch.float64, device=device)
    if distributed.is_main():
        try:
            made = compute()
            values[1:] = torch.tensor([made[name] for name in names], dtype=torch.float64)
        except Exception as err:  # as above
            problem, values[0] = err, 1
    failed, *numbers = distributed.sum_(values).tolist()
    if failed:
        raise problem or OtherProcessFailed('another process failed')
    return dict(zip(names, numbers, strict=True))


def to_everybody(rows, device='cpu'):
    """The main process's float32 rows [N, D] as a tensor on the device, in all processes. rows: an array; None in the others"""
    shape = [0, 0] if rows is None else rows.shape
    shape = distributed.broadcast_(torch.tensor(shape, device=device)).tolist()
    if distributed.is_main():
        made = torch.as_tensor(rows, dtype=torch.float32).to(device)
    else:
        made = torch.empty(shape, device=device, dtype=torch.float32)
    return distributed.broadcast_(made)


def shared_rows(total, work, device='cpu'):
    """work(numbers) of all rows, of which each process does its part. All processes must call this.

    work: a range of numbers -> float64 [len(numbers)] on the device
    Returns float64 [total], the same in all processes. Raises as `together` does.
    """
    rank, world = distributed.rank(), distributed.world_size()
    mine = range(total * rank // world, total * (rank + 1) // world)
    whole = torch.zeros(total, dtype=torch.float64, device=device)
    whole[mine.start:mine.stop] = together(lambda: work(mine), device)
    return distributed.sum_(whole)
