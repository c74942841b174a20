"""What a run folder shows of a run: grids of images, log.txt, stats.jsonl, TensorBoard events."""

import contextlib
import io
import json
import math
import os
import re
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from dnnlib.cli import explain
from dnnlib.util import atomic_path, format_time
from torch_utils import distributed
from torch_utils.pixels import to_uint8
from training.config import Config
from training.dataset import ImageDataset
from training.run_folder import Grown, cut_stats
from training.sampling import some_items


def grid_size(width: int, height: int) -> tuple[int, int]:
    """(columns, rows) of a grid of training images that fits a screen: about 1920 x 1080 pixels, 6 x 4 to 16 x 9 square images."""
    return min(max(1920 // width, 6 if width == height else 2), 16), min(max(1080 // height, 4 if width == height else 2), 9)


def grid_image(images: np.ndarray, columns: int) -> Image.Image:
    """uint8 [N, H, W, C] side by side, row by row, as one picture; N is a multiple of `columns`."""
    count, height, width, channels = images.shape
    rows = images.reshape(count // columns, columns, height, width, channels).transpose(0, 2, 1, 3, 4)  # [rows, H, columns, W, C]
    pixels = rows.reshape(count // columns * height, columns * width, channels)
    return Image.fromarray(pixels[:, :, 0] if channels == 1 else pixels)


def save_grid(path: Path, images: np.ndarray, columns: int) -> None:
    """Writes a grid as a PNG, whole or not at all."""
    with atomic_path(path) as temporary:
        grid_image(images, columns).save(temporary, format='PNG')


def grid_items(dataset, count: int, columns: int, seed: int) -> list[int]:
    """Which images of a data set a grid shows: with classes, each row holds one of them and all get their turn; else any.

    Labels that are no classes (several at once, continuous) count as none here.

    Returns `count` indices, a function of the set and the seed alone.
    """
    order = some_items(dataset, 50_000, seed)
    if dataset.label_dim == 0:
        return [int(order[i % len(order)]) for i in range(count)]
    members: dict[tuple, list[int]] = {}
    for i in order:
        members.setdefault(tuple(dataset.get_label(int(i))), []).append(int(i))
    if any(sorted(label)[-1] != 1 or np.count_nonzero(label) != 1 for label in members):
        return [int(order[i % len(order)]) for i in range(count)]
    classes = [members[key] for key in sorted(members, reverse=True)]  # one-hot: class 0 first
    return [(chosen := classes[row % len(classes)])[(row // len(classes) * columns + column) % len(chosen)]
            for row in range(count // columns) for column in range(columns)]


class Pictures:
    """reals.png and the fakes of a run: the same latents every time, with the labels of the real images shown."""

    def __init__(self, folder: Path, dataset: ImageDataset, settings: Config):
        self.folder, self.dataset, self.at_once = folder, dataset, settings.images_at_once(1)
        self.columns, rows = grid_size(*dataset.size)
        self.items = grid_items(dataset, self.columns * rows, self.columns, settings.run.seed)
        random = torch.Generator().manual_seed(distributed.mix_seed(settings.run.seed, 'pictures'))
        self.z = torch.randn([len(self.items), settings.generator.z_dim], generator=random)
        self.c = torch.from_numpy(np.stack([dataset.get_label(i) for i in self.items]))

    def save_reals(self) -> None:
        """Writes reals.png."""
        images = np.stack([self.dataset[i][0].transpose(1, 2, 0) for i in self.items])
        save_grid(self.folder / 'reals.png', images, self.columns)

    @torch.no_grad()
    def save_fakes(self, name: str, G: torch.nn.Module) -> None:
        """Writes what a generator draws."""
        device = next(G.parameters()).device
        images = [to_uint8(G(z.to(device), c.to(device), noise_mode='const'))
                  for z, c in zip(self.z.split(self.at_once), self.c.split(self.at_once), strict=True)]
        save_grid(self.folder / name, np.concatenate(images), self.columns)


class Bar(tqdm):
    """A progress bar whose ETA ends with the time there is. ends: on the monotonic clock."""

    def __init__(self, ends: float, **options):
        self.ends = ends
        super().__init__(bar_format='{percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} img [{elapsed}, ETA {eta}, {rate_fmt}]', **options)

    @property
    def format_dict(self) -> dict:
        values = super().format_dict
        speed = values['rate'] or (values['n'] - values['initial']) / values['elapsed'] if values['elapsed'] else 0
        left = min((values['total'] - values['n']) / speed if speed else math.inf, self.ends - time.monotonic())
        return {**values, 'eta': format_time(max(left, 0)) if math.isfinite(left) else '?'}


class RunLog:
    """The written record of a run; a resumed run cuts off what came after the snapshot it goes on from.

    folder: run folder, or None to print only (processes other than the first get None and `quiet`)
    images: images seen so far, 0 for a new run
    What cannot be written, on a full disk for example, ends no run: the console says so when it begins. Numbers are then kept and written
    with the next ones; lines of log.txt are missing.
    """

    def __init__(self, folder: Path | None, images: int = 0, quiet: bool = False):
        self.folder, self.quiet = folder, quiet
        self._bar, self._events, self._text, self._stats = None, None, None, None
        self._failing: set[str] = set()
        self._unwritten: dict[int, str] = {}  # step: its line of stats.jsonl
        if folder is not None:
            self._text = Grown(folder / 'log.txt')
            self.rewind(images)

    def rewind(self, images: int) -> None:
        """Cuts off the numbers of steps later than `images`, and whatever is damaged."""
        if self.folder is None:
            return
        for part in (self._stats, self._events):
            if part is not None:
                part.close()
        self._unwritten = {step: line for step, line in self._unwritten.items() if step <= images}
        damaged = cut_stats(self.folder / 'stats.jsonl', images)
        self._stats = Grown(self.folder / 'stats.jsonl')
        self._events = Events(self.folder, images)
        if damaged:
            self.say(f'{damaged} damaged line{"s" * (damaged > 1)} of stats.jsonl left out')

    def say(self, line: str) -> None:
        """Prints a line, above the progress bar if there is one, and adds it to log.txt."""
        if not self.quiet:
            tqdm.write(line, file=sys.stdout)
            sys.stdout.flush()
        if self._text is not None:
            with self.going_on('log.txt', also_written=False):
                self._text.add_line(line)

    @contextlib.contextmanager
    def going_on(self, what: str, also_written: bool = True) -> Iterator[None]:
        """An OSError in the block becomes a line, the first time in a row.

        what: is missing then;  also_written: whether the line goes to log.txt too
        """
        try:
            yield
        except OSError as err:
            if what not in self._failing:
                self._failing.add(what)
                line = f'{explain(err) or err}. The run goes on without {what}'
                self.say(line) if also_written else tqdm.write(line, file=sys.stdout)
        else:
            self._failing.discard(what)

    def stats(self, images: int, values: dict[str, float]) -> None:
        """A line of stats.jsonl and the same numbers for TensorBoard."""
        if self._stats is None:
            return
        self._unwritten[images] = json.dumps({'images': images, 'timestamp': time.time(), **values})
        with self.going_on('stats.jsonl'):
            self._write_stats()
        with self.going_on('TensorBoard'):
            self._events.add(images, values)

    def _write_stats(self) -> None:
        if self._unwritten:
            self._stats.add_line('\n'.join(self._unwritten.values()))
            self._unwritten = {}

    def progress(self, images: int, total: int, start: int, ends: float = float('inf')) -> None:
        """Moves the progress bar, which is there only where stdout is a terminal. ends: when time is up, on the monotonic clock."""
        if self.quiet or not sys.stdout.isatty():
            return
        if self._bar is None:
            self._bar = Bar(ends, total=total, initial=start, unit='img', file=sys.stdout, dynamic_ncols=True, leave=False, smoothing=0.05)
        self._bar.update(images - self._bar.n)

    def close(self) -> None:
        """Ends the bar, writes what could not be written before, if it can be now, and closes the files."""
        with contextlib.suppress(OSError):
            self._write_stats()
        for part in (self._bar, self._events, self._text, self._stats):
            if part is not None:
                with contextlib.suppress(OSError):
                    part.close()


class Events:
    """Scalars for TensorBoard, written when they are given and without a thread. images: after which those of earlier files do not count"""

    def __init__(self, folder: Path, images: int):
        os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
        from tensorboard.compat.proto import event_pb2, summary_pb2
        from tensorboard.summary.writer.record_writer import RecordWriter

        self.proto, self.values, self.record = event_pb2, summary_pb2, RecordWriter
        self._unwritten = [event_pb2.Event(file_version='brain.Event:2', step=images)]
        if images:
            start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
            self._unwritten.append(event_pb2.Event(step=images + 1, session_log=start))
        before = [int(match[1]) for path in folder.glob('events.*') if (match := re.match(r'events\.out\.tfevents\.(\d{10})\.', path.name))]
        stamp = max(int(time.time()), *(number + 1 for number in before), 0)  # TensorBoard reads files by name; a clock may go backwards
        self._file = Grown(folder / f'events.out.tfevents.{stamp:010d}.{socket.gethostname()}.{os.getpid()}')

    def add(self, images: int, values: dict[str, float]) -> None:
        """Raises OSError; what could not be written is written with the next."""
        scalars = [self.values.Summary.Value(tag=name, simple_value=value) for name, value in values.items()]
        self._unwritten.append(self.proto.Event(step=images, summary=self.values.Summary(value=scalars)))
        content = io.BytesIO()
        for event in self._unwritten:
            event.wall_time = event.wall_time or time.time()
            self.record(content).write(event.SerializeToString())
        self._file.add(content.getvalue())
        self._unwritten = []

    def close(self) -> None:
        """Closes the file."""
        self._file.close()
