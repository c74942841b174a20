"""One process; several are in tests/training/test_training_loop.py."""

import random

import numpy as np
import torch

from torch_utils import distributed


def draws():
    return random.random(), np.random.rand(), torch.rand(1).item()


def test_one_process_is_rank_0_of_1(monkeypatch):
    monkeypatch.delenv('WORLD_SIZE', raising=False)
    assert distributed.init('cpu') == torch.device('cpu')
    assert (distributed.rank(), distributed.world_size(), distributed.is_main()) == (0, 1, True)
    tensor = torch.tensor([2.0, 3.0])
    assert distributed.sum_(tensor) is tensor and distributed.max_(tensor) is tensor and tensor.tolist() == [2, 3]
    distributed.barrier()
    distributed.shutdown()


def test_torchrun_variables_are_read_before_the_group_is_up(monkeypatch):
    monkeypatch.setenv('WORLD_SIZE', '4')
    monkeypatch.setenv('RANK', '3')
    assert (distributed.rank(), distributed.world_size(), distributed.is_main()) == (3, 4, False)


def test_seed_sets_all_generators():
    distributed.seed(1, 0, 64)
    first = draws()
    distributed.seed(1, 0, 64)
    assert draws() == first
    for other in ((2, 0, 64), (1, 1, 64), (1, 0, 96)):
        distributed.seed(*other)
        assert all(a != b for a, b in zip(draws(), first, strict=True))


def test_mixed_seeds_tell_words_and_order_apart():
    seeds = {distributed.mix_seed(*parts) for parts in ((0, 1), (1, 0), (0, 'G'), (0, 'D'), (0,), (2 ** 32 - 1, 10 ** 9, 'D_reg'))}
    assert len(seeds) == 6 and all(0 <= seed < 2 ** 63 for seed in seeds)


def test_print0_is_silent_in_other_processes(monkeypatch, capsys):
    monkeypatch.setenv('RANK', '1')
    distributed.print0('hello')
    monkeypatch.setenv('RANK', '0')
    distributed.print0('hello', 'there')
    assert capsys.readouterr().out == 'hello there\n'
