"""One option, one row: the field of a dataclass that keeps an option's value says all there is about the option.

    batch: int = option('Images of a step, over all GPUs.', click.IntRange(min=1), shown='preset')

Command line, --help, checks of a stored value, and what may change when a run is resumed follow from the row. Knows click, not torch.
"""

import dataclasses
from collections.abc import Callable, Iterable
from dataclasses import MISSING, dataclass
from typing import Any

import click

from dnnlib import cli
from dnnlib.util import UserError


@dataclass(frozen=True)
class Option:
    """A row.

    name:   'batch_gpu' is --batch-gpu
    type:   a click type with its bounds; None: --name/--no-name; click.BOOL: --name alone
    shown:  what --help gives as default, None: the default itself
    resume: whether it may change when a run is resumed
    rule:   function of the facts about a new run that gives the value where neither user nor preset does, None: there is none
    as_option: what the option would have to say for the value that is kept, None: that value
    otherwise: what the command line has where the user says nothing; None: not given
    place:  where the value is kept, 'run.batch_gpu', or '' for none in the configuration
    """

    name: str
    help: str
    type: click.ParamType | None = None
    shown: str | None = None
    resume: bool = False
    rule: Callable[[Any], Any] | None = None
    as_option: Callable[[Any], Any] | None = None
    metavar: str | None = None
    otherwise: Any = None
    place: str = ''

    @property
    def flag(self) -> str:
        """'--batch-gpu'."""
        return '--' + self.name.replace('_', '-')

    def text(self, value: Any) -> str:
        """A value as the command line has it: '--batch-gpu=4', '--no-noise'."""
        if self.type is None:
            return self.flag if value else f'--no-{self.flag.removeprefix("--")}'
        return f'{self.flag}={value}'

    def check(self, value: Any) -> None:
        """Raises UserError for a value out of the bounds; None and names out of a list, which may have changed since, pass."""
        if value is None or self.type is None or isinstance(self.type, cli.PresetName):
            return
        try:
            self.type.convert(value, None, None)
        except click.UsageError as err:
            raise UserError(f'{self.flag}={value}: {err.message}') from None

    def on(self, command: Callable) -> Callable:
        """A click command function with this option."""
        how = dict(help=self.help, default=self.otherwise, metavar=self.metavar, show_default=self.otherwise is not None)
        if self.shown is not None:
            how['show_default'] = self.shown
        if self.type is click.BOOL:
            return click.option(self.flag, self.name, is_flag=True, **{**how, 'default': False, 'show_default': False})(command)
        flags = self.flag if self.type is not None else f'{self.flag}/--no-{self.flag.removeprefix("--")}'
        return click.option(flags, self.name, type=self.type, **how)(command)


def option(help: str, type: click.ParamType | None = None, *, default: Any = MISSING, name: str | None = None, **how: Any):
    """A field of a dataclass with its row.

    default: of the field, also of files from before it was there; without one its owner must be given a value
    name: where it is not that of the field;  how: the rest of `Option`
    """
    return dataclasses.field(default=default, metadata={'option': Option(name or '', help, type, **how)})


def row_of(field: dataclasses.Field, place: str = '') -> Option | None:
    """The row of a field, None for a field that is no option."""
    found = field.metadata.get('option')
    return found and dataclasses.replace(found, name=found.name or field.name, place=place)


def rows(cls: type, place: str = '') -> list[Option]:
    """The rows of a dataclass and, in the order of its fields, of the dataclasses in it."""
    found: list[Option] = []
    for field in dataclasses.fields(cls):
        here = f'{place}.{field.name}'.lstrip('.')
        if dataclasses.is_dataclass(field.type):
            found += rows(field.type, here)
        elif (row := row_of(field, here)) is not None:
            found.append(row)
    return found


def kept(tree: Any, place: str) -> Any:
    """The value at a row's place, 'run.batch' or 'generator.synthesis.noise'; None where a dictionary has no such key."""
    value = tree
    for name in place.split('.'):
        value = value.get(name) if isinstance(value, dict) else getattr(value, name)
    return value


def command_line(table: Iterable[Option]) -> Callable[[Callable], Callable]:
    """A decorator that gives a click command function the options of a table, listed in that order."""
    def decorate(command: Callable) -> Callable:
        for row in reversed(list(table)):
            command = row.on(command)
        return command

    return decorate
