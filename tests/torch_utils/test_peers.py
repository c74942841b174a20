"""What processes know of each other: stages, ends, disagreements; two real ones, of which one is killed."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest
import torch.distributed as dist

from tests.helpers import one_group
from torch_utils import peers
from torch_utils.peers import Watch, differences, is_alive


@pytest.fixture
def watches(monkeypatch):
    """A function that makes a process's watch; its thread sleeps, so that only the test's calls count."""
    monkeypatch.setattr(peers, 'BEAT', 3600)
    store, made = dist.HashStore(), []

    def make(rank, world_size=3):
        made.append(Watch(store, rank, world_size, end=lambda line: None))
        return made[-1]

    yield make
    for watch in made:
        watch.stop()


def tell(watch, rank, **values):
    """What process `rank` would have told."""
    told = {'stage': 'data', 'images': 12_500, 'host': socket.gethostname(), 'pid': os.getpid(), 'beat': 1, **values}
    watch.store.set(str(rank), json.dumps(told))
    watch.listen()


def gone():
    """The number of a process that has ended."""
    child = subprocess.Popen([sys.executable, '-c', ''])
    child.wait()
    return child.pid


def test_those_who_are_well_are_not_lost(watches):
    first, second = watches(0, 2), watches(1, 2)
    second.at('score', 3000)
    second.beat()
    first.listen()
    assert first.lost() == {} and first._told[1]['stage'] == 'score' and first._told[1]['images'] == 3000
    second.beat('')  # is through
    first.listen()
    assert first.lost() == {}


def test_an_end_is_told_with_process_stage_and_reason(watches):
    watch = watches(0)
    tell(watch, 1, pid=gone())
    tell(watch, 2, ended='process 1 ended' + peers.CONSEQUENCE)
    assert re.fullmatch(rf"process 1 \({socket.gethostname()}, pid \d+\) ended at the stage 'data' after 12.5 kimg, without a word",
                        watch.lost()[1])
    assert watch.why('x').startswith('process 1 (')
    assert watch.why('x').endswith('torchrun --max-restarts=N goes on from the newest snapshot')
    tell(watch, 1, ended='the disk is full', stage='snapshot', beat=2)
    assert "pid " in watch.why('x') and "at the stage 'snapshot' after 12.5 kimg: the disk is full" in watch.why('x')


def test_silence_counts_on_another_machine(watches, monkeypatch):
    watch = watches(0)
    tell(watch, 1, host='other', pid=gone())
    assert watch.lost() == {}
    clock = time.monotonic() + peers.SILENT + 5
    monkeypatch.setattr('torch_utils.peers.time.monotonic', lambda: clock)
    assert "process 1 (other, " in watch.lost()[1] and "has given no sign for 65 seconds, the last at the stage 'data'" in watch.lost()[1]


def test_a_wait_that_failed_for_no_known_reason(watches, monkeypatch):
    monkeypatch.setattr(peers, 'SETTLE', 0)
    assert watches(0).why('Connection\nreset') == 'the other processes cannot be reached (Connection reset)'


def test_the_thread_ends_a_process_that_waits_in_vain(monkeypatch):
    """As with NCCL, whose collectives do not fail: after GRACE without a move, and not before."""
    monkeypatch.setattr(peers, 'BEAT', 0.01)
    monkeypatch.setattr(peers, 'GRACE', 3600.0)
    lines = []
    watch = Watch(dist.HashStore(), 0, 2, end=lines.append)
    tell(watch, 1, ended='no memory')
    beats = watch._beats
    while watch._beats < beats + 3:  # the thread has looked twice
        time.sleep(0.01)
    assert not lines and watch._thread.is_alive()
    watch.moved -= 3601
    watch._thread.join()
    assert len(lines) == 1 and 'process 1' in lines[0] and 'no memory' in lines[0]
    watch.stop()


def test_who_leaves_waits_for_its_thread(monkeypatch):
    """One that is still inside the store while Python shuts down would abort the process."""
    monkeypatch.setattr(peers, 'BEAT', 0.01)
    listening = threading.Event()

    def listen(watch):
        listening.set()
        time.sleep(0.5)

    monkeypatch.setattr(Watch, 'listen', listen)
    watch = Watch(dist.HashStore(), 0, 2, end=lambda line: None)
    assert listening.wait(10)
    watch.stop()
    assert not watch._thread.is_alive()


def test_who_is_alive():
    child = subprocess.Popen([sys.executable, '-c', ''])
    assert is_alive(os.getpid()) and not is_alive(gone())
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # ended, but nobody has asked for its exit code yet
    assert not is_alive(child.pid)
    child.wait()


def test_differences():
    same = {'torch': '2.13', 'data digest': 'a' * 64}
    assert differences([same, dict(same), dict(same)]) is None
    assert differences([same, {**same, 'torch': '2.11'}, same, {**same, 'torch': '2.12'}]) == \
        'torch is 2.13 in process 0 and 2.11 in 1, 3'
    assert differences([same, {'torch': '2.13', 'more': 1}]) == \
        f'data digest is {"a" * 57}... in process 0 and None in 1; more is None in process 0 and 1 in 1'
    assert differences([{str(i): 0 for i in range(5)}, {str(i): 1 for i in range(5)}]).endswith('; and 2 more')


SCRIPT = """
import os, sys, time, torch
from dnnlib.util import UserError
from torch_utils import distributed
distributed.init()
rank = distributed.rank()
distributed.expect_agreement({'torch': torch.__version__})
try:
    distributed.expect_agreement({'torch': torch.__version__, 'data digest': 'abc' if rank == 0 else 'def'})
except UserError as err:
    print(err, flush=True)
assert distributed.gathered({'rank': rank}) == [{'rank': 0}, {'rank': 1}]
assert distributed.broadcast_(torch.tensor([rank]), 1).item() == 1
for step in range(10 ** 9):
    distributed.at('data', 1000 * step)
    if rank == 1 and step == 2:
        distributed._watch[0].beat()  # the next one would tell the stage, whenever it comes
        print('ready', flush=True)
        time.sleep(600)
    distributed.at('step')
    try:
        distributed.sum_(torch.ones(1))
    except distributed.PeerLost as err:
        print(err, flush=True)
        distributed.shutdown()
        sys.exit(7)
"""


def test_two_processes_one_of_which_is_killed():
    with one_group(2, SCRIPT) as (first, second):
        disagreement = second.stdout.readline()
        assert disagreement == ('the processes do not begin with the same: data digest is abc in process 0 and def in 1. '
                                'Start all with the same command, code, packages and data\n')
        assert second.stdout.readline() == 'ready\n'
        second.send_signal(signal.SIGKILL)
        out, err = first.communicate(timeout=300)
        assert first.returncode == 7, err
        assert f'process 1 ({socket.gethostname()}, pid {second.pid}) ended at the stage ' in out and 'kimg, without a word' in out
        assert "'data' after 2 kimg" in out
