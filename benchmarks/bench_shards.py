"""Data in shards: images a second beside a zip of the same pictures, a failing server, and 10^9 samples in 10^5 shards simulated.

One process and one thread read, check and decode; the two ways take turns. What counts is the time of the CPU, since the files are in
memory. The simulation makes an index.json of 10^5 shards of 10^4 samples and opens it in a process of its own, which tells its memory and
the seconds of the CPU to a position. The permutation is proven by counting.
"""

import contextlib
import http.server
import itertools
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import click
import numpy as np
import side_by_side

FAULTS = ('500', 'cut', 'wrong', 'slow')

SIMULATION = '''
import sys, time
from training.data.shards import ShardFiles
began = time.process_time()
files = ShardFiles(sys.argv[1])
opened = time.process_time() - began
from training.data.order import TwoLevelOrder
import numpy as np
slowest = 0
for position in (0, 10**9 - 1, 123_456_789_012, 5 * 10**9 + 7, 77):
    began = time.process_time()
    name = files.names[int(TwoLevelOrder(len(files.names), files.block, 1)(np.array([position]))[0])]
    slowest = max(slowest, time.process_time() - began)
peak = int(open('/proc/self/status').read().split('VmHWM:')[1].split()[0]) / 1024
print(len(files.names), len(files.index.names), opened, slowest, peak)
'''


def images_of(dataset, order, count):
    """A function that reads and decodes `count` images and goes on from there in the next call."""
    def run():
        for i in itertools.islice(order, count):
            dataset[i]
    return run


def throughput(source, folder, images, resolution):
    """The figure of shards beside a zip: baseline_s is the zip's, in seconds of the CPU."""
    import training.dataset
    from training.data.opening import open_files
    from training.data.sharding import write_shards
    from training.dataset import ImageDataset
    from training.sampling import make_sampler

    training.dataset.KEEP_BYTES = 0  # every image is read again
    with contextlib.closing(open_files(source)) as files:
        write_shards(files, files.labels(), folder / 'shards', 16 << 20)
    runs = []
    for place in (source, folder / 'shards'):
        dataset = ImageDataset(place)
        runs.append(images_of(dataset, iter(make_sampler(dataset, 0, 0, 1, 0)), images))
    times = [[], []]
    for _ in range(9):
        for run, seconds in zip(runs, times, strict=True):
            began = time.process_time()
            run()
            seconds.append(time.process_time() - began)
    slow, fast = map(statistics.median, times)
    figure = dict(case=f'{images} images of {resolution}x{resolution}: a zip, shards', baseline_s=slow, fast_s=fast, ratio=slow / fast)
    print(side_by_side.line(figure), flush=True)
    return figure


def synthetic(path, resolution, count):
    """A zip of PNG files of that size, shapes and a little noise, of some 1.5 bytes a pixel."""
    import io
    import zipfile

    from PIL import Image

    random = np.random.RandomState(0)
    with zipfile.ZipFile(path, 'w') as archive:
        for i in range(count):
            size = (resolution, resolution)
            base = Image.fromarray(random.randint(0, 256, (6, 6, 3), dtype=np.uint8)).resize(size, Image.Resampling.BICUBIC)
            noisy = np.clip(np.asarray(base).astype(int) + random.randint(-3, 4, (*size, 3)), 0, 255).astype(np.uint8)
            file = io.BytesIO()
            Image.fromarray(noisy).save(file, 'png')
            archive.writestr(f'{i:06d}.png', file.getvalue())


