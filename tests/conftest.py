"""Runs every test with one thread, a fixed seed and a download cache of its own."""

import os

import pytest

os.environ.setdefault('OMP_NUM_THREADS', '1')  # before torch is imported; tests are too small to gain from more


@pytest.fixture(autouse=True)
def _isolated(tmp_path_factory, monkeypatch):
    import torch

    torch.manual_seed(0)
    monkeypatch.setenv('INR_CACHE_DIR', str(tmp_path_factory.getbasetemp() / 'cache'))
