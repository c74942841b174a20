"""What only training needs of a snapshot, training-state-<kimg>.pt: read without running code, and checked before anything is done with it.

The optimizers' moments go to fused kernels, which trust their shapes; so shapes, types and values of all that is read are compared with
what this run would have written itself. Numbers for the eye alone, the statistics of an unfinished tick, may be infinite or NaN.
"""

import math
from pathlib import Path
from typing import Any

import torch

from dnnlib.util import UserError
from training.tensors import read_zip

MOST_VALUES = 2_000_000  # of a state; each parameter has about 20
MOMENTS = ('exp_avg', 'exp_avg_sq')


def read_state(path: Path) -> dict[str, Any]:
    """The training state in a file, as plain tensors and numbers; the checksums that the zip holds are verified. Raises UserError."""
    try:
        state = read_zip(path, MOST_VALUES)
        if not isinstance(state, dict):
            raise ValueError(f'it holds a {type(state).__name__}')
        return state
    except FileNotFoundError:
        raise
    except Exception as err:  # zipfile raises whatever a damaged zip leads to
        reason = ' '.join(str(err).split())[:100] if isinstance(err, ValueError) else type(err).__name__
        raise UserError(f'{path} is damaged ({reason}): remove it and resume from the snapshot before') from err


def expect_state(path: Path, state: dict, optimizers: dict[str, torch.optim.Optimizer], label_dim: int = 0, look_dim: int = 0) -> None:
    """Raises UserError for a state that is not one of a run with these optimizers, labels and looks. path: for messages."""
    try:
        _expect(state)
        if look_dim and state.get('looks') is not None:  # not there before the first step at full size
            _expect_looks(_entry(state, 'looks', dict), label_dim, look_dim)
        for name, optimizer in optimizers.items():
            _expect_optimizer(f'optimizers.{name}', _entry(state['optimizers'], name, dict), optimizer)
    except ValueError as err:
        raise UserError(f'{path}: {err}, so it is damaged or of another run: resume from the snapshot before') from None


def _expect(state: dict) -> None:
    images = _entry(state, 'images', int)
    if images < 0:
        raise ValueError(f'images is {images}')
    if not 0 <= _entry(state, 'seconds', (int, float)) < math.inf:
        raise ValueError(f'seconds is {state["seconds"]}')
    if math.isnan(_entry(state, 'best', (int, float))):
        raise ValueError('best is NaN')
    for counts in ('skipped', 'skipped_in_a_row'):
        for network in ('G', 'D'):
            if _entry(_entry(state, counts, dict), network, int) < 0:
                raise ValueError(f'{counts}.{network} is negative')
    _tensor('pl_mean', _entry(state, 'pl_mean', torch.Tensor), [])
    for name, sums in _entry(state, 'stats', dict).items():
        if not isinstance(name, str) or not isinstance(sums, torch.Tensor):
            raise ValueError(f'stats holds {name!r}')
        _tensor(f'stats.{name}', sums, [3], torch.float64, finite=False)
    if state.get('augment') is not None:
        augment = _entry(state, 'augment', dict)
        for name in ('p', 'start', 'r'):
            if not math.isfinite(_entry(augment, name, (int, float))):
                raise ValueError(f'augment.{name} is {augment[name]}')
        _tensor('augment.sums', _entry(augment, 'sums', torch.Tensor), [2], torch.float64, finite=False)
    _entry(state, 'optimizers', dict)


def _expect_looks(looks: dict, label_dim: int, look_dim: int) -> None:
    features = len(_entry(looks, 'directions', torch.Tensor))
    for name, shape in (('means', [label_dim + 1, features]), ('directions', [features, look_dim]), ('shares', [look_dim])):
        _tensor(f'looks.{name}', _entry(looks, name, torch.Tensor), shape)


def _expect_optimizer(where: str, state: dict, optimizer: torch.optim.Optimizer) -> None:
    parameters = [p for group in optimizer.param_groups for p in group['params']]
    groups = _entry(state, 'param_groups', list)
    own = optimizer.state_dict()['param_groups']
    numbers = [group.get('params') if isinstance(group, dict) else None for group in groups]
    plain = all(isinstance(each, list) and all(type(number) is int for number in each) for each in numbers)  # tensors compare otherwise
    if not plain or numbers != [group['params'] for group in own]:
        raise ValueError(f'{where} has other groups of parameters than this run')
    for number, moments in _entry(state, 'state', dict).items():
        if not isinstance(number, int) or not 0 <= number < len(parameters) or not isinstance(moments, dict):
            raise ValueError(f'{where} holds {number!r}, which is no parameter')
        if set(moments) != {'step', *MOMENTS}:
            raise ValueError(f'{where}.{number} holds {", ".join(map(str, moments)) or "nothing"}')
        parameter = parameters[number]
        for name in MOMENTS:
            _tensor(f'{where}.{number}.{name}', _entry(moments, name, torch.Tensor), list(parameter.shape), parameter.dtype)
        _tensor(f'{where}.{number}.step', _entry(moments, 'step', torch.Tensor), [])
        if (moments['exp_avg_sq'] < 0).any() or moments['step'] < 0:
            raise ValueError(f'{where}.{number} has a negative number of steps or mean square')


def _entry(tree: dict, name: str, kind) -> Any:
    value = tree.get(name)
    if not isinstance(value, kind) or isinstance(value, bool):
        raise ValueError(f'{name} is missing' if name not in tree else f'{name} is a {type(value).__name__}')
    return value


def _tensor(name: str, value: torch.Tensor, shape: list[int], dtype: torch.dtype = torch.float32, finite: bool = True) -> None:
    if list(value.shape) != shape or value.dtype != dtype or value.layout != torch.strided:
        raise ValueError(f'{name} is {value.dtype} {list(value.shape)}, not {dtype} {shape}'.replace('torch.', ''))
    if finite and not value.isfinite().all():
        raise ValueError(f'{name} is not finite')
