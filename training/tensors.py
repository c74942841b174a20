"""Tensors out of pickles, by the rules of data/pickled.py: what torch.save and pickle.dump write, read without running it.

A storage is bytes and a kind of number; a tensor is a view of one, whose shape is compared with the bytes there are before anything is
allocated.
"""

import io
import math
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from training.data.pickled import DATA_RULES, Call, Name, NotPlain, Persistent, Plain, convert, expect, follow

KINDS = {'Float': torch.float32, 'Double': torch.float64, 'Half': torch.float16, 'BFloat16': torch.bfloat16, 'Long': torch.int64,
         'Int': torch.int32, 'Short': torch.int16, 'Char': torch.int8, 'Byte': torch.uint8, 'Bool': torch.bool}
STORAGES = {f'{module} {name}Storage': kind for module in ('torch', 'torch.cuda', 'torch.storage') for name, kind in KINDS.items()}
OLD_MAGIC = 0x1950a86a20f9469cfc6c  # what a file of torch.save's old format begins with
MOST_DIMENSIONS = 16


@dataclass(eq=False)
class Storage:
    """Numbers of one kind, [n], in memory of their own."""

    numbers: torch.Tensor


def storage_of(content: bytes, kind: torch.dtype) -> Storage:
    """The numbers in little-endian bytes, all of them."""
    if not content:
        return Storage(torch.empty(0, dtype=kind))
    if kind == torch.bool:
        return Storage(torch.frombuffer(bytearray(content), dtype=torch.uint8) != 0)
    return Storage(torch.frombuffer(bytearray(content), dtype=kind))


def described(identity: Any, plain: Plain) -> tuple[torch.dtype, str, int]:
    """(kind, key, count of numbers) of a storage, from what torch.save knows it by."""
    if type(identity) is not tuple or len(identity) < 5 or plain(identity[0]) not in ('storage', b'storage'):
        raise NotPlain('it asks for something that is kept outside')
    _, kind, key, _place, count = identity[:5]
    if type(kind) is not Name or kind.text not in STORAGES:
        raise NotPlain('a storage of an unknown kind')
    if type(count) is not int or not 0 <= count < 1 << 48:
        raise NotPlain('a storage of an impossible size')
    return STORAGES[kind.text], str(expect(key, str)), count


# ---- Rules


def from_old_file(call: Call, plain: Plain) -> Storage:
    """A storage pickled alone: a file of torch.save's old format, five pickles, then for each storage its size and its bytes."""
    (content,) = call.args
    content = expect(plain(content), bytes)
    file = io.BytesIO(content)
    magic, version, system, root, keys = (follow(file, most=1000) for _ in range(5))
    if magic != OLD_MAGIC or type(root) is not Persistent or expect(system, dict).get('little_endian') is not True:
        raise NotPlain('a storage that is not of the format of torch.save')
    kind, key, count = described(root.id, plain)
    size = count * torch.empty(0, dtype=kind).element_size()
    head = file.read(8)
    rest = memoryview(content)[file.tell():]
    if keys != [key] or int.from_bytes(head, 'little') != count or len(rest) != size:
        raise NotPlain(f'a storage of {count} numbers with {len(rest)} bytes')
    return storage_of(rest, kind)


def tensor(call: Call, plain: Plain) -> torch.Tensor:
    """A tensor: (storage, offset, shape, strides, ...)."""
    storage, offset, shape, strides = call.args[:4]
    storage, shape, strides = plain(storage), plain(shape), plain(strides)
    numbers = expect(storage, Storage).numbers
    if not (type(shape) is tuple and type(strides) is tuple and len(shape) == len(strides) <= MOST_DIMENSIONS):
        raise NotPlain('a tensor of an impossible shape')
    if not all(type(number) is int and 0 <= number < 1 << 48 for number in (offset, *shape, *strides)):
        raise NotPlain('a tensor of an impossible shape')
    count = math.prod(shape)
    last = offset + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
    if count > len(numbers) or count and last >= len(numbers):
        raise NotPlain(f'a tensor of {count} numbers in a storage of {len(numbers)}')
    if not count:
        return torch.empty(shape, dtype=numbers.dtype)
    found = numbers.as_strided(shape, strides, offset)
    return found if found.is_contiguous() and count == len(numbers) else found.clone(memory_format=torch.contiguous_format)


def parameter(call: Call, plain: Plain) -> torch.Tensor:
    """A parameter, as the tensor it is."""
    return expect(plain(call.args[0]), torch.Tensor)


def dictionary(call: Call, plain: Plain) -> dict:
    """An OrderedDict or a subclass of dict, from its pairs; attributes that it has as an object are left out."""
    pairs = call.args[0] if call.args else []
    found = {plain(key): plain(value) for key, value in expect(pairs, list)}
    return {**found, **expect(plain(call.content or {}), dict)}


TENSOR_RULES = {**DATA_RULES, 'torch.storage _load_from_bytes': from_old_file, 'torch._utils _rebuild_tensor_v2': tensor,
                'torch._utils _rebuild_tensor': tensor, 'torch._utils _rebuild_parameter': parameter,
                'collections OrderedDict': dictionary, 'torch Size': lambda call, plain: tuple(plain(call.args[0]))}


# ---- Files of torch.save


def read_zip(path: Path, most: int) -> Any:
    """What torch.save wrote to a file, in plain values and tensors; the checksums that the zip holds are verified.

    most: values in it. Raises NotPlain, and what zipfile and the system raise.
    """
    with zipfile.ZipFile(path) as file:
        members = {info.filename: info for info in file.infolist()}
        root = next((name.removesuffix('/data.pkl') for name in members if name.endswith('/data.pkl')), None)
        if root is None or any(info.compress_type != zipfile.ZIP_STORED for info in members.values()):
            raise NotPlain('it is not of the format of torch.save')
        if sum(info.file_size for info in members.values()) > path.stat().st_size:
            raise NotPlain('its parts are larger than it is')
        if (order := f'{root}/byteorder') in members and file.read(order) != b'little':
            raise NotPlain('its numbers are not little-endian')
        storages = _members(file, root)
        return convert(follow(file.read(f'{root}/data.pkl')), Plain(TENSOR_RULES, storages, most))


def _members(file: zipfile.ZipFile, root: str) -> Callable[[Any, Plain], Storage]:
    """What finds the storages in the zip, each read once."""
    known: dict[str, Storage] = {}

    def find(identity: Any, plain: Plain) -> Storage:
        kind, key, count = described(identity, plain)
        if key not in known:
            content = file.read(f'{root}/data/{key}')
            if len(content) != count * torch.empty(0, dtype=kind).element_size():
                raise NotPlain(f'a storage of {count} numbers with {len(content)} bytes')
            known[key] = storage_of(content, kind)
        if (known[key].numbers.dtype, len(known[key].numbers)) != (kind, count):
            raise NotPlain('a storage of two kinds')
        return known[key]

    return find
