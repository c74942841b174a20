"""Plain data out of a pickle: dicts, lists, text, numbers and uint8 arrays. No torch, and no unpickler.

The opcodes are followed by hand. A global stays the name it is, a call stays a record of its name and arguments, so nothing in a file is
ever called, and of an array no more is taken than its bytes and its shape.
"""

import math
import pickletools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

MOST_OPCODES, MOST_VALUES = 1_000_000, 100_000  # a batch of CIFAR-10 has about 40,000 and 20,000
CONSTANTS = {'NONE': None, 'NEWTRUE': True, 'NEWFALSE': False}
VALUES = {'BININT', 'BININT1', 'BININT2', 'INT', 'LONG', 'LONG1', 'LONG4', 'BINFLOAT', 'FLOAT', 'BINUNICODE', 'SHORT_BINUNICODE',
          'BINUNICODE8', 'UNICODE', 'BINBYTES', 'SHORT_BINBYTES', 'BINBYTES8'}
STRINGS = {'STRING', 'BINSTRING', 'SHORT_BINSTRING'}  # Python 2's, bytes that pickletools gives as latin-1
RECONSTRUCT = ('numpy.core.multiarray _reconstruct', 'numpy._core.multiarray _reconstruct')
MARK = object()


class NotPlain(ValueError):
    """A pickle that holds something else, or is damaged. The text says what."""


@dataclass(eq=False)  # so that it can be a key
class Call:
    """What a pickle asks to be called, and is not: a function's 'module name', its arguments, and the state given to the result."""

    name: str
    args: tuple
    state: Any = None


@dataclass(frozen=True)
class Name:
    """'module name' of a global."""

    text: str


def read_plain(data: bytes) -> Any:
    """The content of a pickle: dict, list, tuple, str, bytes, int, float, bool, None and uint8 arrays. Raises NotPlain."""
    try:
        return _plain(_follow(data), iter(range(MOST_VALUES)))
    except NotPlain:
        raise
    except Exception as err:  # pickletools on a damaged file; a stack that is too short
        raise NotPlain(f'damaged: {str(err).partition(chr(10))[0] or type(err).__name__}') from err


def _since_mark(stack: list) -> list:
    """Takes off the stack what lies above the last mark, and the mark."""
    at = max(i for i, value in enumerate(stack) if value is MARK)
    taken = stack[at + 1:]
    del stack[at:]
    return taken


def _pairs(values: list) -> dict:
    return dict(zip(values[::2], values[1::2], strict=True))


def _follow(data: bytes) -> Any:
    """What the opcodes leave on the stack, with Call and Name where they call or name something."""
    stack, memo = [], {}
    for number, (opcode, value, _) in enumerate(pickletools.genops(data)):
        if number > MOST_OPCODES:
            raise NotPlain('more opcodes than a data set has')
        name = opcode.name
        if name in ('PROTO', 'FRAME'):
            continue
        if name == 'STOP':
            return stack.pop()
        if name in CONSTANTS:
            stack.append(CONSTANTS[name])
        elif name in VALUES:
            stack.append(value)
        elif name in STRINGS:
            stack.append(value.encode('latin1'))
        elif name in ('BINPUT', 'LONG_BINPUT', 'PUT', 'MEMOIZE'):
            memo[len(memo) if value is None else value] = stack[-1]
        elif name in ('BINGET', 'LONG_BINGET', 'GET'):
            stack.append(memo[value])
        elif name == 'GLOBAL':
            stack.append(Name(value))
        else:
            _build(name, stack)
    raise NotPlain('damaged: no end')


def _build(name: str, stack: list) -> None:
    """One opcode that makes or fills something of what is on the stack."""
    if name == 'MARK':
        stack.append(MARK)
    elif name in ('EMPTY_DICT', 'EMPTY_LIST', 'EMPTY_TUPLE'):
        stack.append({'EMPTY_DICT': {}, 'EMPTY_LIST': [], 'EMPTY_TUPLE': ()}[name])
    elif name in ('TUPLE', 'LIST', 'DICT'):
        stack.append({'TUPLE': tuple, 'LIST': list, 'DICT': _pairs}[name](_since_mark(stack)))
    elif name in ('TUPLE1', 'TUPLE2', 'TUPLE3'):
        count = int(name[-1])
        stack[-count:] = [tuple(stack[-count:])]
    elif name in ('APPEND', 'APPENDS'):
        values = [stack.pop()] if name == 'APPEND' else _since_mark(stack)
        _expect(stack[-1], list).extend(values)
    elif name in ('SETITEM', 'SETITEMS'):
        values = [stack.pop() for _ in range(2)][::-1] if name == 'SETITEM' else _since_mark(stack)
        _expect(stack[-1], dict).update(_pairs(values))
    elif name == 'STACK_GLOBAL':
        *_, module, attribute = stack
        stack[-2:] = [Name(f'{_expect(module, str)} {_expect(attribute, str)}')]
    elif name == 'REDUCE':
        arguments = _expect(stack.pop(), tuple)
        stack.append(Call(_expect(stack.pop(), Name).text, arguments))
    elif name == 'BUILD':
        state = stack.pop()
        _expect(stack[-1], Call).state = state
    else:
        raise NotPlain(f'it uses {name}')


def _expect(value: Any, kind: type) -> Any:
    if type(value) is not kind:
        raise NotPlain(f'damaged: a {type(value).__name__} where a {kind.__name__} should be')
    return value


def _plain(value: Any, budget: Iterator) -> Any:
    """The value with arrays in place of the calls that stand for them; `budget` runs out where lists hold themselves or each other."""
    if next(budget, None) is None:
        raise NotPlain('more values than a data set has')
    if isinstance(value, (list, tuple)):
        return type(value)(_plain(each, budget) for each in value)
    if isinstance(value, dict):
        return {_plain(key, budget): _plain(each, budget) for key, each in value.items()}
    if isinstance(value, Call):
        return _bytes(value) if value.name == '_codecs encode' else _array(value)
    if isinstance(value, Name) or value is MARK:
        raise NotPlain(f'it asks for {getattr(value, "text", "a mark")}')
    return value


def _bytes(call: Call) -> bytes:
    """The bytes that Python 3 writes in protocol 2 as a call of _codecs.encode."""
    text, codec = call.args
    if codec not in ('latin1', b'latin1'):
        raise NotPlain(f'it asks for _codecs.encode to {codec}')
    return _expect(text, str).encode('latin1')


def _array(call: Call) -> np.ndarray:
    """A uint8 array out of the call that would rebuild it: its shape and its bytes, nothing else of it is used."""
    if call.name not in RECONSTRUCT:
        raise NotPlain(f'it asks for {call.name.replace(" ", ".")}')
    _, shape, dtype, fortran, content = _expect(call.state, tuple)
    if type(dtype) is not Call or dtype.name != 'numpy dtype' or dtype.args[0] not in ('u1', b'u1', '|u1'):
        raise NotPlain('an array of something else than bytes')
    content = _bytes(content) if type(content) is Call else _expect(content, bytes)
    if not all(type(side) is int and side >= 0 for side in _expect(shape, tuple)) or math.prod(shape) != len(content):
        raise NotPlain(f'an array of {shape} with {len(content)} bytes')
    return np.frombuffer(content, np.uint8).reshape(shape, order='F' if fortran else 'C')
