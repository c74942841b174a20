"""Plain data out of a pickle: dicts, lists, text, numbers and arrays of them. No torch, and no unpickler.

The opcodes are followed by hand (`follow`): a global stays the name it is, a call stays a record of its name and arguments, so nothing in
a file is ever called. What a name stands for is said by a table of rules (`Plain`); a name without a rule is refused. Of an array no more
is taken than its bytes, its shape and one of a few kinds of numbers. `read_plain` has the rules of CIFAR-10's batches; training/tensors.py
adds tensors.
"""

import math
import pickletools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np

MOST_OPCODES, MOST_VALUES = 1_000_000, 100_000  # a batch of CIFAR-10 has about 40,000 and 20,000
MOST_DEEP = 200  # values in each other
LARGEST_KEY = 1 << 60  # numbers beyond it can be chosen so that they all fall into one place of a dict
CONSTANTS = {'NONE': None, 'NEWTRUE': True, 'NEWFALSE': False}
VALUES = {'BININT', 'BININT1', 'BININT2', 'INT', 'LONG', 'LONG1', 'LONG4', 'BINFLOAT', 'FLOAT', 'BINUNICODE', 'SHORT_BINUNICODE',
          'BINUNICODE8', 'UNICODE', 'BINBYTES', 'SHORT_BINBYTES', 'BINBYTES8', 'BYTEARRAY8'}
STRINGS = {'STRING', 'BINSTRING', 'SHORT_BINSTRING'}  # Python 2's, bytes that pickletools gives as latin-1
EMPTY = {'EMPTY_DICT': dict, 'EMPTY_LIST': list, 'EMPTY_TUPLE': tuple, 'EMPTY_SET': list}
SINCE_MARK = {'TUPLE', 'LIST', 'DICT', 'FROZENSET', 'APPENDS', 'SETITEMS', 'ADDITEMS', 'POP_MARK'}
ARRAYS = ('numpy.core.multiarray', 'numpy._core.multiarray')  # of older numpy, of newer
NUMBERS = ('b1', 'u1', 'i1', 'u2', 'i2', 'u4', 'i4', 'u8', 'i8', 'f2', 'f4', 'f8')  # kinds that an array may be of


class NotPlain(ValueError):
    """A pickle that holds something else, or is damaged. The text says what."""


@dataclass(eq=False)  # so that it can be a key
class Call:
    """What a pickle asks to be called, and is not.

    name: a function's or class's 'module name';  args: its arguments;  state: what the result is given
    content: the list or dict of what is put into the result, None where nothing is
    """

    name: str
    args: tuple
    state: Any = None
    content: list | dict | None = None

    def put(self, values: list | dict) -> None:
        """Adds to the content."""
        kind = type(values)
        self.content = kind() if self.content is None else expect(self.content, kind)
        self.content.extend(values) if kind is list else self.content.update(values)


@dataclass(frozen=True)
class Name:
    """'module name' of a global."""

    text: str


@dataclass(eq=False)
class Persistent:
    """Something kept outside the pickle, and what it is known by."""

    id: Any


# ---- Following


def follow(source: bytes | BinaryIO, most: int = MOST_OPCODES) -> Any:
    """What the opcodes of a pickle leave on the stack: plain containers (sets as lists) and values, and the records above.

    source: the pickle, or a binary file that stands where one begins, and after it where it ends;  most: opcodes
    Raises NotPlain.
    """
    try:
        return _follow(source, most)
    except NotPlain:
        raise
    except Exception as err:  # pickletools on a damaged file; a stack that is too short
        raise NotPlain(f'damaged: {str(err).partition(chr(10))[0][:200] or type(err).__name__}') from err


