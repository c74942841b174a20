"""What processes exchange in a step of each preset, and what a step takes on this machine with 1, 2 and 4 of them (gloo).

Gradients are summed over all processes as one flat tensor a phase, in float32; a ring sends and receives 2 (P - 1) / P of its bytes from
each of P processes. Weights go out once, at the start; images, latents and labels never do.

Bytes are measured on the loopback, where others may send too; alone in a network of its own (as root):
unshare --net sh -c 'ip link set lo up; GLOO_SOCKET_IFNAME=lo .venv/bin/python benchmarks/bench_processes.py --steps=4'
"""

import io
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

import click
import side_by_side
from PIL import Image

SMALL = ('stylegan2-tiny', 'inr-tiny', 'inr-small', 'paper-tiny')


def exchanged(name, resolution):
    """(batch, parameters of G, of D, bytes of gradients a step, averaged over the intervals) of a preset."""
    import torch

    from training import config, plugins
    from training.loss import phases
    from training.plugins import presets

    data = config.DataConfig('x.zip', '', resolution, 3, 1, 0, None, False, None)
    settings = config.build(name, presets()[name], data, 'cuda')
    with torch.device('meta'):
        networks = {'G': plugins.build_generator(settings), 'D': plugins.build_discriminator(settings)}
    counts = {key: sum(p.numel() for p in network.parameters()) for key, network in networks.items()}
    return settings.run.batch, counts['G'], counts['D'], sum(4 * counts[phase[0]] / interval for phase, interval in phases(settings.loss))


def worker(size, repeats):
    """One of the processes: prints the median seconds of a sum of `size` bytes."""
    import torch

    from torch_utils import distributed

    torch.set_num_threads(1)
    distributed.init()
    tensor, times = torch.zeros(size // 4), []
    for _ in range(repeats):
        distributed.barrier()
        began = time.perf_counter()
        distributed.sum_(tensor)
        times.append(time.perf_counter() - began)
    distributed.print0(json.dumps(statistics.median(times)))
    distributed.barrier()
    distributed.shutdown()


def step_worker(name, resolution, steps, data):
    """One of the processes: prints what steps take in all of them. The first is not counted; it has the penalties too."""
    import psutil
    import torch

    from torch_utils import distributed
    from training import config, plugins
    from training.dataset import ImageDataset
    from training.training_loop import Training

    torch.set_num_threads(1)
    distributed.init()
    dataset = ImageDataset(data)
    described = config.DataConfig(data, dataset.digest, resolution, 3, len(dataset), 0, None, False, None)
    training = Training(config.build(name, plugins.presets()[name], described), dataset)
    batch = training.settings.run.batch // distributed.world_size()
    for step in range(steps + 1):
        if step == 1:
            distributed.barrier()
            began, used, sent = time.perf_counter(), time.process_time(), psutil.net_io_counters(pernic=True)['lo'].bytes_sent
        training.step(torch.zeros([batch, 3, resolution, resolution], dtype=torch.uint8), torch.zeros([batch, 0]))
    used = distributed.gathered(time.process_time() - used)
    sent = psutil.net_io_counters(pernic=True)['lo'].bytes_sent - sent
    gradients = 4 * sum(p.numel() for network in (training.G, training.D) for p in network.parameters())
    distributed.print0(json.dumps({'preset': name, 'processes': len(used), 'cpu_seconds_per_step': sum(used) / steps,
                                   'seconds_per_step': (time.perf_counter() - began) / steps, 'sent_per_step': sent / steps,
                                   'expected_per_step': 2 * (len(used) - 1) * gradients}))
    distributed.barrier()
    distributed.shutdown()


def together(processes, *options):
    """What the main one of some processes on this machine prints."""
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        port = str(probe.getsockname()[1])
    shared = {**os.environ, 'WORLD_SIZE': str(processes), 'MASTER_ADDR': '127.0.0.1', 'MASTER_PORT': port}
    command = [sys.executable, __file__, *options]
    children = [subprocess.Popen(command, cwd=side_by_side.ROOT, stdout=subprocess.PIPE, text=True,
                                 env={**shared, 'RANK': str(rank), 'LOCAL_RANK': str(rank)}) for rank in range(processes)]
    printed = [child.communicate()[0] for child in children]
    if any(child.returncode for child in children):
        raise click.ClickException('a process failed')
    return json.loads(printed[0])


def of_steps(preset, resolution, steps):
    """Figures of steps with 1, 2 and 4 processes, each printed too."""
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / 'set.zip'
        with zipfile.ZipFile(data, 'w') as archive:
            Image.new('RGB', (resolution, resolution)).save(picture := io.BytesIO(), 'png')
            for i in range(16):
                archive.writestr(f'{i:02d}.png', picture.getvalue())
        for processes in (1, 2, 4):
            each = together(processes, '--worker', str(data), f'--preset={preset}', f'--resolution={resolution}', f'--steps={steps}')
            used, sent = each['cpu_seconds_per_step'], each['sent_per_step'] / 1e6
            print(f'{preset}, {processes} processes: a step takes {used:.2f} s of the CPU in all, {each["seconds_per_step"]:.2f} s of '
                  f'the clock, {sent:.1f} MB ({each["expected_per_step"] / 1e6:.1f} by arithmetic)', flush=True)
            yield each


@click.command()
@click.option('--worker', 'own', hidden=True)
@click.option('--json', 'json_file', type=click.Path(dir_okay=False, path_type=Path), help='Write the figures here.')
@click.option('--preset', default='inr-tiny', show_default=True, help='Of the steps.')
@click.option('--resolution', default=64, show_default=True, help='Of the steps.')
@click.option('--steps', type=click.IntRange(0), default=0, show_default=True, help='Measure so many steps of a run, and nothing else.')
def main(own, json_file, preset, resolution, steps):
    """Compute what is exchanged, and measure how long that takes here."""
    if own and steps:
        return step_worker(preset, resolution, steps, own)
    if own:
        return worker(*map(int, own.split(',')))
    side_by_side.header()
    if steps:
        return side_by_side.write(list(of_steps(preset, resolution, steps)), json_file)
    from training.plugins import presets

    figures = []
    for name in presets():
        for resolution in (64,) if name in SMALL else (256, 1024):
            batch, of_G, of_D, size = exchanged(name, resolution)
            figures.append(dict(preset=name, resolution=resolution, batch=batch, G=of_G, D=of_D, bytes_per_step=size))
            print(f'{name:15} {resolution:5}  batch {batch:3}  G {of_G / 1e6:6.1f} M  D {of_D / 1e6:5.1f} M  {size / 1e6:7.1f} MB a step')
    for processes in (1, 2, 4):
        for size in (12_000_000, 100_000_000):
            seconds = together(processes, '--worker', f'{size},5') if processes > 1 else 0.0  # nothing to exchange
            figures.append(dict(processes=processes, bytes=size, seconds=seconds))
            print(f'{processes} processes, {size / 1e6:.0f} MB: {seconds:.3f} s')
    side_by_side.write(figures, json_file)


if __name__ == '__main__':
    main()
