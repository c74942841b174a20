"""A process that script/fuzz.py gives cases to: damages a file, has it read as the commands read it, and says what came of it.

It answers lines 'kind number' with a line of JSON each. An audit hook notes code that is run and files that are written elsewhere.
"""

import json
import os
import random
import re
import shutil
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT)]

import fuzz_cases  # noqa: E402  beside this file

MEMORY = int(sys.argv[1])  # bytes that a case may take
RUNS_CODE = re.compile(r'os\.(system|exec|posix_spawn|fork)|subprocess\.Popen|pty\.spawn|ctypes\.dlopen|socket\.(connect|bind)|exec$')
WRITES = re.compile(r'os\.(mkdir|rename|remove|rmdir|link|symlink|chmod|truncate)$')


class Watch:
    """An audit hook that notes, while it is on, code that is run and files that are written outside a folder."""

    def __init__(self, folder):
        self.folder, self.on, self.seen = str(folder), False, []
        sys.addaudithook(self.hook)

    def hook(self, event, arguments):
        if not self.on:
            return
        imported = event == 'exec' and arguments[0].co_filename.startswith((sys.base_prefix, sys.prefix, '<frozen'))
        if RUNS_CODE.match(event) and not imported:
            self.seen.append(('code run', f'{event} {str(arguments)[:100]}'))
        writes = event == 'open' and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        inside = isinstance(arguments[0], int) or str(arguments[0]).startswith((self.folder, '/dev/null')) if arguments else True
        if (writes or WRITES.match(event)) and not inside:
            self.seen.append(('written outside', f'{event} {str(arguments[0])[:100]}'))


class Readers:
    """Reads a file of each kind as the commands do. folder: for the whole files, and for what is written."""

    def __init__(self, folder):
        import numpy as np
        import torch
        from PIL import Image

        from inference import latents
        from training import checkpoint
        from training.config import DataConfig, build
        from training.dataset import ImageDataset
        from training.presets import PRESETS
        from training.training_loop import Training

        torch.set_num_threads(1)
        self.folder, images = folder, folder / 'images'
        images.mkdir(parents=True)
        (folder / 'run').mkdir()
        for i in range(10):
            Image.fromarray(np.random.RandomState(i).randint(0, 256, (16, 16, 3), np.uint8)).save(images / f'{i:02d}.png')
        labels = [[f'{i:02d}.png', i % 2] for i in range(10)]
        (images / 'dataset.json').write_text(json.dumps({'labels': labels, 'classes': ['cat', 'dog']}))
        dataset = ImageDataset(images)
        data = DataConfig(str(images), dataset.digest, 16, 3, 10, 0, None, False, None)
        self.settings = build('stylegan2-tiny', PRESETS['stylegan2-tiny'], data, width=0.05, batch=4)
        self.training = Training(self.settings, dataset)
        for parameters in (self.training.G, self.training.D):
            for p in parameters.parameters():
                p.grad = torch.zeros_like(p)
        for optimizer in self.training.optimizers.values():
            optimizer.step()
        self.training.images = 4
        self.files = fuzz_cases.small_files(folder, self.training)
        self.G = checkpoint.load_networks(checkpoint.network_path(folder / 'run', 4), only=['G_ema'])['G_ema']
        latents.save_projection(folder / 'w.npz', torch.zeros(1, self.G.num_ws, self.G.w_dim), {}, self.G)
        self.files['projected_w'] = [(folder / 'w.npz').read_bytes()]
        import lzma

        self.files['pickle'] = [lzma.decompress(path.read_bytes()) for path in sorted((ROOT / 'tests/data/pickles').glob('*.pkl.xz'))]

    def draw(self, G, classes=None):
        import torch

        from inference import latents

        label = latents.labels_of_seeds(G, [0], names=classes)[0]
        with torch.no_grad():
            G.synthesis(latents.latents_of(G, 0, label), noise_mode='const')

    def read(self, kind, data, place):
        """Reads a file's content. place: an empty folder to put it in."""
        getattr(self, f'read_{kind}')(data, place)

    def read_snapshot(self, data, place, name='a.safetensors'):
        from training import checkpoint, transfer

        (place / name).write_bytes(data)
        found = checkpoint.load_networks(place / name)
        if 'G_ema' in found:
            self.draw(found['G_ema'], found['meta']['dataset']['classes'])
        transfer.check(place / name, self.settings)

    def read_pickle(self, data, place):
        from training import checkpoint

        (place / 'a.pkl').write_bytes(data)
        self.draw(checkpoint.load_networks(place / 'a.pkl', only=['G_ema'])['G_ema'])

    def read_state(self, data, place):
        from training import checkpoint

        network = checkpoint.network_path(place, 4)
        os.link(checkpoint.network_path(self.folder / 'run', 4), network)
        checkpoint.state_path(network).write_bytes(data)
        self.training.resume(network)

    def read_projected_w(self, data, place):
        from inference import latents

        (place / 'w.npz').write_bytes(data)
        latents.load_projection(place / 'w.npz', self.G)

    def read_options(self, data, place):
        from training import resuming, summary

        (place / 'training_options.json').write_bytes(data)
        _, settings = resuming.resumed(place, None, {}, 'cpu')
        _, settings = resuming.same_data(None, settings)
        summary.print_plan(settings, 'cpu', 1, False, [])

    def read_json(self, data, place):
        for image in (self.folder / 'images').glob('*.png'):
            os.link(image, place / image.name)
        (place / 'dataset.json').write_bytes(data)
        self.convert(place, place.with_name('converted.zip'))
        self.train_on(place)

    def read_zip(self, data, place):
        (place / 'a.zip').write_bytes(data)
        self.convert(place / 'a.zip', place / 'converted.zip')
        self.train_on(place / 'a.zip')

    def read_images(self, data, place):
        from inference import targets
        from training.data.files import BadImage, decode

        (place / 'a.png').write_bytes(data)
        try:
            decode(data)
        except BadImage:
            pass
        targets.read_target(place / 'a.png', (16, 16), 3)

    def read_idx(self, data, place, name='train-images-idx3-ubyte'):
        (place / name).write_bytes(data)
        self.convert(place / name, place / 'converted.zip')

    def read_lmdb(self, data, place):
        self.read_idx(data, place, 'data.mdb')

    def read_cifar(self, data, place):
        self.read_idx(data, place, 'cifar-10-python.tar.gz')

    def convert(self, path, dest):
        """As dataset_tool.py convert does."""
        from training.data import conversion
        from training.data.sources import open_source

        source, skipped, notes = open_source(path), [], []
        items = [(source, i) for i in range(len(source))]
        labels, classes = conversion.merge_labels([source], notes)
        chosen = conversion.choose(items, labels, 100, None, skipped)
        if chosen:
            target = conversion.make_target([items[i] for i in chosen], (16, 16), 'center-crop', 'auto', (0, 0, 0), 'reflect')
            conversion.write_images(items, chosen, labels, classes, target, dest, 1, skipped)

    def train_on(self, path):
        from training.dataset import ImageDataset, quick_check

        quick_check(path, use_labels=True)
        with ImageDataset(path, use_labels=True) as dataset:
            dataset.digest  # noqa: B018
            for i in range(min(len(dataset), 4)):
                dataset[i]


