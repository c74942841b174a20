"""Many images decoded by several processes, results in order. No torch."""

import multiprocessing
import signal
from collections import deque
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

from dnnlib.util import UserError
from training.data.files import BadImage, decode

BATCH = 32  # images a worker takes at a time, or fewer if they are large
BATCH_BYTES = 4 << 20


def _ignore_interrupt():
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the main process ends the workers


def ordered_map(function, batches, workers, count, *args):
    """Results of function(batch, *args) in the order of the batches, a few of which are under way at any moment.

    workers: processes at most; none is started (this one works) for 1, or for so few images that starting would take longer
    count: images in all batches together
    Raises UserError when a process is killed.
    """
    workers = min(workers, 1 + count // (4 * BATCH))
    if workers == 1:
        yield from (function(batch, *args) for batch in batches)
        return
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context('spawn'), _ignore_interrupt)
    waiting = deque()
    try:
        for batch in batches:
            waiting.append(pool.submit(function, batch, *args))
            if len(waiting) > 2 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool as err:
        raise UserError(f'a worker process was ended from outside, most likely for lack of memory: lower --workers={workers}') from err
    finally:
        pool.shutdown(cancel_futures=True)


def in_batches(items, read):
    """Lists of what `read` gives for each item, or of the BadImage it raises; a batch ends at BATCH items or BATCH_BYTES."""
    batch, size = [], 0
    for item in items:
        try:
            content = read(item)
        except BadImage as err:
            content = err
        batch.append(content)
        size += len(content) if isinstance(content, bytes) else getattr(content, 'nbytes', 0)
        if len(batch) == BATCH or size >= BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def inspect_many(contents):
    """((width, height, channels) or None, what is wrong or '') of the content of each image file, decoded whole."""
    results = []
    for content in contents:
        try:
            if isinstance(content, BadImage):
                raise content
            channels, height, width = decode(content).shape
            results.append(((width, height, channels), ''))
        except BadImage as err:
            results.append((None, str(err)))
    return results
