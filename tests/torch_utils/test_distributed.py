"""One process; several are in tests/training/test_training_loop.py."""

import random

import numpy as np
import pytest
import torch

from torch_utils import distributed


def draws():
    return random.random(), np.random.rand(), torch.rand(1).item()


def test_one_process_is_rank_0_of_1(monkeypatch):
    monkeypatch.delenv('WORLD_SIZE', raising=False)
    assert distributed.init('cpu') == torch.device('cpu')
    assert (distributed.rank(), distributed.world_size(), distributed.is_main()) == (0, 1, True)
    tensor = torch.tensor([2.0, 3.0])
    for combine in (distributed.sum_, distributed.max_, distributed.broadcast_):
        assert combine(tensor) is tensor and tensor.tolist() == [2, 3]
    distributed.barrier()
    distributed.shutdown()


def test_torchrun_variables_are_read_before_the_group_is_up(monkeypatch):
    monkeypatch.setenv('WORLD_SIZE', '4')
    monkeypatch.setenv('RANK', '3')
    assert (distributed.rank(), distributed.world_size(), distributed.is_main()) == (3, 4, False)


@pytest.mark.parametrize('device, expected', [
    ('cuda', [('device', 1), ('group', 'nccl', torch.device('cuda', 1))]),
    ('cpu', [('group', 'gloo', None)]),
])
def test_the_group_knows_its_device_and_waits_for_long_work(monkeypatch, device, expected):
    """set_device comes first; 10 minutes, the default, are less than what the main process may compute alone."""
    done, waits = [], []
    monkeypatch.setenv('WORLD_SIZE', '2')
    monkeypatch.setenv('LOCAL_RANK', '1')
    monkeypatch.setattr('torch.cuda.set_device', lambda device: done.append(('device', torch.device(device).index)))
    monkeypatch.setattr('torch.cuda.current_device', lambda: done[0][1])
    monkeypatch.setattr('torch.distributed.init_process_group', lambda backend, timeout, device_id=None:
                        done.append(('group', backend, device_id)) or waits.append(timeout.total_seconds()))
    monkeypatch.setattr(distributed, 'allow_tf32', lambda allowed: None)
    monkeypatch.setattr('torch.backends.cudnn.benchmark', torch.backends.cudnn.benchmark)
    assert distributed.init(device).type == device
    assert done == expected and waits[0] >= 3600


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
