"""Proves that a run of several processes outlives the loss of one: two torchrun agents on this machine, of which a process is killed.

Three runs of the same command on small random pictures: nothing happens; the second agent's process is killed by SIGKILL, both start again;
the second agent and its process are killed for good, the first goes on alone. Then the last snapshots are compared. A few minutes on a CPU.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click
import numpy as np
import psutil

ROOT = Path(__file__).resolve().parents[1]


def make_images(path, count=64, size=16):
    """A zip of random pictures."""
    import io
    import zipfile

    from PIL import Image

    random = np.random.RandomState(0)
    with zipfile.ZipFile(path, 'w') as archive:
        for i in range(count):
            file = io.BytesIO()
            Image.fromarray(random.randint(0, 256, (size, size, 3), np.uint8)).save(file, 'png')
            archive.writestr(f'{i:03d}.png', file.getvalue())


def agents(folder, data, kimg, nodes, port):
    """Two torchrun agents of one job, each with one process."""
    command = [sys.executable, '-m', 'torch.distributed.run', f'--nnodes={nodes}', '--nproc-per-node=1', '--max-restarts=3',
               '--rdzv-backend=c10d', f'--rdzv-endpoint=127.0.0.1:{port}', f'--rdzv-id={folder.name}',
               '--rdzv-conf=last_call_timeout=60',  # so that the second is there at the first start
               'train.py', '--cfg=inr-tiny', '--width=0.25', '--batch=4', f'--kimg={kimg}', '--tick=0.08', '--snap=1', '--img-snap=1000',
               '--keep-last=0', '--device=cpu', f'--data={data}', f'--outdir={folder}']
    made = []
    for number in (0, 1):
        log = open(folder / f'agent{number}.log', 'w')
        made.append(subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log, start_new_session=True,
                                     env={**os.environ, 'OMP_NUM_THREADS': '1'}))
        while number == 0 and not listens(port) and made[0].poll() is None:
            time.sleep(0.1)  # the first keeps the store
    return made


def listens(port):
    with socket.socket() as probe:
        return probe.connect_ex(('127.0.0.1', port)) == 0


def free_port():
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        return probe.getsockname()[1]


def snapshots(folder):
    return sorted(folder.glob('0*/network-snapshot-*.safetensors'))


def trained(folder, data, kimg, nodes='2', kill=None, after=0):
    """Runs to the end. kill: 'process' or 'agent', the second's, once there are `after` snapshots. Returns (last snapshot, facts)."""
    folder.mkdir()
    pair, facts = agents(folder, data, kimg, nodes, free_port()), {}
    if kill:
        while len(snapshots(folder)) < after:
            if any(agent.poll() is not None for agent in pair):
                raise SystemExit('an agent ended early\n' + ''.join(path.read_text() for path in folder.glob('agent*.log')))
            time.sleep(0.05)
        [worker] = psutil.Process(pair[1].pid).children()
        if kill == 'agent':
            os.kill(pair[1].pid, signal.SIGKILL)
        worker.send_signal(signal.SIGKILL)
        facts['killed_after_kimg'], facts['killed'] = after * 0.08, kill
        began, before = time.monotonic(), len(snapshots(folder))
        while len(snapshots(folder)) <= before and pair[0].poll() is None:
            time.sleep(0.1)
        facts['seconds_to_the_next_snapshot'] = round(time.monotonic() - began, 1)
    codes = [agent.wait() for agent in pair]
    facts['exit_codes'] = codes
    facts['lines'] = [line.strip() for number in (0, 1) for line in (folder / f'agent{number}.log').read_text().splitlines()
                      if line.startswith(('Error: ', 'Resuming '))]
    facts['run_folders'] = len(list(folder.glob('0*/')))
    return snapshots(folder)[-1], facts


def difference(one, other):
    """||a - b|| / ||b|| over all weights of two snapshots, and whether they are equal bit for bit."""
    from safetensors.numpy import load_file

    a, b = load_file(one), load_file(other)
    assert a.keys() == b.keys() and one.name == other.name, (one, other)
    squares = [(np.square(a[key].astype(np.float64) - b[key]).sum(), np.square(b[key].astype(np.float64)).sum()) for key in a]
    over, under = np.sum(squares, axis=0)
    return float(np.sqrt(over / under)), all(a[key].tobytes() == b[key].tobytes() for key in a)


@click.command(context_settings={'show_default': True})
@click.option('--kimg', default=0.8, help='Length of each run.')
@click.option('--after', default=3, help='Snapshots before something is killed; there is one every 0.08 kimg.')
@click.option('--kill', type=click.Choice(['process', 'agent', 'both']), default='both', help='What is killed, in a run for each.')
@click.option('--json', 'json_file', type=click.Path(path_type=Path), help='Write the figures here.')
def main(kimg, after, kill, json_file):
    """Kill processes of a run of two and compare what comes out."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_images(folder / 'set.zip')
        whole, facts = trained(folder / 'whole', folder / 'set.zip', kimg)
        found = {'whole': facts}
        for nodes, what in (('2', 'process'), ('1:2', 'agent')):
            if kill in (what, 'both'):
                last, facts = trained(folder / what, folder / 'set.zip', kimg, nodes, what, after)
                relative, equal = difference(last, whole)
                found[what] = {**facts, 'relative_difference': relative, 'bit_for_bit': equal}
        print(json.dumps(found, indent=1))
        if json_file:
            json_file.write_text(json.dumps(found, indent=1) + '\n')


if __name__ == '__main__':
    main()