class Handler(http.server.SimpleHTTPRequestHandler):
    """Ranges of files, of which a share of the answers fails."""

    protocol_version = 'HTTP/1.1'
    wbufsize = -1  # head and body in one packet
    random, share, failed, asked = np.random.RandomState(0), 0.3, 0, 0

    def log_message(self, *args):
        pass

    def do_GET(self):
        data = (Path(self.directory) / self.path.strip('/')).read_bytes()
        first, last = 0, len(data) - 1
        if asked := self.headers.get('Range'):
            first, last = map(int, asked.removeprefix('bytes=').split('-'))
        body = data[first:last + 1]
        fault = self.random.choice(FAULTS) if self.random.rand() < self.share else ''
        Handler.failed, Handler.asked = Handler.failed + bool(fault), Handler.asked + 1
        self.send_response(500 if fault == '500' else 206 if asked else 200)
        if asked:
            self.send_header('Content-Range', f'bytes {first}-{last}/{len(data)}')
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        if fault == 'slow':
            time.sleep(0.3)
        if fault == 'wrong':
            body = body[:len(body) // 2] + bytes([body[len(body) // 2] ^ 255]) + body[len(body) // 2 + 1:]
        self.wfile.write(body[:int(len(body) * self.random.rand())] if fault == 'cut' else body)
        self.close_connection = fault == 'cut'


def flaky(folder, images):
    """Reads from a server on the loopback that fails in three of ten answers. Returns the figure; error is how many images differ."""
    from training.data import ranges, shards
    from training.dataset import ImageDataset
    from training.sampling import make_sampler

    server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), lambda *args: Handler(*args, directory=str(folder / 'shards')))
    server.handle_error = lambda request, address: None  # of connections that the client gave up
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    os.environ.update(no_proxy='*', INR_CACHE_DIR=str(folder / 'cache'))
    ranges.LONGEST_PAUSE, shards.BLOCK_BYTES = 0.1, 64 << 10  # many answers
    local, remote = ImageDataset(folder / 'shards'), ImageDataset(f'http://127.0.0.1:{server.server_port}/index.json')
    order, differing, began = iter(make_sampler(remote, 0, 0, 1, 0)), 0, time.perf_counter()
    for i in itertools.islice(order, images):
        differing += not np.array_equal(local[i][0], remote[i][0])
    seconds = time.perf_counter() - began
    server.shutdown()
    print(f'failing server: {images} images in {seconds:.1f} s, {Handler.failed} of {Handler.asked} answers failed, {differing} differ')
    return dict(case='failing server', images=images, failed=Handler.failed, asked=Handler.asked, differing=differing)


def simulated(folder, shards=100_000, samples=10_000):
    """Memory and seconds of 10^9 samples in 10^5 shards."""
    from training.data.sharding import save_index
    from training.data.shards import Index

    digests = np.array([f'{i:064x}' for i in range(shards)], 'S64')
    save_index(folder / 'index.json', Index((256, 256, 3), None, None, None, None, [f'shard-{i:06d}.tar' for i in range(shards)],
                                            np.full(shards, samples), np.full(shards, samples * 110_000), digests, digests))
    size = (folder / 'index.json').stat().st_size
    command = [sys.executable, '-c', SIMULATION, str(folder / 'index.json')]
    done = subprocess.run(command, cwd=side_by_side.ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    total, count, opened, slowest, memory = map(float, done.stdout.split())
    print(f'{total:.0e} samples in {count:.0e} shards: index.json {size / 2**20:.0f} MiB, opened in {opened:.2f} s, a position found in '
          f'{1e3 * slowest:.2f} ms, the whole process at most {memory:.0f} MiB')
    return dict(case='simulated', samples=total, shards=count, opened_s=opened, position_s=slowest, peak_mib=memory)


def proven(size=1_000_000, block=209):
    """Counts the items of two passes over 10^6 images."""
    from training.data.order import TwoLevelOrder

    order = TwoLevelOrder(size, block, 1, mirror=True)
    items = np.concatenate([order(np.arange(first, first + 10_000)) for first in range(0, 4 * size, 10_000)])
    right = all((np.bincount(items[first:first + 2 * size], minlength=2 * size) == 1).all() for first in (0, 2 * size))
    each = (np.sort(items[:size] % size) == np.arange(size)).all()
    print(f'{size:.0e} images, mirrored: every item once in two passes: {right}; every image once in a pass: {each}')
    return dict(case='permutation', size=size, right=bool(right and each))


@click.command(context_settings={'show_default': True})
@click.option('--data', default='demo', help="Zip to compare with, or 'demo'.")
@click.option('--images', type=click.IntRange(1), default=600, help='Images of a turn.')
@click.option('--json', 'json_file', type=click.Path(dir_okay=False, path_type=Path), help='Write the figures here.')
def main(data, images, json_file):
    """Measure shards, and check what they promise."""
    import torch

    torch.set_num_threads(1)
    side_by_side.header()
    figures = [proven()]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        figures += [simulated(folder), throughput(data, folder, images, 64), flaky(folder, images)]
        for resolution, count in ((256, 300), (1024, 30)):
            inner = folder / str(resolution)
            inner.mkdir()
            synthetic(inner / 'set.zip', resolution, count)
            figures.append(throughput(inner / 'set.zip', inner, count, resolution))
    side_by_side.write(figures, json_file)


if __name__ == '__main__':
    main()
