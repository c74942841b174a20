"""Runs every test with one thread, a fixed seed and a download cache of its own."""

import os

import pytest

os.environ.setdefault('OMP_NUM_THREADS', '1')  # before torch is imported; tests are too small to gain from more

import torch  # noqa: E402

if not torch.cuda.is_available():
    os.environ.setdefault('TRITON_INTERPRET', '1')  # before triton is imported: tests/inr/ops/test_layer_triton.py


@pytest.fixture(autouse=True)
def _isolated(tmp_path_factory, monkeypatch):
    torch.manual_seed(0)
    monkeypatch.setenv('INR_CACHE_DIR', str(tmp_path_factory.getbasetemp() / 'cache'))