def worker():
    """Answers lines 'kind number' on stdin with a line of JSON each."""
    from dnnlib import cli

    answers, sys.stdout = sys.stdout, open(os.devnull, 'w')
    folder = Path(tempfile.mkdtemp(prefix='fuzz-'))
    changes, watch = fuzz_cases.CHANGES, Watch(folder)
    readers = Readers(folder / 'whole')
    for kind, files in readers.files.items():  # whole, so that what is imported late is imported now
        (folder / kind).mkdir()
        for number, data in enumerate(files):
            place = folder / kind / str(number)
            place.mkdir()
            try:
                readers.read(kind, data, place)
            except Exception as err:
                if cli.explain(err) is None or kind not in ('images', 'lmdb'):
                    raise
    sys.stderr = sys.stdout
    print('ready', file=answers, flush=True)
    for line in sys.stdin:
        kind, number = line.split()
        rng = random.Random(f'{kind} {number}')
        files = readers.files[kind]
        data = changes[kind](rng.choice(files), rng, files)
        place = folder / 'case'
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        os.chdir(place)
        Path('/proc/self/clear_refs').write_text('5')  # the peak of memory begins anew
        watch.seen, watch.on, began, outcome, said = [], True, time.monotonic(), 'understood', ''
        try:
            readers.read(kind, data, place)
        except Exception as err:
            import traceback

            said = cli.explain(err)
            outcome = 'traceback' if said is None else 'refused'
            said = said or ''.join(traceback.format_exception(err))[-3000:]
        watch.on = False
        peak = int(re.search(r'VmHWM:\s+(\d+)', Path('/proc/self/status').read_text())[1]) * 1024
        if (place / 'MADE').exists() or any(what == 'code run' for what, _ in watch.seen):
            outcome, said = 'code run', str(watch.seen)
        elif watch.seen:
            outcome, said = 'written outside', str(watch.seen)
        elif peak > MEMORY:
            outcome = 'memory'
        print(json.dumps({'kind': kind, 'number': int(number), 'outcome': outcome, 'seconds': round(time.monotonic() - began, 3),
                          'peak': peak, 'said': said[:3000]}), file=answers, flush=True)


if __name__ == '__main__':
    worker()
