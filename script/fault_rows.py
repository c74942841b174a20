"""What can happen to a run, a row each of FAULTS: in the process that trains (`inject`), or to the folder of a run that ended (`damage`).

`faults.py` puts them in, one after the other, and tests/faults a few of them.
"""

import json
import mmap
import os
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

FULL = 28  # ENOSPC
STATS, OPTIONS = 'stats.jsonl', 'training_options.json'
met = mmap.mmap(-1, 1)  # 1 once the fault has happened; the process that trains shares it with the one that started it


# ---- What goes wrong in the process that trains


def at_step(images: int, act: Callable) -> Callable:
    """Calls act(training) before the step after so many images, once."""
    def inject() -> None:
        from training.training_loop import Training

        step, left = Training.step, [images]

        def patched(training, *batch):
            if left and training.images == images:
                left.clear()
                met[0] = 1
                act(training)
            step(training, *batch)

        Training.step = patched
    return inject


def in_file(name: str, act: Callable[[Path], None], nth: int = 1) -> Callable:
    """Calls act(temporary file) where the nth file whose name has `name` in it is written and not yet at its place."""
    def inject() -> None:
        from dnnlib import util

        to_disk, count = util._to_disk, [0]

        def patched(path):
            if name in path.name and path.is_file():
                count[0] += 1
                if count[0] == nth:
                    met[0] = 1
                    act(path)
            to_disk(path)

        util._to_disk = patched
    return inject


def in_line(name: str, act: Callable, nth: int = 2) -> Callable:
    """Calls act(file, content) before the file `name` grows for the nth time."""
    def inject() -> None:
        from training.run_folder import Grown

        add, count = Grown.add, [0]

        def patched(file, content):
            if file.path.name.startswith(name):
                count[0] += 1
                if count[0] == nth:
                    met[0] = 1
                    act(file, content)
            add(file, content)

        Grown.add = patched
    return inject


def killed(*_) -> None:
    """The end of a process that nothing can be done about."""
    os.kill(os.getpid(), signal.SIGKILL)


