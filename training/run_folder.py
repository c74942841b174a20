"""A run folder as the place of one run: who works in it, which of several is the latest, what its run goes on from, lines that are whole.

`run.lock` names the process that works in the folder. The system's lock on it decides, so a process that was killed holds nothing. A `turn`
in it counts the starts and resumptions of all runs in the folder above: the highest is the latest, whatever clocks say.

Who draws looks here for the latest snapshot, so what only a run needs is imported where it is used.
"""

import contextlib
import errno
import json
import os
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from dnnlib.util import UserError, atomic_path
from training import checkpoint
from training.state import expect_state

if TYPE_CHECKING:
    from training.config import Config

LOCK, OPTIONS = 'run.lock', 'training_options.json'
BEAT = 20.0    # seconds between signs of life of the process that holds a folder
SILENT = 90.0  # seconds without one that tell a process of another machine is gone; network file systems are up to 60 behind
DAY = 86400.0


# ---- Who works in it


@contextlib.contextmanager
def held(folder: Path, say: Callable[[str], None] = print) -> Iterator[None]:
    """While entered, the folder is this process's alone. What unfinished writes have left there goes.

    Raises UserError that names the process which has it. The lock of a process that is gone is taken over, with a line.
    """
    try:
        import fcntl
    except ImportError:  # no POSIX system
        yield
        return
    turn = 1 + max((_owner(other).get('turn', 0) for other in folder.parent.glob('*/')), default=0)
    handle = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o666)  # opened once: closing any other handle of it would give the lock away
    done = threading.Event()
    try:
        owner = _parsed(os.pread(handle, 1000, 0))
        name, locked = f'process {owner.get("pid")} on {owner.get("host")}', True
        try:
            fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as err:
            locked = False if err.errno in (errno.EACCES, errno.EAGAIN) else None  # None: a file system without locks
        gone = 'pid' not in owner or locked and owner.get('host') == socket.gethostname()
        if locked is False or not gone and _beats(folder / LOCK, name, say):
            raise UserError(f'{folder} is in use by {name}: wait for its end, or stop it with SIGTERM, which saves')
        if 'pid' in owner:
            say(f'Taking over from {name}, which ended without a word')
        _write(handle, {'host': socket.gethostname(), 'pid': os.getpid(), 'turn': turn})
        for path in folder.glob('.tmp-*'):
            path.unlink(missing_ok=True)
        threading.Thread(target=_beat, args=(handle, done), daemon=True).start()
        yield
        _write(handle, {'turn': turn})
    finally:
        done.set()
        os.close(handle)


def _write(handle: int, owner: dict) -> None:
    text = json.dumps(owner).encode()
    with contextlib.suppress(OSError):  # a full disk ends no run
        os.pwrite(handle, text, 0)
        os.truncate(handle, len(text))


def _beat(handle: int, done: threading.Event) -> None:
    while not done.wait(BEAT):
        with contextlib.suppress(OSError):
            os.utime(handle)


def _beats(path: Path, name: str, say: Callable[[str], None]) -> bool:
    """Whether a process of another machine, whose lock may not reach this one, gives a sign of life."""
    say(f'Waiting {SILENT:g} seconds for a sign of {name}, which had this run last')
    before, end = path.stat().st_mtime_ns, time.monotonic() + SILENT
    while time.monotonic() < end:
        time.sleep(min(1.0, SILENT))
        if path.stat().st_mtime_ns != before:
            return True
    return False


def _owner(folder: Path) -> dict:
    """What a folder's lock says, nothing where it has none."""
    try:
        return _parsed((folder / LOCK).read_bytes())
    except OSError:
        return {}


def _parsed(text: bytes) -> dict:
    """A lock's content with entries of the right kinds alone."""
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    kinds = {'host': str, 'pid': int, 'turn': int}
    return {key: content[key] for key, kind in kinds.items() if type(content.get(key)) is kind} if isinstance(content, dict) else {}


# ---- Which one


def new_run_folder(outdir: Path, name: str) -> Path:
    """Makes outdir/00000-name with the next free number. Raises UserError where outdir is not a folder."""
    while True:
        try:
            outdir.mkdir(parents=True, exist_ok=True)
            numbers = [int(match[1]) for entry in outdir.iterdir() if (match := re.match(r'(\d{5,})(-|$)', entry.name))]
        except (FileExistsError, NotADirectoryError):
            raise UserError(f'{outdir} is not a folder: choose another --outdir') from None
        folder = outdir / f'{max(numbers, default=-1) + 1:05d}-{name}'
        try:
            folder.mkdir()
            return folder
        except FileExistsError:
            continue  # another run was faster


def _age(folder: Path) -> tuple:
    """Sorts run folders: by turn, and older ones, which have none, by the last write that is not in the future."""
    times = [0.0]
    for path in (folder / OPTIONS, *checkpoint.snapshots(folder)):
        with contextlib.suppress(FileNotFoundError):
            times.append(path.stat().st_mtime)
    return _owner(folder).get('turn', 0), max(when for when in times if when < time.time() + DAY), folder.name


def is_run(folder: Path) -> bool:
    """Whether there is a run in a folder, in whatever state."""
    return (folder / OPTIONS).is_file() or bool(checkpoint.snapshots(folder))


def find_latest_run(root: Path) -> Path:
    """The run folder below `root` that was started or resumed last. Raises UserError where there is none."""
    runs = [folder for folder in root.glob('*/') if is_run(folder)]
    if not runs:
        raise UserError(f'--resume=latest: no run in {root}: start one without --resume, or name its folder')
    return max(runs, key=_age)


