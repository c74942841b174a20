"""What several test files need: how far two tensors are apart, modules of script/, and commands run as a user runs them."""

import importlib.util
import os
import resource
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def relative_error(actual, expected) -> float:
    """||actual - expected|| / ||expected|| over all elements, in float64. Both are tensors or arrays of one and the same shape."""
    import torch

    actual, expected = (torch.as_tensor(x).detach().to('cpu', torch.float64) for x in (actual, expected))
    assert actual.shape == expected.shape, f'shapes differ: {tuple(actual.shape)} and {tuple(expected.shape)}'
    return ((actual - expected).norm() / expected.norm()).item()


def script(name: str):
    """A module of script/, anew."""
    spec = importlib.util.spec_from_file_location(name, ROOT / 'script' / f'{name}.py')
    sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


@contextmanager
def file_size_limit(n):
    """Stands in for a full disk: no file may grow past n bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)


def needs_compiled_code(**how) -> None:
    """Skips the test, or the whole file with allow_module_level=True, where the CPU's code cannot be compiled."""
    import pytest

    from inr.ops import native

    try:
        native.library()
    except native.Unavailable as why:
        pytest.skip(str(why), **how)


def run_command(script: str, *args: object, cwd: str | Path = ROOT, timeout: float = 120, **env: str) -> subprocess.CompletedProcess:
    """Runs one of the commands in the repository's root, 'train.py' for example, in a process of its own.

    args: its command line; anything but str is turned into one
    cwd:  folder it runs in
    env:  environment variables on top of the present ones
    """
    return subprocess.run(
        [sys.executable, str(ROOT / script), *map(str, args)],
        cwd=cwd, env={**os.environ, **env}, capture_output=True, text=True, timeout=timeout,
    )


@contextmanager
def one_group(count: int, code: str, *args: object):
    """Processes that run Python code as one group, killed if they have not ended. args: in their sys.argv

    This process keeps the group's store, as torchrun does, so that no other can have taken its port in between.
    """
    from torch.distributed import TCPStore

    store = TCPStore('127.0.0.1', 0, is_master=True, wait_for_workers=False)
    shared = {'WORLD_SIZE': str(count), 'MASTER_ADDR': '127.0.0.1', 'MASTER_PORT': str(store.port), 'TORCHELASTIC_USE_AGENT_STORE': 'True'}
    started = [subprocess.Popen([sys.executable, '-c', code, *map(str, args)], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                text=True, env={**os.environ, **shared, 'RANK': str(rank), 'LOCAL_RANK': str(rank)})
               for rank in range(count)]
    try:
        yield started
    finally:
        for process in started:
            process.kill()
            process.communicate()


def error_line(done: subprocess.CompletedProcess) -> str:
    """The one line a user's mistake is answered with; fails unless that is all there is on stderr and the exit code is 2."""
    assert done.returncode == 2, f'exit code {done.returncode}, stderr:\n{done.stderr}'
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith('Error: '), f'stderr is not one line:\n{done.stderr}'
    return lines[0]
