"""Networks from descriptions in files of others: a class of ours, arguments, and the shapes of the tensors that are there.

A description may ask for more than the machine has. So a network is built with no more numbers and parts than the file has tensors for,
which is known before they are allocated, and then compared with the file. (Building it on the meta device first is simpler, but takes
PyTorch two seconds to prepare for.)
"""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn.modules import module as hooks
from torch.overrides import TorchFunctionMode

from dnnlib.util import UserError
from training.plugins import network_class

LARGEST, DEEPEST = 1 << 40, 8  # of numbers in constructor arguments, and of dicts and lists in each other
SPARE_PARTS, SPARE_NUMBERS = 100, 1 << 24  # beyond four for each tensor, or number, of the file
USED_LATE = ('conv_clamp', 'w_avg_beta')  # arguments, numbers or None, that no constructor computes with
MADE_BY_SHAPE = (torch.randn, torch.rand, torch.zeros, torch.ones, torch.empty, torch.full)
MADE_BY_LENGTH = (torch.arange, torch.linspace, torch.eye)


def built(class_name: str, arguments: Any, shapes: Mapping[str, Any], where: str) -> torch.nn.Module:
    """A network as initialized, with exactly the tensors that a file has.

    shapes: {key of the state dict: shape, or something that has one};  where: for messages
    Raises UserError.
    """
    found = network_class(class_name, where)
    numbers = sum(math.prod(getattr(shape, 'shape', shape)) for shape in shapes.values())
    try:
        _expect_plain(arguments)
        with _AtMost(4 * numbers + SPARE_NUMBERS), _parts_at_most(4 * len(shapes) + SPARE_PARTS):
            network = found(**arguments)
    except UserError as err:
        raise UserError(f'{where}: {err}') from None
    except Exception as err:  # what a constructor does with arguments of the wrong type
        reason = ' '.join(str(err).split())[:200] or type(err).__name__
        raise UserError(f'{where}: {class_name} cannot be built from its header: {reason}') from None
    expect_same_tensors(network, shapes, where)
    return network


def expect_same_tensors(network: torch.nn.Module, shapes: Mapping[str, Any], where: str) -> None:
    """Raises UserError for keys or shapes that are not those of a network's state dict; stored buffers that are none of it pass."""
    own, passing = network.state_dict(), dict(network.named_buffers())
    name = type(network).__name__
    for key in own:
        if key not in shapes:
            raise UserError(f'{where}: the tensor {key} is missing: the file is of another version or damaged')
    for key, shape in shapes.items():
        if key not in own and key not in passing:
            raise UserError(f'{where}: {name} has no {key[:100]}: the file is of another class or version')
        shape, needed = list(getattr(shape, 'shape', shape)), list((own if key in own else passing)[key].shape)
        if shape != needed:
            raise UserError(f'{where}: {key} has shape {shape}, {name} needs {needed}')


def load_weights(network: torch.nn.Module, state: Mapping[str, torch.Tensor], where: str) -> torch.nn.Module:
    """The network with the weights of a file. Of buffers that a state dict leaves out, being constants, the values are compared.

    Raises UserError for numbers that are infinite or NaN, and for another constant.
    """
    own = network.state_dict()
    for key, value in state.items():
        if value.is_floating_point() and not value.isfinite().all():
            raise UserError(f'{where}: {key} holds numbers that are infinite or NaN: take another file')
    for key, constant in network.named_buffers():
        if key in state and key not in own and not torch.allclose(state[key].to(constant), constant):
            raise UserError(f'{where}: {key} has other values than those that {type(network).__name__} computes with')
    network.load_state_dict({key: value for key, value in state.items() if key in own})
    return network


class _AtMost(TorchFunctionMode):
    """Within it tensors of no more than so many numbers in all can be made."""

    def __init__(self, most: int):
        super().__init__()
        self.left = most

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func in MADE_BY_SHAPE:
            shape = args[0] if args and isinstance(args[0], (list, tuple)) else [each for each in args if isinstance(each, int)]
            self.left -= math.prod(shape)
        elif func in MADE_BY_LENGTH:
            self.left -= int(max((abs(each) for each in args if isinstance(each, (int, float))), default=0))
        if self.left < 0:
            raise ValueError('it would be larger than the tensors in the file')
        return func(*args, **(kwargs or {}))


@contextmanager
def _parts_at_most(most: int) -> Iterator[None]:
    """Within it no more than so many parameters, buffers and modules can be registered."""
    count = 0

    def counted(*_) -> None:
        nonlocal count
        count += 1
        if count > most:
            raise ValueError('it would have more layers than the file has tensors for')

    handles = [register(counted) for register in (hooks.register_module_parameter_registration_hook,
                                                  hooks.register_module_buffer_registration_hook,
                                                  hooks.register_module_module_registration_hook)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _expect_plain(value: Any, deep: int = 0) -> None:
    """Raises ValueError for constructor arguments that no network of ours was ever given."""
    if deep > DEEPEST:
        raise ValueError('arguments are nested too deep')
    if deep == 0 and not (isinstance(value, dict) and all(isinstance(key, str) for key in value)):
        raise ValueError('arguments have no names')
    if isinstance(value, dict):
        for key, each in value.items():
            _expect_plain(key, deep + 1)
            _expect_plain(each, deep + 1)
            if key in USED_LATE and not (each is None or type(each) in (int, float) and each >= 0):
                raise ValueError(f'{key} is {str(each)[:100]!r}, which is no number from 0 on')
    elif isinstance(value, (list, tuple)):
        for each in value:
            _expect_plain(each, deep + 1)
    elif isinstance(value, (int, float)) and not (math.isfinite(value) and abs(value) <= LARGEST):
        raise ValueError(f'{str(value)[:20]} is out of range')
    elif value is not None and not isinstance(value, (int, float, str)):
        raise ValueError(f'a {type(value).__name__} as an argument')
