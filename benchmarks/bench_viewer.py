"""How long a viewer's page waits: from the command to the first picture, for a tile that is drawn, and for one from the cache.

python benchmarks/bench_viewer.py [--network=FILE] [--tiles=40] [--starts=3] [--json=FILE]

Tiles are fetched one after the other over HTTP from viewer.py in a process of its own, of seeds not seen before, in sight at the trained
frame and zoomed in 4 and 64 times. A figure is {case, p50_ms, p95_ms}; work_ms is the processor's time a tile took, which other programs
on the machine do not lengthen much. One start goes before those that count: it leaves Python's bytecode beside the sources, as on anybody's
machine, whatever this environment says of PYTHONDONTWRITEBYTECODE. Without it each start compiles for a tenth of a second.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import click
from side_by_side import ROOT, header

LEVELS = {'the frame': (4, 8, 8), '4 times nearer': (6, 34, 33), '64 times nearer': (10, 541, 523)}


class Viewer:
    """viewer.py in a process of its own. A context manager."""

    def __init__(self, network):
        self.begun = time.perf_counter()
        command = [sys.executable, str(ROOT / 'viewer.py'), '--port=0', '--no-browser', *([f'--network={network}'] if network else [])]
        environment = {name: value for name, value in os.environ.items() if name != 'PYTHONDONTWRITEBYTECODE'}
        self.process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, env=environment)
        self.address = self.process.stdout.readline().strip()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.process.send_signal(signal.SIGINT)
        self.process.wait()

    def work(self):
        """Seconds of processor time so far."""
        fields = Path(f'/proc/{self.process.pid}/stat').read_text().rpartition(')')[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf('SC_CLK_TCK')


def quantiles(milliseconds):
    found = sorted(milliseconds)
    return {'p50_ms': found[len(found) // 2], 'p95_ms': found[min(round(0.95 * len(found)), len(found) - 1)]}


@click.command()
@click.option('--network', help='As of viewer.py.')
@click.option('--tiles', default=40, show_default=True, help='Of each kind.')
@click.option('--starts', default=3, show_default=True, help='Times the viewer is started.')
@click.option('--json', 'json_file', help='Also write the figures here.')
def main(network, tiles, starts, json_file):
    """Print p50 and p95 in milliseconds."""
    import requests

    header()
    figures, first, work = [], [], []
    for _ in range(starts + 1):
        with Viewer(network) as viewer:
            requests.get(f'{viewer.address}/tile/2/2/2').raise_for_status()
            first.append(1000 * (time.perf_counter() - viewer.begun))
            work.append(1000 * viewer.work())
    del first[0], work[0]
    figures.append({'case': 'the first picture after the command'} | quantiles(first) | {'work_ms': sum(work) / starts})
    with Viewer(network) as viewer, requests.Session() as session:
        def fetch(path):
            start = time.perf_counter()
            session.get(f'{viewer.address}/{path}').raise_for_status()
            return 1000 * (time.perf_counter() - start)

        fetch('tile/2/2/2')
        seed = 1000
        for name, (level, x, y) in LEVELS.items():
            paths = [f'tile/{level}/{x}/{y}?seed={seed + i}' for i in range(tiles)]
            seed += tiles
            before = viewer.work()
            figures.append({'case': f'a tile, {name}'} | quantiles([fetch(path) for path in paths]))
            figures[-1]['work_ms'] = 1000 * (viewer.work() - before) / tiles
        figures.append({'case': 'the same from the cache'} | quantiles([fetch(path) for path in paths]))
    for figure in figures:
        work = f'{figure["work_ms"]:9.1f} ms of work' if 'work_ms' in figure else ''
        print(f'{figure["case"]:40} p50 {figure["p50_ms"]:8.1f} ms   p95 {figure["p95_ms"]:8.1f} ms{work}', flush=True)
    if json_file:
        Path(json_file).write_text(json.dumps(figures, indent=2))


if __name__ == '__main__':
    main()
