"""A field as the row of an option: its command line, its check, and where its value is kept."""

from dataclasses import dataclass

import click
import pytest

from dnnlib import cli
from dnnlib.options import command_line, option, row_of, rows
from dnnlib.util import UserError
from tests.tiny_snapshots import call


@dataclass(frozen=True)
class Inner:
    weight: float = option('How much.', cli.FiniteRange(min=0), shown='preset', resume=True)
    plain: int = 3


@dataclass(frozen=True, kw_only=True)
class Tree:
    inner: Inner
    batch_size: int = option('How many.', click.IntRange(min=1), default=4, name='batch', shown='4')
    quiet: bool = option('Say nothing.', click.BOOL)
    sharp: bool = option('Or soft.', default=False, shown='off')


TABLE = {row.name: row for row in rows(Tree)}


def test_rows_know_their_names_and_places():
    assert {name: row.place for name, row in TABLE.items()} == {
        'weight': 'inner.weight', 'batch': 'batch_size', 'quiet': 'quiet', 'sharp': 'sharp'}
    assert [name for name, row in TABLE.items() if row.resume] == ['weight']
    assert Tree(inner=Inner(1), quiet=True).batch_size == 4 and row_of(Inner.__dataclass_fields__['plain']) is None


def test_a_command_gets_the_options_in_the_order_of_the_table():
    @click.command()
    @command_line(TABLE.values())
    def command(**given):
        print(given)

    code, out, _ = call(command, '--weight=2', '--no-sharp')
    assert code == 0 and eval(out) == {'weight': 2.0, 'batch': None, 'quiet': False, 'sharp': False}
    assert [param.name for param in command.params] == list(TABLE)
    text = call(command, '--help')[1]
    assert '--sharp / --no-sharp' in text and '--quiet ' in text and '[default: (4); x>=1]' in text and '[default: (preset); x>=0]' in text


def test_values_as_text():
    assert [TABLE['batch'].text(3), TABLE['sharp'].text(True), TABLE['sharp'].text(False)] == ['--batch=3', '--sharp', '--no-sharp']


@pytest.mark.parametrize('name, value, message', [
    ('weight', -1, '--weight=-1: -1.0 is not in the range x>=0'), ('weight', float('nan'), 'is not a finite number'),
    ('batch', 0, '--batch=0: 0 is not in the range x>=1'),
])
def test_a_value_out_of_bounds(name, value, message):
    TABLE[name].check(None)
    TABLE[name].check(2)
    with pytest.raises(UserError) as caught:
        TABLE[name].check(value)
    assert message in str(caught.value)
