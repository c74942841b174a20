"""Faults put into a short run, one after the other, and what `train.py --resume=latest` makes of each.

Faults are the rows of fault_rows.py, kill -9 and SIGTERM at random moments, and a small disk. A run that has met one is resumed to its end
and compared with one that met none: weights, optimizers, every number of stats.jsonl but times. Processes are forks of this one, which has
imported everything already.
"""

import json
import mmap
import os
import platform
import random
import runpy
import shutil
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import click
import psutil

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / 'script')]

from fault_rows import FAULTS, STATS, Fault, at_step, met  # noqa: E402, F401

from dnnlib import cli  # noqa: E402

HALF, TOTAL, BATCH = 16, 32, 4  # images of the run whose folder is damaged, and of the whole run; of a step
RECIPE = ('--cfg=inr-tiny', '--batch=4', '--width=0.25', '--metrics=none')
ANSWERS = {True: 'yes', False: 'NO', None: 'nothing to resume'}
PACE = ('--tick=0.008', '--snap=1', '--img-snap=1', '--device=cpu')


# ---- One after the other


class Trials:
    """Runs in a folder of their own. recipe: options of train.py;  make_data: fills an empty folder with pictures"""

    def __init__(self, root: Path, recipe: tuple[str, ...] = RECIPE, make_data: Callable[[Path], None] | None = None):
        self.root, self.recipe = root, recipe
        self.data, self.seen = root / 'data', mmap.mmap(-1, 8)
        root.mkdir(parents=True, exist_ok=True)
        if not self.data.exists():
            (make_data or pictures)(self.data)
        self.train(root / 'whole', TOTAL)
        self.train(root / 'base', HALF)

    def start(self, outdir: Path, kimg: int, *options: str, inject: Callable | None = None, resume: bool = False) -> int:
        """The process of a run, its output in outdir.log."""
        self.seen[:] = struct.pack('q', -1)
        sys.stdout.flush()
        if child := os.fork():
            return child
        code = 99
        try:
            log = os.open(outdir.with_suffix('.log'), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(log, 1)
            os.dup2(log, 2)
            sys.stdout, sys.stderr = open(1, 'w', closefd=False), open(2, 'w', closefd=False)
            os.chdir(self.root)
            at_every_step(lambda images: self.seen.__setitem__(slice(0, 8), struct.pack('q', images)))
            if inject:
                inject()
            kind = ('--resume=latest',) if resume else (*self.recipe, *PACE, f'--data={self.data}')
            sys.argv = ['train.py', *kind, f'--kimg={kimg / 1000}', f'--outdir={outdir}', *options]
            runpy.run_path(str(ROOT / 'train.py'), run_name='__main__')
        except SystemExit as end:
            code = end.code
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    def images(self) -> int:
        """What the run started last has seen, -1 before its first step."""
        return struct.unpack('q', self.seen[:])[0]

    def train(self, outdir: Path, kimg: int, *options: str, **how) -> int:
        """Runs to the end; returns the exit code, or minus the number of the signal that ended it."""
        return ended(self.start(outdir, kimg, *options, **how))

    def __call__(self, fault: Fault) -> tuple[int, bool | None, int, str]:
        """(exit code of the run that met it, whether the resumed run is the whole one bit for bit, steps lost, what train.py said).

        None in place of the second where the run ended before there was anything to resume. Raises AssertionError if nothing happened.
        """
        met[0] = 0
        outdir = self.root / 'faults' / ''.join(c if c.isalnum() else '-' for c in fault.name)
        shutil.rmtree(outdir, ignore_errors=True)
        outdir.parent.mkdir(exist_ok=True)
        outdir.with_suffix('.log').unlink(missing_ok=True)
        if fault.damage:
            shutil.copytree(self.root / 'base', outdir)
            fault.damage(next(outdir.iterdir()))
            code, reached = 0, HALF
        else:
            code = self.train(outdir, TOTAL, *fault.options, inject=fault.inject)
            reached = max(self.images(), 0)
            assert met[0], f'{fault.name}: did not happen'
        return code, *self.resumed(outdir, reached)

    def resumed(self, outdir: Path, reached: int) -> tuple[bool | None, int, str]:
        """(bit for bit or None, steps lost, said) of a run that saw `reached` images before it ended."""
        log = outdir.with_suffix('.log')
        before = log.stat().st_size if log.exists() else 0
        code = self.train(outdir, TOTAL, resume=True)
        said = log.read_bytes()[before:].decode(errors='replace')
        lost = max(reached - begun(said, reached), 0) // BATCH
        from training.run_folder import find_latest_run

        if code == 2 and f'no run in {outdir}: start one' in said and reached == 0:
            return None, lost, said
        return code == 0 and same_run(find_latest_run(outdir), next((self.root / 'whole').iterdir())), lost, said


def at_every_step(tell: Callable[[int], None]) -> None:
    """Tells the images seen after each step."""
    from training.training_loop import Training

    step = Training.step

    def patched(training, *batch):
        if training.images == 0:
            tell(0)
        step(training, *batch)
        tell(training.images)

    Training.step = patched


def ended(child: int) -> int:
    """Exit code of a process, or minus the number of the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def begun(said: str, reached: int) -> int:
    """The images that a resumed run went on from."""
    from training.checkpoint import SNAPSHOT_NAME, images_of

    if match := SNAPSHOT_NAME.search(said.partition('Resuming ')[2].partition('\n')[0]):
        return images_of(Path(match[0]))
    return 0 if 'from the start' in said else reached


def same_run(one: Path, other: Path) -> bool:
    """Whether two run folders hold the same end: weights, training state, numbers of every tick, times apart."""
    import torch
    from safetensors.torch import load_file

    from training import checkpoint

    def same(a, b):
        if isinstance(a, dict):
            return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
        if isinstance(a, list | tuple):
            return len(a) == len(b) and all(map(same, a, b))
        return torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b

    def numbers(folder):
        lines = [json.loads(line) for line in (folder / STATS).read_text().splitlines()]
        return [{key: value for key, value in line.items() if not key.startswith(('Timing/', 'Resources/', 'timestamp', 'Health/data'))}
                for line in lines]

    def state(folder):
        found = torch.load(checkpoint.state_path(checkpoint.network_path(folder, TOTAL)), weights_only=True)
        return {key: value for key, value in found.items() if key != 'seconds'}

    weights = [load_file(checkpoint.network_path(folder, TOTAL)) for folder in (one, other)]
    return same(*weights) and same(state(one), state(other)) and numbers(one) == numbers(other)


def pictures(folder: Path) -> None:
    """Ten random pictures of 16x16."""
    import numpy as np
    from PIL import Image

    folder.mkdir(parents=True)
    for i, pixels in enumerate(np.random.RandomState(0).randint(0, 256, [10, 16, 16, 3], np.uint8)):
        Image.fromarray(pixels).save(folder / f'{i:02d}.png')


def moments(trials: Trials, count: int, number: int, seed: int = 0):
    """(name, exit code, bit for bit, steps lost) of runs that get a signal at random moments."""
    draw = random.Random(seed)
    _, _, used = os.wait4(trials.start(trials.root / 'timed', TOTAL), 0)
    seconds = used.ru_utime + used.ru_stime  # of the processor, so that moments lie within a run whatever else the machine does
    for i in range(count):
        outdir, wait = trials.root / 'faults' / f'{signal.Signals(number).name}-{i}', draw.uniform(0, seconds)
        shutil.rmtree(outdir, ignore_errors=True)
        outdir.parent.mkdir(exist_ok=True)
        child = trials.start(outdir, TOTAL)
        process = psutil.Process(child)
        while sum(process.cpu_times()[:2]) < wait and process.status() != psutil.STATUS_ZOMBIE:
            time.sleep(0.005)
        os.kill(child, number)
        code, reached = ended(child), max(trials.images(), 0)
        yield f'{wait:.2f} s', code, *trials.resumed(outdir, reached)[:2]


def on_small_disk(trials: Trials, kib: int) -> tuple[int, bool, int, str]:
    """A run on a file system of so many KiB that is full before the run's end, resumed when it is larger. Needs mount's rights."""
    place = trials.root / 'disk'
    place.mkdir(exist_ok=True)
    subprocess.run(['mount', '-t', 'tmpfs', '-o', f'size={kib}k', 'tmpfs', place], check=True)
    try:
        code = trials.train(place / 'runs', TOTAL)
        reached = trials.images()
        subprocess.run(['mount', '-o', f'remount,size={16 * kib}k', place], check=True)
        return code, *trials.resumed(place / 'runs', reached)
    finally:
        subprocess.run(['umount', place], check=True)


@click.command()
@click.option('--outdir', type=click.Path(path_type=Path), default='/tmp/faults-of-runs', show_default=True, help='Where the runs go.')
@click.option('--kills', type=click.IntRange(0), default=30, show_default=True, help='kill -9 at so many random moments.')
@click.option('--only', default='', help='Only the faults with this in their name.')
@click.option('--disk', type=click.IntRange(0), default=0, help='KiB of a small file system to fill as well (needs the right to mount).')
def main(outdir: Path, kills: int, only: str, disk: int) -> int:
    """Puts faults into short runs; prints for each whether the resumed run is bit for bit the one that met none, and the steps lost."""
    import torch

    from training import training_loop  # noqa: F401  once, for all forks

    torch.set_num_threads(1)
    commit = subprocess.run(['git', 'rev-parse', '--short', 'HEAD'], cwd=ROOT, capture_output=True, text=True).stdout.strip()
    print(f'`script/faults {" ".join(sys.argv[1:])}`, {platform.machine()}, torch {torch.__version__}, commit {commit}\n')
    print('| fault | ended with | resumed bit for bit | steps lost |\n|---|---|---|---|', flush=True)
    trials, failed = Trials(outdir), 0

    def row(name, code, same, lost, *_):
        nonlocal failed
        failed += same is False
        print(f'| {name} | {code} | {ANSWERS[same]} | {lost} |', flush=True)

    for fault in FAULTS:
        if only in fault.name:
            row(fault.name, *trials(fault))
    if disk:
        row(f'a disk of {disk} KiB', *on_small_disk(trials, disk))
    for number, count in ((signal.SIGKILL, kills), (signal.SIGTERM, kills // 5)):
        for name, *rest in moments(trials, count, number):
            row(f'{signal.Signals(number).name} after {name}', *rest)
    print(f'\n{failed} not bit for bit' if failed else '\nAll bit for bit')
    return min(failed, 1)


if __name__ == '__main__':
    cli.run(main)
