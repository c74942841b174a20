"""What the processes of a run know of each other: who is at which stage, who has ended, whether all began with the same.

Each process writes its stage into the store that the group was made with, every BEAT seconds, and reads those of the others. One that ends
without a word is known by its process number on the same machine, by SILENT seconds of silence on another. A process that waits for it in
vain ends too: gloo's collectives fail at once, NCCL's do not, so a thread ends the process when nothing has moved for GRACE seconds.
"""

import contextlib
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Callable

import psutil
import torch.distributed as dist

from dnnlib.util import UserError

BEAT = 1.0     # seconds
SILENT = 60.0  # seconds without a sign of a process of another machine; a busy one may be late
GRACE = 10.0   # seconds in which the main thread may end by itself
SETTLE = 5.0   # seconds to find out who it was, after a collective has failed, and for the thread to end
CONSEQUENCE = '. The others cannot go on without it'
CODE = 3       # exit code of a process that another one's end has ended


class PeerLost(UserError):
    """Another process of the group has ended, so nothing can be finished together. Its text says which, and at what stage."""


class Watch:
    """Tells the other processes where this one is, and knows where they are.

    store: torch.distributed store that all processes share, with keys of this group alone
    end:   called with a line when the main thread does not come out of a wait for a process that has ended
    """

    def __init__(self, store, rank: int, world_size: int, end: Callable[[str], None] | None = None):
        self.store, self.rank, self.world_size, self.end = store, rank, world_size, end or _end
        self.stage, self.images, self.moved = 'start', 0, time.monotonic()
        self._told, self._heard = {}, {}  # of each process: what it told last, and when that was new, by this process's clock
        self._lock, self._done, self._beats = threading.Lock(), threading.Event(), 0
        self.beat()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def at(self, stage: str, images: int | None = None) -> None:
        """Says where this process is; costs nothing."""
        self.stage, self.images, self.moved = stage, self.images if images is None else images, time.monotonic()

    def beat(self, ended: str | None = None) -> None:
        """Tells the others. ended: '' for a process that is through, else why it ends."""
        with self._lock:
            self._beats += 1
            told = {'stage': self.stage, 'images': self.images, 'host': socket.gethostname(), 'pid': os.getpid(), 'beat': self._beats}
            self.store.set(str(self.rank), json.dumps(told if ended is None else {**told, 'ended': ended[:500]}))

    def listen(self) -> None:
        """Reads what the others tell."""
        with self._lock:
            for rank in range(self.world_size):
                if rank != self.rank and self.store.check([str(rank)]):
                    told = json.loads(self.store.get(str(rank)))
                    if told != self._told.get(rank):
                        self._told[rank], self._heard[rank] = told, time.monotonic()

    def lost(self) -> dict[int, str]:
        """{process: what is known of its end} of those that have ended before they were through."""
        found, now = {}, time.monotonic()
        for rank, told in self._told.items():
            where = f'process {rank} ({told["host"]}, pid {told["pid"]})'
            stage = f'at the stage {told["stage"]!r} after {told["images"] / 1000:g} kimg'
            if told.get('ended'):
                found[rank] = f'{where} ended {stage}: {told["ended"]}'
            elif 'ended' not in told and told['host'] == socket.gethostname() and not is_alive(told['pid']):
                found[rank] = f'{where} ended {stage}, without a word'
            elif 'ended' not in told and now - self._heard[rank] > SILENT:
                found[rank] = f'{where} has given no sign for {now - self._heard[rank]:.0f} seconds, the last {stage}'
        return found

    def why(self, error: str) -> str:
        """A line about a wait that failed: who has ended, as far as that is found out within SETTLE seconds."""
        end, found = time.monotonic() + SETTLE, {}
        while True:
            try:
                self.listen()
            except Exception:  # the store went with the process that kept it, the first
                if 0 in self._told:
                    self._told[0].setdefault('ended', 'the store of the group went with it')
            found = self.lost()
            if found or time.monotonic() >= end:
                break
            time.sleep(0.25)
        return self._line(found) if found else f'the other processes cannot be reached ({" ".join(error.split())[:200]})'

    def _line(self, found: dict[int, str]) -> str:
        first = min(found.values(), key=lambda text: CONSEQUENCE in text)  # not one that ended for another's sake
        return f'{first}{CONSEQUENCE}; torchrun --max-restarts=N goes on from the newest snapshot'

    def stop(self, ended: str = '') -> None:
        """Leaves. ended: why, '' for a process that is through."""
        self._done.set()
        with contextlib.suppress(Exception):  # the store may have gone already
            self.beat(ended)
        self._thread.join(SETTLE)  # one inside the store while Python shuts down aborts the process

    def _run(self) -> None:
        silent_since = None
        while not self._done.wait(BEAT):
            try:
                self.beat()
                self.listen()
                silent_since = None
            except Exception:  # without the store nobody is heard
                silent_since = silent_since or time.monotonic()
                if self.rank != 0 and 0 in self._told and time.monotonic() - silent_since > GRACE:
                    self._told[0].setdefault('ended', 'the store of the group went with it')
            found = self.lost()
            if found and time.monotonic() - self.moved > GRACE and not self._done.is_set():
                self.end(self._line(found))
                return


def is_alive(pid: int) -> bool:
    """Whether a process of this machine runs."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _end(line: str) -> None:
    """Ends the process without waiting for anything."""
    sys.stderr.write(f'Error: {line}\n')
    sys.stderr.flush()
    os._exit(CODE)


def shared_store(session: str):
    """The store of the group, by a connection of its own, so that the thread and the group do not wait for each other."""
    store = dist.TCPStore(os.environ['MASTER_ADDR'], int(os.environ['MASTER_PORT']), is_master=False)
    return dist.PrefixStore(f'watch/{session}', store)


def differences(facts: list[dict[str, object]], most: int = 3) -> str | None:
    """In words, on which facts processes do not agree with the first one; None where they do.

    facts: {name: value} of each process
    """
    found = []
    for name in dict.fromkeys(name for each in facts for name in each):
        values = [each.get(name) for each in facts]
        others = [rank for rank, value in enumerate(values) if value != values[0]]
        if others:
            ranks = ', '.join(map(str, others[:8])) + (', ...' if len(others) > 8 else '')
            found.append(f'{name} is {_short(values[0])} in process 0 and {_short(values[others[0]])} in {ranks}')
    if not found:
        return None
    return '; '.join(found[:most]) + (f'; and {len(found) - most} more' if len(found) > most else '')


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 60 else f'{text[:57]}...'