def _follow(source: bytes | BinaryIO, most: int) -> Any:
    stack, outer, memo = [], [], {}  # outer: the stacks below each mark
    for number, (opcode, value, _) in enumerate(pickletools.genops(source)):
        if number > most:
            raise NotPlain('more opcodes than it can need')
        name = opcode.name
        if name in ('PROTO', 'FRAME'):
            continue
        if name == 'STOP':
            return stack.pop()
        if name == 'MARK':
            outer.append(stack)
            stack = []
        elif name in SINCE_MARK:
            values, stack = stack, outer.pop()
            _gather(name, values, stack)
        elif name == 'POP' and not stack:
            stack = outer.pop()
        elif name in CONSTANTS:
            stack.append(CONSTANTS[name])
        elif name in VALUES:
            stack.append(bytes(value) if name == 'BYTEARRAY8' else value)
        elif name in EMPTY:
            stack.append(EMPTY[name]())
        elif name in STRINGS:
            stack.append(value.encode('latin1'))
        elif name in ('BINPUT', 'LONG_BINPUT', 'PUT', 'MEMOIZE'):
            memo[len(memo) if value is None else value] = stack[-1]
        elif name in ('BINGET', 'LONG_BINGET', 'GET'):
            stack.append(memo[value])
        elif name in ('GLOBAL', 'PERSID'):
            stack.append(Name(value) if name == 'GLOBAL' else Persistent(value))
        else:
            _build(name, stack)
    raise NotPlain('damaged: no end')


def _gather(name: str, values: list, stack: list) -> None:
    """One opcode that takes what lies above the last mark."""
    if name in ('TUPLE', 'FROZENSET'):
        stack.append(tuple(values))
    elif name == 'LIST':
        stack.append(values)
    elif name == 'DICT':
        stack.append(_pairs(values))
    elif name != 'POP_MARK':
        _put(stack[-1], _pairs(values) if name == 'SETITEMS' else values)


def _build(name: str, stack: list) -> None:
    """One opcode that makes or fills something of what is on the stack."""
    if name in ('TUPLE1', 'TUPLE2', 'TUPLE3'):
        stack[-int(name[-1]):] = [tuple(stack[-int(name[-1]):])]
    elif name == 'APPEND':
        value = stack.pop()
        _put(stack[-1], [value])
    elif name == 'SETITEM':
        value, key = stack.pop(), stack.pop()
        _put(stack[-1], _pairs([key, value]))
    elif name == 'STACK_GLOBAL':
        *_, module, attribute = stack[-2:]
        stack[-2:] = [Name(f'{expect(module, str)} {expect(attribute, str)}')]
    elif name in ('REDUCE', 'NEWOBJ'):
        arguments = expect(stack.pop(), tuple)
        stack.append(Call(expect(stack.pop(), Name).text, arguments))
    elif name == 'BUILD':
        state = stack.pop()
        expect(stack[-1], Call).state = state
    elif name == 'BINPERSID':
        stack.append(Persistent(stack.pop()))
    elif name in ('POP', 'DUP'):
        stack.pop() if name == 'POP' else stack.append(stack[-1])
    else:
        raise NotPlain(f'it uses {name}')


def _put(target: Any, values: list | dict) -> None:
    if type(target) is Call:
        target.put(values)
    elif type(values) is list:
        expect(target, list).extend(values)
    else:
        expect(target, dict).update(values)


def _pairs(values: list) -> dict:
    for key in values[::2]:
        _expect_key(key)
    return dict(zip(values[::2], values[1::2], strict=True))


def _expect_key(key: Any) -> Any:
    """The key. Others would be hashed, which for tuples in tuples takes a stack of its own, and for a choice of numbers forever."""
    if type(key) not in (str, bytes, int, bool, type(None), Name, Call) or type(key) is int and abs(key) > LARGEST_KEY:
        raise NotPlain(f'a {type(key).__name__} as a key')
    return key


def expect(value: Any, kind: type) -> Any:
    if type(value) is not kind:
        raise NotPlain(f'damaged: a {type(value).__name__} where a {kind.__name__} should be')
    return value


# ---- What the records stand for