def find_latest_snapshot(root: str | Path = 'training-runs') -> Path | None:
    """The furthest snapshot of the latest run below `root` that has one, None where there is none."""
    runs = [folder for folder in Path(root).glob('*/') if checkpoint.snapshots(folder)]
    return checkpoint.snapshots(max(runs, key=_age))[-1] if runs else None


# ---- What its run goes on from


def find_resumable(folder: Path, say: Callable[[str], None] = lambda line: None) -> Path | None:
    """The network file of a run's latest snapshot that is whole, None where it has none with a training state.

    All of it is read. One that is damaged is passed over, and `say` gets a line about it. Raises UserError if all of them are.
    """
    from training.health import expect_finite

    problem = None
    for path in reversed(checkpoint.snapshots(folder)):
        if not checkpoint.state_path(path).is_file():
            continue
        try:
            _, state = checkpoint.read_pair(path)
            expect_state(checkpoint.state_path(path), state, {})
            expect_finite(state['optimizers'], f'{checkpoint.state_path(path)}: optimizers')
            return path
        except (UserError, OSError) as err:
            problem = err
            say(f'Passing over {err}')
    if problem is not None:
        raise UserError(f'{folder} has no snapshot to go on from: {problem}, or start anew')
    return None


def stored_config(folder: Path, say: Callable[[str], None] = lambda line: None) -> 'Config':
    """The configuration of a run folder: its training_options.json, or where that is damaged what the last snapshot's header holds.

    say: gets a line about the latter. Raises UserError.
    """
    from training.config_json import from_json

    path = folder / OPTIONS
    try:
        text = path.read_bytes().decode()
        if not isinstance(json.loads(text), dict):
            raise ValueError('no object')
    except FileNotFoundError:
        reason = f'{folder} is not a run folder: it has no {OPTIONS}'
    except (ValueError, RecursionError):
        reason = f'{path} is damaged, it is not JSON: restore the file, or start a new run'
    else:
        return from_json(text, str(path))
    for network in reversed(checkpoint.snapshots(folder)):
        with contextlib.suppress(UserError, OSError):
            config = from_json(json.dumps(checkpoint.read_header(network)['recipe']), f'{network}: the recipe')
            say(f'{path} is {"damaged" if path.exists() else "missing"}: taking the recipe from {network.name}')
            return config
    raise UserError(reason)


def remove_old(folder: Path, keep: int) -> None:
    """Removes all snapshots but the last `keep` (0 keeps all), a network file before its state, and states left without one."""
    for path in checkpoint.snapshots(folder)[:-keep] if keep else []:
        path.unlink(missing_ok=True)
    needed = {checkpoint.state_path(path) for path in checkpoint.snapshots(folder)}
    for path in folder.glob('training-state-*.pt'):
        if path not in needed:
            path.unlink(missing_ok=True)


def set_aside_later(folder: Path, network: Path | None) -> list[str]:
    """Moves the snapshots after `network` (None: all) into superseded/, so that the latest one is always of the run that is going on."""
    names = checkpoint.snapshots(folder)
    later = names[names.index(network) + 1:] if network is not None else names
    for path in later:
        (folder / 'superseded').mkdir(exist_ok=True)
        path.rename(folder / 'superseded' / path.name)
        state = checkpoint.state_path(path)
        if state.is_file():
            state.rename(folder / 'superseded' / state.name)
    return [path.name for path in later]


# ---- Lines


class Grown:
    """A file that grows at its end by whole pieces: one that cannot be written whole leaves nothing."""

    def __init__(self, path: Path):
        self.path, self._file = path, open(path, 'ab+', buffering=0)

    def add(self, content: bytes) -> None:
        """Raises OSError naming the file."""
        size = self._file.seek(0, os.SEEK_END)
        try:
            while content:
                content = content[self._file.write(content):]
        except OSError as err:
            self._file.truncate(size)
            raise OSError(err.errno, os.strerror(err.errno), str(self.path)) from err

    def add_line(self, line: str) -> None:
        """A line of a text, after the end of one that was never finished. Raises OSError."""
        size = self._file.seek(0, os.SEEK_END)
        self._file.seek(max(size - 1, 0))
        unfinished = self._file.read(1) not in (b'', b'\n')
        self.add('\n'.join(['', line, ''] if unfinished else [line, '']).encode(errors='replace'))

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


def add_line(path: Path, line: str) -> None:
    """Adds one line to a text file, which is made where it is not there. Raises OSError naming the file."""
    with contextlib.closing(Grown(path)) as file:
        file.add_line(line)


def cut_stats(path: Path, images: int) -> int:
    """Removes the lines of stats.jsonl of steps later than `images`, and those that are damaged. Returns how many of the latter."""
    if not path.is_file():
        return 0
    lines = path.read_bytes().splitlines(keepends=True)
    steps = [_images(line) for line in lines]
    kept = [line for line, step in zip(lines, steps, strict=True) if step is not None and step <= images]
    if kept != lines:
        with atomic_path(path) as temporary:
            temporary.write_bytes(b''.join(kept))
    return sum(step is None for step in steps)


def _images(line: bytes) -> int | None:
    """The step of a line of stats.jsonl, None for one that is damaged."""
    try:
        images = json.loads(line)['images']
    except (ValueError, RecursionError, TypeError, KeyError):
        return None
    return images if type(images) is int and line.endswith(b'\n') else None
