"""One process or several: torchrun's variables decide. Every function here works, and costs nothing, in a single process."""

import datetime
import os
import random
import sys
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from dnnlib.util import UserError
from torch_utils.misc import allow_tf32
from torch_utils.peers import PeerLost, Watch, differences, shared_store

TIMEOUT = datetime.timedelta(hours=2)  # of a wait for processes that are well: what one of them computes alone takes minutes

_watch: list[Watch] = []  # of this process's group, empty without one


def own_device(device: str) -> torch.device:
    """The device of this process: of several on a machine, each takes its own GPU where 'cuda' is asked for."""
    return torch.device('cuda', int(os.environ.get('LOCAL_RANK', '0'))) if device == 'cuda' else torch.device(device)


def init(device: str = 'cpu', tf32: bool = False) -> torch.device:
    """Joins the other processes if torchrun started several, and returns this process's device.

    device: 'cpu', 'cuda' (of several processes on a machine each takes its own GPU) or 'cuda:1'
    tf32:   see misc.allow_tf32
    """
    local = own_device(device)
    if local.type == 'cuda':
        torch.cuda.set_device(local)  # before the group is made, which else would put every process's first memory on GPU 0
        allow_tf32(tf32)
        torch.backends.cudnn.benchmark = True  # shapes stay the same from step to step
    if int(os.environ.get('WORLD_SIZE', '1')) > 1 and not dist.is_initialized():
        if local.type == 'cuda':
            dist.init_process_group('nccl', timeout=TIMEOUT, device_id=torch.device('cuda', torch.cuda.current_device()))
        else:
            dist.init_process_group('gloo', timeout=TIMEOUT)
        if dist.is_initialized():
            session = gathered(os.urandom(8).hex())[0]
            _watch.append(Watch(shared_store(session), rank(), world_size()))
    return local


def shutdown() -> None:
    """Leaves the group of processes; while an exception is handled the others hear why."""
    if _watch:
        problem = sys.exc_info()[1]
        _watch.pop().stop('' if problem is None else ' '.join(str(problem).split()) or type(problem).__name__)
    if dist.is_initialized():
        dist.destroy_process_group()


def at(stage: str, images: int | None = None) -> None:
    """Tells the other processes, in case this one ends, where it is. images: seen so far; None: as before"""
    if _watch:
        _watch[0].at(stage, images)


def rank() -> int:
    """Number of this process, 0 in a single one."""
    return dist.get_rank() if dist.is_initialized() else int(os.environ.get('RANK', '0'))


def world_size() -> int:
    """Number of processes."""
    return dist.get_world_size() if dist.is_initialized() else int(os.environ.get('WORLD_SIZE', '1'))


def is_main() -> bool:
    """Whether this process writes the files and prints the lines."""
    return rank() == 0


def together(collective: Callable, *args) -> Any:
    """Calls a function of torch.distributed. Raises PeerLost where it fails because another process has ended."""
    try:
        return collective(*args)
    except RuntimeError as err:
        if not _watch:
            raise
        raise PeerLost(_watch[0].why(str(err))) from err


def barrier() -> None:
    """Waits until all processes are here."""
    if dist.is_initialized():
        together(dist.barrier)


def sum_(tensor: torch.Tensor) -> torch.Tensor:
    """Replaces a tensor, in place, by its sum over all processes, and returns it."""
    if dist.is_initialized():
        together(dist.all_reduce, tensor)
    return tensor


def broadcast_(tensor: torch.Tensor, source: int = 0) -> torch.Tensor:
    """Replaces a tensor, in place, by that of a process, the main one's by default, and returns it."""
    if dist.is_initialized():
        together(dist.broadcast, tensor, source)
    return tensor


def max_(tensor: torch.Tensor) -> torch.Tensor:
    """Replaces a tensor, in place, by its largest values over all processes, and returns it."""
    if dist.is_initialized():
        together(dist.all_reduce, tensor, dist.ReduceOp.MAX)
    return tensor


def gathered(value: Any) -> list[Any]:
    """What each process has here: numbers, words, lists and dicts of them."""
    if not dist.is_initialized():
        return [value]
    found = [None] * world_size()
    together(dist.all_gather_object, found, value)
    return found


def expect_agreement(facts: dict[str, object]) -> None:
    """Raises UserError, in all processes, where they do not have the same facts: {name: value}."""
    problem = differences(gathered({name: str(value) for name, value in facts.items()}))
    if problem is not None:
        raise UserError(f'the processes do not begin with the same: {problem}. Start all with the same command, code, packages and data')


def print0(*args, **kwargs) -> None:
    """print(), in the main process only."""
    if is_main():
        print(*args, **kwargs, flush=True)


def mix_seed(*parts: int | str) -> int:
    """One 63-bit seed out of several numbers and words; any that differs gives another, unrelated one."""
    words = [zlib.crc32(part.encode()) if isinstance(part, str) else part for part in parts]
    return int(np.random.SeedSequence(words).generate_state(1, np.uint64)[0] >> np.uint64(1))


def seed(*parts: int | str) -> None:
    """Seeds Python, numpy and torch (all devices) from several numbers and words, such as (seed, rank, images seen)."""
    value = mix_seed(*parts)
    random.seed(value)
    np.random.seed(value % 2**32)
    torch.manual_seed(value)
