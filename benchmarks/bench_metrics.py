"""Features per second of each feature network at hand, and what a score's time goes into.

python benchmarks/bench_metrics.py [--network=FILE] [--data=PATH] [--num=500] [--images=64] [--json=FILE]

`inception-random` is the 2015 Inception with random weights: its speed is that of the real one. Shares are of fd and kd together.
"""

import json
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))


def networks():
    """{name: Detector} of what needs no download."""
    from metrics import detectors
    from metrics.inception import Inception

    random = detectors.InceptionWeights('inception-random', 'random', Inception().state_dict())
    return {'efficientnet-lite0': detectors.load('efficientnet-lite0'), 'inception-random': random.eval()}


def features_per_second(detector, images, size=64, batch=32):
    """How many images of size x size a network takes in a second, the first batch left out."""
    import torch

    pixels = torch.randint(0, 256, (batch, 3, size, size), dtype=torch.uint8)
    with torch.no_grad():
        detector.features(pixels)
        rounds = -(-images // batch)
        begin = time.perf_counter()
        for _ in range(rounds):
            detector.features(pixels)
    return rounds * batch / (time.perf_counter() - begin)


def shares(network, data, num):
    """{activity: seconds} of fd and kd with efficientnet-lite0, real statistics not yet cached."""
    from metrics.metric_main import Subject, evaluate
    from metrics.registry import parse
    from training.checkpoint import load_networks
    from training.dataset import ImageDataset

    G = load_networks(network, only=('G_ema',))['G_ema']
    metrics = [parse(f'{kind}_efficientnet-lite0').with_num(num) for kind in ('fd', 'kd')]
    with tempfile.TemporaryDirectory() as cache, ImageDataset(data) as dataset:
        *_rest, last = evaluate(metrics, Subject(dataset, G, cache=Path(cache)))
    return last.facts['seconds_of']


@click.command(context_settings={'show_default': True})
@click.option('--network', metavar='FILE', default=str(ROOT / 'assets' / 'emoji.safetensors'), help='Snapshot to score.')
@click.option('--data', metavar='PATH', default='demo', help='Its real images.')
@click.option('--num', type=click.IntRange(2), default=500, help='Images to draw for the shares.')
@click.option('--images', type=click.IntRange(1), default=64, help='Images for each speed.')
@click.option('--json', 'json_path', type=Path, help='Where to write the figures.')
def main(network, data, num, images, json_path):
    """Speed of feature networks, and shares of time of a score."""
    import torch

    commit = subprocess.run(['git', 'rev-parse', '--short', 'HEAD'], cwd=ROOT, capture_output=True, text=True).stdout.strip() or 'unknown'
    figures = {'machine': f'{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}', 'commit': commit,
               'date': time.strftime('%Y-%m-%d'), 'features_per_second': {}}
    print(f'{figures["machine"]}, commit {commit}, {figures["date"]}')
    for name, detector in networks().items():
        figures['features_per_second'][name] = speed = features_per_second(detector, images)
        print(f'{name}: {speed:.1f} images/s')
    figures['seconds_of'] = seconds = shares(network, data, num)
    total = sum(seconds.values())
    print(f'{num} drawn images against {data}: {total:.1f} s, '
          + ', '.join(f'{name} {value / total:.0%}' for name, value in seconds.items()))
    if json_path:
        from dnnlib.util import atomic_path

        with atomic_path(json_path) as temporary:
            temporary.write_text(json.dumps(figures, indent=2), encoding='utf-8')


if __name__ == '__main__':
    main()