def half(path: Path) -> None:
    """Half of a file, then the end."""
    os.truncate(path, path.stat().st_size // 2)
    killed()


def half_a_line(file, content: bytes) -> None:
    """Half of a line, then the end."""
    file._file.write(content[:len(content) // 2])
    killed()


def full(*_) -> None:
    """No space on the disk."""
    raise OSError(FULL, os.strerror(FULL))


def spoil(what: str, always: bool = False) -> Callable:
    """NaN in a number of a network before the step after 20 images; always: whenever that step comes."""
    def act(training) -> None:
        import torch

        parameter = next(training.networks[what].parameters())
        with torch.no_grad():
            parameter.view(-1)[0] = float('nan')

    def inject() -> None:
        from training.training_loop import Training

        step = Training.step

        def patched(training, *batch):
            if training.images == 20:
                met[0] = 1
                act(training)
            step(training, *batch)

        Training.step = patched
    return inject if always else at_step(20, act)


def nan_picture() -> None:
    """What the averaged generator draws is NaN."""
    import torch

    from training import snapshot

    to_uint8 = snapshot.to_uint8

    def patched(images):
        met[0] = 1
        return to_uint8(torch.full_like(images, float('nan')))

    snapshot.to_uint8 = patched


def clock_backwards() -> None:
    """Each look at the clock is an hour before the last."""
    now = [time.time()]

    def patched():
        now[0] -= 3600
        met[0] = 1
        return now[0]

    time.time = patched


def lost_workers(training) -> None:
    """The processes that load data are killed."""
    import psutil

    for child in psutil.Process().children():
        child.kill()


# ---- What becomes of a folder


def flipped(pattern: str) -> Callable[[Path], None]:
    """A bit in the middle of the last file of that name."""
    def damage(folder: Path) -> None:
        path = sorted(folder.glob(pattern))[-1]
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 4
        path.write_bytes(content)
    return damage


def rewritten(name: str, change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    """Another content of a file."""
    return lambda folder: (folder / name).write_bytes(change((folder / name).read_bytes()))


def second_line(junk: bytes) -> Callable[[bytes], bytes]:
    """Junk between the first line and the rest."""
    return lambda content: content.replace(b'\n', b'\n' + junk + b'\n', 1)


def nan_snapshot(folder: Path) -> None:
    """The newest snapshot holds NaN, its checksums right."""
    from safetensors import safe_open
    from safetensors.torch import load_file, save_file

    from training import checkpoint

    path = checkpoint.snapshots(folder)[-1]
    with safe_open(path, framework='pt') as file:
        header = json.loads(file.metadata()['header'])
    tensors = load_file(path)
    key = next(key for key in tensors if key.startswith('G.') and tensors[key].is_floating_point())
    tensors[key].view(-1)[0] = float('nan')
    header['crc32'][key] = checkpoint.checksum(tensors[key])
    save_file(tensors, path, metadata={'header': json.dumps(header)})


def of_2030(folder: Path) -> None:
    """All files are of 2030, and there is a later run."""
    later = folder.with_name('00001-later')
    shutil.copytree(folder, later)
    (later / 'run.lock').write_text('{"turn": 2}')
    for path in folder.iterdir():
        os.utime(path, (1893456000, 1893456000))


@dataclass(frozen=True)
class Fault:
    """name; what happens, one of the two;  options: more for train.py"""

    name: str
    inject: Callable[[], None] | None = None
    damage: Callable[[Path], None] | None = None
    options: tuple[str, ...] = ()


WRITES = ('training-state', 'network-snapshot', 'fakes0', 'reals', OPTIONS)
FAULTS = [
    *(Fault(f'kill -9 in the middle of writing {name}', in_file(name, half, 1 if name in (OPTIONS, 'reals') else 3)) for name in WRITES),
    *(Fault(f'kill -9 within a line of {name}', in_line(name, half_a_line, 6 if name == 'log.txt' else 2))
      for name in ('log.txt', STATS, 'events')),
    Fault('kill -9 between a state and its weights', in_file('network-snapshot', killed, 3)),
    Fault('SIGTERM', at_step(20, lambda training: os.kill(os.getpid(), signal.SIGTERM))),
    *(Fault(f'disk full in {name}', in_file(name, full, 3)) for name in ('training-state', 'network-snapshot', 'fakes0')),
    *(Fault(f'disk full in {name}', in_line(name, full, 6 if name == 'log.txt' else 2)) for name in ('log.txt', STATS, 'events')),
    Fault('a worker killed', at_step(20, lost_workers), options=('--workers=1',)),
    Fault('NaN in a picture', nan_picture),
    *(Fault(f'NaN in a weight of {name}, once', spoil(name)) for name in ('G', 'D', 'G_ema')),
    Fault('clock backwards', clock_backwards),
    Fault('NaN in the newest snapshot', damage=nan_snapshot),
    Fault('a bit of the newest snapshot', damage=flipped('network-snapshot-*')),
    Fault('a bit of the newest state', damage=flipped('training-state-*')),
    *(Fault(f'{STATS}: {kind}', damage=rewritten(STATS, second_line(junk))) for kind, junk in (
        ('half a line', b'{"images": 8, "Lo'), ('not UTF-8', b'\xff\xfe\x00'), ('a list', b'[1]'), ('no images', b'{"a": 1}'),
        ('images a word', b'{"images": "x"}'), ('100,000 brackets', b'[' * 100_000))),
    *(Fault(f'{OPTIONS}: {kind}', damage=rewritten(OPTIONS, change)) for kind, change in (
        ('cut', lambda content: content[:len(content) // 2]), ('not UTF-8', lambda content: b'\xff\xfe' + content),
        ('zeros', lambda content: bytes(len(content))))),
    Fault(f'{OPTIONS} missing', damage=lambda folder: (folder / OPTIONS).unlink()),
    Fault('all files of 2030', damage=of_2030),
]
