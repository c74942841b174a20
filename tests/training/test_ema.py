"""The average of the generator."""

import pytest
import torch

from training.ema import ema_beta, update_ema


def test_half_life():
    assert ema_beta(batch=32, kimg=10, rampup=None, images=0) ** (10_000 / 32) == pytest.approx(0.5)


def test_ramp_shortens_the_half_life_at_the_start():
    assert ema_beta(32, kimg=10, rampup=0.05, images=0) == 0
    assert ema_beta(32, kimg=10, rampup=0.05, images=64_000) == pytest.approx(0.5 ** (32 / 3200))
    assert ema_beta(32, kimg=10, rampup=0.05, images=10 ** 9) == ema_beta(32, kimg=10, rampup=None, images=0)


def test_no_half_life_copies():
    assert ema_beta(32, kimg=0, rampup=None, images=5) == 0


def test_update_averages_parameters_and_copies_buffers():
    old, new = (torch.nn.BatchNorm1d(1) for _ in range(2))
    with torch.no_grad():
        old.weight.fill_(1)
        new.weight.fill_(5)
        new.running_mean.fill_(7)
    update_ema(old, new, beta=0.75)
    assert old.weight.item() == pytest.approx(0.75 * 1 + 0.25 * 5)
    assert old.running_mean.item() == 7
    assert new.weight.item() == 5
