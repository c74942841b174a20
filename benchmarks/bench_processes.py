"""What processes exchange in a step of each preset, and how long gloo takes for it on this machine with 1, 2 and 4 of them.

Gradients are summed over all processes as one flat tensor a phase, in float32; a ring sends and receives 2 (P - 1) / P of its bytes from
each of P processes. Weights go out once, at the start; images, latents and labels never do.
"""

import json
import os
import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path

import click
import side_by_side

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


def measured(processes, size, repeats=5):
    """Median seconds of a sum over some processes on this machine."""
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        port = str(probe.getsockname()[1])
    shared = {**os.environ, 'WORLD_SIZE': str(processes), 'MASTER_ADDR': '127.0.0.1', 'MASTER_PORT': port}
    command = [sys.executable, __file__, '--worker', f'{size},{repeats}']
    children = [subprocess.Popen(command, cwd=side_by_side.ROOT, stdout=subprocess.PIPE, text=True,
                                 env={**shared, 'RANK': str(rank), 'LOCAL_RANK': str(rank)}) for rank in range(processes)]
    printed = [child.communicate()[0] for child in children]
    if any(child.returncode for child in children):
        raise click.ClickException('a process failed')
    return json.loads(printed[0])


@click.command()
@click.option('--worker', 'own', hidden=True)
@click.option('--json', 'json_file', type=click.Path(dir_okay=False, path_type=Path), help='Write the figures here.')
def main(own, json_file):
    """Compute what is exchanged, and measure how long that takes here."""
    if own:
        return worker(*map(int, own.split(',')))
    side_by_side.header()
    from training.plugins import presets

    figures = []
    for name in presets():
        for resolution in (64,) if name in SMALL else (256, 1024):
            batch, of_G, of_D, size = exchanged(name, resolution)
            figures.append(dict(preset=name, resolution=resolution, batch=batch, G=of_G, D=of_D, bytes_per_step=size))
            print(f'{name:15} {resolution:5}  batch {batch:3}  G {of_G / 1e6:6.1f} M  D {of_D / 1e6:5.1f} M  {size / 1e6:7.1f} MB a step')
    for processes in (1, 2, 4):
        for size in (12_000_000, 100_000_000):
            seconds = measured(processes, size) if processes > 1 else 0.0  # nothing to exchange
            figures.append(dict(processes=processes, bytes=size, seconds=seconds))
            print(f'{processes} processes, {size / 1e6:.0f} MB: {seconds:.3f} s')
    side_by_side.write(figures, json_file)


if __name__ == '__main__':
    main()
