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


def test_it_prints_an_address_that_answers_and_ends_quietly(tmp_path):
    network = tiny_snapshots.save(tmp_path / 'a.safetensors', tiny_snapshots.inr())
    command = [sys.executable, ROOT / 'viewer.py', f'--network={network}', '--port=0', '--no-browser']
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        address = process.stdout.readline().strip()
        try:
            assert address.startswith('http://127.0.0.1:')
            assert requests.get(f'{address}/info').json()['size'] == [16, 16]
        finally:
            process.send_signal(signal.SIGINT)
        out, err = process.communicate()
    assert (process.returncode, err) == (0, '') and str(network) in out


def test_mistakes(tmp_path):
    with socket.create_server(('127.0.0.1', 0)) as taken:
        for args, said in [([f'--network={tmp_path}/none'], 'none'),
                           ([f'--port={taken.getsockname()[1]}'], 'cannot listen there'),
                           (['--host=no.such.host.invalid'], 'no such address'),
                           (['--port=70000'], 'port'), (['--device=tpu'], '--device=tpu')]:
            assert said in mistake(viewer.main, '--port=0', '--no-browser', *args)