class Plain:
    """Called with what `follow` gave, returns it with plain values in place of the records.

    rules: {'module name': function of (Call, this object) that returns what a call stands for}
    persistent: the same for a Persistent, None refuses them
    most: values to go through, which runs out where lists hold themselves or each other
    What a call stands for is asked once and then kept. Raises NotPlain.
    """

    def __init__(self, rules: Mapping[str, Callable[[Call, 'Plain'], Any]], persistent: Callable[[Any, 'Plain'], Any] | None = None,
                 most: int = MOST_VALUES):
        self.rules, self.persistent, self.left, self.deep = rules, persistent, most, 0
        self._known: dict[int, tuple[Call, Any]] = {}  # by id; the call is kept so that no other gets its id

    def __call__(self, value: Any) -> Any:
        self.left -= 1
        if self.left < 0:
            raise NotPlain('more values than it can need')
        if self.deep > MOST_DEEP:
            raise NotPlain('values nested too deep')
        self.deep += 1
        try:
            return self._of(value)
        finally:
            self.deep -= 1

    def _of(self, value: Any) -> Any:
        kind = type(value)
        if kind in (list, tuple):
            return kind([self(each) for each in value])
        if kind is dict:
            return {_expect_key(self(key)): self(each) for key, each in value.items()}
        if kind is Call:
            if id(value) not in self._known:
                if value.name not in self.rules:
                    raise NotPlain(f'it asks for {shown(value.name)}')
                self._known[id(value)] = value, self.rules[value.name](value, self)
            return self._known[id(value)][1]
        if kind is Persistent and self.persistent is not None:
            return self.persistent(value.id, self)
        if kind in (Name, Persistent):
            raise NotPlain(f'it asks for {shown(value.text) if kind is Name else "something that is kept outside"}')
        return value


def shown(name: str) -> str:
    """A 'module name' for messages."""
    return name.replace(' ', '.')[:100]


def text_of(value: Any) -> str:
    """Text that Python 2 may have written as bytes."""
    return value.decode('latin1') if type(value) is bytes else expect(value, str)


def encoded(call: Call, plain: Plain) -> bytes:
    """The bytes that Python 3 writes in protocol 2 as a call of _codecs.encode."""
    text, codec = call.args
    if codec not in ('latin1', b'latin1'):
        raise NotPlain(f'it asks for _codecs.encode to {codec if type(codec) is str else type(codec).__name__:.100}')
    return expect(text, str).encode('latin1')


def dtype_of(value: Any) -> np.dtype:
    """One of NUMBERS, little-endian, out of the call that would build it; the state of that call says no more than the order of bytes."""
    code = text_of(value.args[0]).lstrip('<|=') if type(value) is Call and value.name == 'numpy dtype' and value.args else ''
    order = text_of(value.state[1]) if code in NUMBERS and type(value.state) is tuple and len(value.state) > 1 else '|'
    if code not in NUMBERS or order not in '<|=':
        raise NotPlain('an array of something else than numbers')
    return np.dtype('<' + code)


def array(call: Call, plain: Plain) -> np.ndarray:
    """An array out of the call that would rebuild it: its shape, kind and bytes, nothing else of it is used."""
    if call.name.endswith('_frombuffer'):  # of protocol 5
        content, dtype, shape, order = call.args
        fortran = order == 'F'
    else:
        _, shape, dtype, fortran, content = expect(call.state, tuple)
    dtype, content = dtype_of(dtype), expect(plain(content), bytes)
    if not all(type(side) is int and 0 <= side < 1 << 40 for side in expect(shape, tuple)) or len(shape) > 16 \
            or math.prod(shape) * dtype.itemsize != len(content):
        raise NotPlain(f'an array of {shape!s:.100} with {len(content)} bytes')
    return np.frombuffer(content, dtype).reshape(shape, order='F' if fortran else 'C')


def scalar(call: Call, plain: Plain) -> int | float | bool:
    """A number of numpy's as one of Python's."""
    dtype, content = call.args
    dtype, content = dtype_of(dtype), expect(plain(content), bytes)
    if len(content) != dtype.itemsize:
        raise NotPlain(f'a number of {dtype} with {len(content)} bytes')
    return np.frombuffer(content, dtype)[0].item()


DATA_RULES = {'_codecs encode': encoded, **{f'{module} _reconstruct': array for module in ARRAYS},
              **{f'{module} scalar': scalar for module in ARRAYS},
              **{f'{module} _frombuffer': array for module in ('numpy.core.numeric', 'numpy._core.numeric')}}


def read_plain(data: bytes) -> Any:
    """The content of a pickle: dict, list, tuple, str, bytes, int, float, bool, None and arrays of numbers. Raises NotPlain."""
    return convert(follow(data), Plain(DATA_RULES))


def convert(value: Any, plain: Plain) -> Any:
    """plain(value), with whatever goes wrong in a rule as NotPlain."""
    try:
        return plain(value)
    except NotPlain:
        raise
    except Exception as err:  # of arguments of another number or type than a rule expects
        raise NotPlain(f'damaged: {str(err).partition(chr(10))[0][:200] or type(err).__name__}') from err
