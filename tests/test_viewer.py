"""viewer.py: what it prints, and what it says to mistakes."""

import signal
import socket
import subprocess
import sys

import pytest
import requests

import viewer
from tests import tiny_snapshots
from tests.helpers import ROOT
from tests.tiny_snapshots import mistake

pytest.importorskip('inr')
NOT_NEEDED = {'PIL', 'psutil', 'scipy', 'triton', 'tifffile', 'training.config', 'torch.utils.tensorboard'}  # to show a first picture


def test_it_prints_an_address_that_answers_imports_what_it_needs_and_ends_quietly(tmp_path):
    network = tiny_snapshots.save(tmp_path / 'a.safetensors', tiny_snapshots.inr())
    command = [sys.executable, '-X', 'importtime', ROOT / 'viewer.py', f'--network={network}', '--port=0', '--no-browser']
    errors = tmp_path / 'stderr'
    with errors.open('w') as file, subprocess.Popen(command, stdout=subprocess.PIPE, stderr=file, text=True) as process:
        address = process.stdout.readline().strip()
        try:
            assert address.startswith('http://127.0.0.1:')
            assert requests.get(f'{address}/info').json()['size'] == [16, 16]
            assert requests.get(f'{address}/tile/4/8/8').status_code == 200
        finally:
            process.send_signal(signal.SIGINT)
        out, _ = process.communicate()
    assert process.returncode == 0 and str(network) in out
    times, imported = zip(*(line.rsplit('|', 1) for line in errors.read_text().splitlines()), strict=True)  # and nothing else on stderr
    assert all(time.startswith('import time:') for time in times)
    imported = {name.strip() for name in imported}
    assert 'viewing.drawing' in imported and not NOT_NEEDED & imported


def test_mistakes(tmp_path):
    with socket.create_server(('127.0.0.1', 0)) as taken:
        for args, said in [([f'--network={tmp_path}/none'], 'none'),
                           ([f'--port={taken.getsockname()[1]}'], 'cannot listen there'),
                           (['--host=no.such.host.invalid'], 'no such address'),
                           (['--port=70000'], 'port'), (['--device=tpu'], '--device=tpu')]:
            assert said in mistake(viewer.main, '--port=0', '--no-browser', *args)
