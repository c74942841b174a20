"""The configuration of a run as JSON, training_options.json, and back: every key and type is checked."""

import dataclasses
import json
import typing

from dnnlib.util import UserError, check_keys
from training.config import Config
from training.validation import validate

LARGEST = 1 << 53  # of a number; more are none that a run was ever given


def to_json(config: Config) -> str:
    """The text of training_options.json."""
    return json.dumps(dataclasses.asdict(config), indent=2)


def from_json(text: str | bytes, where: str = 'training_options.json') -> Config:
    """The configuration that `to_json` wrote. Raises UserError naming `where` for anything else."""
    try:
        tree = json.loads(text.decode('utf-8') if isinstance(text, bytes) else text, parse_constant=_no_number)
    except (ValueError, RecursionError) as err:
        raise UserError(f'{where} is not JSON ({err}): restore the file, or start a new run') from None
    config = _from_tree(Config, tree, where)
    validate(config)
    return config


def _no_number(name: str):
    raise ValueError(f'{name} is no number')


def _from_tree(cls, tree, where: str):
    if not isinstance(tree, dict):
        fields = ', '.join(field.name for field in dataclasses.fields(cls))
        raise UserError(f'{where}: an object with {fields} is needed, not {repr(tree)[:100]}')
    kinds = {field.name: field.type for field in dataclasses.fields(cls)}
    check_keys(tree, kinds, where, needed=[field.name for field in dataclasses.fields(cls) if field.default is dataclasses.MISSING])
    values = {}
    for name, kind in kinds.items():
        if name not in tree:
            continue
        value = tree[name]
        if dataclasses.is_dataclass(kind):
            value = _from_tree(kind, value, f'{where}: {name}')
        elif typing.get_origin(kind) is tuple and isinstance(value, list):
            value = tuple(value)
        if not dataclasses.is_dataclass(kind) and not _is(value, kind):
            raise UserError(f'{where}: {name} is {repr(value)[:100]}; {getattr(kind, "__name__", kind)} is needed')
        values[name] = value
    return cls(**values)


def _is(value, kind) -> bool:
    """Whether a JSON value can stand for a field of this type; whole numbers pass for float."""
    if options := typing.get_args(kind):
        origin = typing.get_origin(kind)
        if origin in (list, dict):
            return isinstance(value, origin) and all(_is(each, options[-1]) for each in (value.values() if origin is dict else value))
        if origin is tuple:
            return isinstance(value, tuple) and len(value) == len(options) and all(map(_is, value, options))
        return any(_is(value, option) for option in options)
    if kind is typing.Any:
        return True
    if kind is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= LARGEST
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool) and abs(value) <= LARGEST
    return isinstance(value, type(None) if kind is None else kind)
