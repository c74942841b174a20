"""What the commands share: parameter types, and how a mistake becomes one line and an exit code. Imports click, never torch."""

import contextlib
import errno
import io
import math
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NoReturn

import click

from dnnlib.util import UserError, printable, suggest

MAX_SIDE = 1_000_000  # pixels
MAX_LIST = 1_000_000  # entries
LONGEST_LINE = 1000  # characters that an error is told in
MEMORY_OPTIONS = ('--batch-gpu', '--batch', '--res', '--workers')  # what to lower, best first


# ---- Parameter types


class IntRangeList(click.ParamType):
    """'0-7,12' -> [0, 1, ..., 7, 12]: whole numbers from 0, single or as ranges with both ends in, in the order given."""

    name = 'list'

    def convert(self, value, param, ctx):
        if isinstance(value, (list, tuple)):
            return list(value)
        numbers: list[int] = []
        for part in value.split(','):
            match = re.fullmatch(r'\s*(\d+)\s*(?:-\s*(\d+)\s*)?', part)
            if match is None:
                self.fail(f'{value!r} is not a list of whole numbers and ranges such as 0-7,12', param, ctx)
            first, last = int(match[1]), int(match[2] or match[1])
            if last < first:
                self.fail(f'{part.strip()!r} runs backwards: write {last}-{first}', param, ctx)
            if len(numbers) + last - first + 1 > MAX_LIST:
                self.fail(f'{value!r} has more than {MAX_LIST:,} numbers: split it over several calls', param, ctx)
            numbers.extend(range(first, last + 1))
        return numbers


class Seeds(IntRangeList):
    """Such a list of seeds, which NumPy takes up to 2^32 - 1."""

    def convert(self, value, param, ctx):
        seeds = super().convert(value, param, ctx)
        if max(seeds, default=0) >= 2**32:
            raise UserError(f'{param.opts[0]}: {max(seeds)} is too large; 0 to {2**32 - 1}')
        return seeds


class Side(tuple):
    """A size of which one number was given, for both sides."""


class Size(click.ParamType):
    """'512' -> Side((512, 512)), '1920x1080' -> (1920, 1080): width and height in pixels, 1 to 1,000,000 each."""

    name = 'size'

    def convert(self, value, param, ctx):
        if isinstance(value, tuple):
            return value
        match = re.fullmatch(r'\s*(-?\d+)\s*(?:[xX×]\s*(-?\d+)\s*)?', str(value))
        if match is None:
            self.fail(f'{value!r} is not a size: write 512, or WIDTHxHEIGHT such as 1920x1080', param, ctx)
        width, height = int(match[1]), int(match[2] or match[1])
        if not (1 <= width <= MAX_SIDE and 1 <= height <= MAX_SIDE):
            self.fail(f'{value!r} is out of range: 1 to {MAX_SIDE:,} pixels a side', param, ctx)
        return (width, height) if match[2] else Side((width, height))


class FiniteRange(click.FloatRange):
    """click.FloatRange without inf and nan, which no comparison stops. Without bounds --help names none."""

    def _describe_range(self):
        return '' if self.min is None and self.max is None else super()._describe_range()

    def convert(self, value, param, ctx):
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f'{value!r} is not a finite number', param, ctx)
        return number


PSI = FiniteRange(-100, 100)  # of truncation; far beyond 1 there are no pictures
LARGEST = 1e15  # number of a label, whose square float32 still holds
FARTHEST = 1000  # as in inr.grid, which needs torch


class Window(click.ParamType):
    """'x0,y0,x1,y1' -> four floats in units of the training image, (x0, y0) the top left; x0 < x1 and y0 < y1."""

    name = 'x0,y0,x1,y1'

    def convert(self, value, param, ctx):
        if isinstance(value, tuple):
            return value
        try:
            x0, y0, x1, y1 = (float(part) for part in value.split(','))
        except ValueError:
            self.fail(f'{value!r} is not a window: write x0,y0,x1,y1 such as -0.5,-0.5,1.5,1.5 (0,0,1,1 is the whole image)', param, ctx)
        if not all(math.isfinite(edge) for edge in (x0, y0, x1, y1)):
            self.fail(f'{value!r} is not a window: all four numbers must be finite', param, ctx)
        if max(map(abs, (x0, y0, x1, y1))) > FARTHEST:
            self.fail(f'{value!r} reaches too far: -{FARTHEST} to {FARTHEST} images away from the trained one', param, ctx)
        if x1 <= x0 or y1 <= y0:
            self.fail(f'{value!r} is empty: x0,y0 is the top left, so x0 < x1 and y0 < y1 are needed', param, ctx)
        return x0, y0, x1, y1


class Numbers(click.ParamType):
    """'0.2,0,1' -> [0.2, 0.0, 1.0]: finite numbers, none beyond LARGEST."""

    name = 'numbers'

    def convert(self, value, param, ctx):
        if isinstance(value, list):
            return value
        try:
            numbers = [float(part) for part in value.split(',')]
        except ValueError:
            self.fail(f'{value!r} is not a list of numbers such as 0.2,0,1', param, ctx)
        if not all(math.isfinite(number) for number in numbers):
            self.fail(f'{value!r}: all numbers must be finite', param, ctx)
        if max(map(abs, numbers)) > LARGEST:
            self.fail(f'{value!r}: numbers from {-LARGEST:g} to {LARGEST:g}', param, ctx)
        return numbers


class Strengths(click.ParamType):
    """'-2..2' -> [-2, -1, 0, 1, 2], '-2..2:3' -> [-2, 0, 2], '1.5' -> [1.5]: from one number to another in 5 steps, or as many as given."""

    name = 'a..b'

    def convert(self, value, param, ctx):
        if isinstance(value, list):
            return value
        number = r'\s*([-+]?(?:\d+\.?\d*|\.\d+))\s*'
        match = re.fullmatch(rf'{number}(?:\.\.{number}(?::\s*(\d+)\s*)?)?', value)
        if match is None:
            self.fail(f'{value!r} is not a strength: write 1.5, or -2..2, or -2..2:9 for nine steps', param, ctx)
        first, last, steps = float(match[1]), float(match[2] or match[1]), int(match[3] or 5) if match[2] else 1
        if max(abs(first), abs(last)) > 100 or not (2 <= steps <= 1000 or match[2] is None):
            self.fail(f'{value!r} is out of range: strengths from -100 to 100, in 2 to 1000 steps', param, ctx)
        return [first + (last - first) * step / max(steps - 1, 1) for step in range(steps)]


DIRECTIONS = (
    click.option('--direction', type=click.IntRange(0), metavar='N', help='Move along the N-th direction in w, the strongest is 0.'),
    click.option('--strength', type=Strengths(), default='-2..2',
                 help='How far, in standard deviations of w: 1.5, -2..2, or -2..2:9 for nine steps.'),
    click.option('--directions', metavar='FILE', help='Directions that analyze.py directions wrote.  [default: those of SeFa]'),
)


def with_directions(command):
    """A click command with DIRECTIONS, as a decorator."""
    for option in reversed(DIRECTIONS):
        command = option(command)
    return command


with_psi_to = click.option('--psi-to', type=click.Choice(['all', 'class']), default='all', help='What truncation goes towards: the mean of '
                           'all that the network draws, or that of the class or label drawn.')


class Parsed(click.ParamType):
    """What a function makes of a text; a ValueError that it raises is the message. name: what --help calls it."""

    def __init__(self, parse: Callable[[str], Any], name: str = 'text'):
        self.parse, self.name = parse, name

    def convert(self, value, param, ctx):
        if not isinstance(value, str):
            return value
        try:
            return self.parse(value)
        except ValueError as err:
            self.fail(str(err), param, ctx)


class PresetName(click.ParamType):
    """One name out of a list; a misspelt one is answered with the nearest.

    choices: the names, or a function that returns them and is asked only when a value is checked or help is printed
    """

    name = 'name'

    def __init__(self, choices: Iterable[str] | Callable[[], Iterable[str]]):
        self._choices = choices

    @property
    def choices(self) -> list[str]:
        return list(self._choices() if callable(self._choices) else self._choices)

    def get_metavar(self, param, ctx):
        return '[' + '|'.join(self.choices) + ']'

    def convert(self, value, param, ctx):
        if value not in self.choices:
            self.fail(f'{value!r} is not known.{suggest(value, self.choices)} Known: {", ".join(self.choices)}', param, ctx)
        return value


# ---- From error to exit code


class Harmless:
    """A text stream that writes as their codes what steers a terminal, but ends of lines and of progress bars, and what cannot be encoded.

    Names of files and classes are others' choice.
    """

    def __init__(self, stream):
        self._stream = stream
        if hasattr(stream, 'reconfigure'):
            stream.reconfigure(errors='backslashreplace')

    def write(self, text):
        self._stream.write(text if text.isprintable() else re.sub(r'[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]', _code, text))
        return len(text)

    def __getattr__(self, name):
        return getattr(self._stream, name)


def _code(match):
    return printable(match[0])


def quiet(yes: bool) -> contextlib.AbstractContextManager:
    """A context in which nothing is printed to stdout, where `yes`: in all processes but the first."""
    return contextlib.redirect_stdout(io.StringIO()) if yes else contextlib.nullcontext()


def run(command: click.Command, args: Sequence[str] | None = None) -> NoReturn:
    """Runs a click command as the whole program and leaves with its exit code.

    args: the command line without the program's name; None: sys.argv[1:]
    A mistake of the user's, a file that is missing or cannot be written, a full disk, and memory that ran out give one line on stderr and
    exit code 2; Ctrl-C gives 130. Any other exception is a bug and keeps its traceback. INR_TRACEBACK=1 shows the traceback of all.
    """
    for name in ('stdout', 'stderr'):
        if not isinstance(getattr(sys, name), Harmless):
            setattr(sys, name, Harmless(getattr(sys, name)))
    try:
        code = command.main(args=None if args is None else list(args), standalone_mode=False)
    except (click.Abort, KeyboardInterrupt):
        print('Interrupted.', file=sys.stderr)
        sys.exit(130)
    except click.exceptions.NoArgsIsHelpError as err:
        err.show()
        sys.exit(2)
    except Exception as err:
        line = explain(err, memory_options(command))
        if line is None:
            raise
        if os.environ.get('INR_TRACEBACK', '0') not in ('', '0'):
            traceback.print_exc()
        line = printable(' '.join(line.splitlines()))
        print('Error: ' + (line if len(line) <= LONGEST_LINE else f'{line[:LONGEST_LINE]}...'), file=sys.stderr)
        sys.exit(2)
    sys.exit(code if isinstance(code, int) else 0)


def explain(err: Exception, lower: Sequence[str] = ()) -> str | None:
    """What to tell the user about an exception, or None when it is a bug of ours.

    lower: the command's options that save memory, named when memory has run out
    """
    if isinstance(err, UserError):
        return str(err)
    if isinstance(err, click.ClickException):
        return err.format_message()
    if is_out_of_memory(err):
        return 'out of memory: ' + (f'lower {" or ".join(lower)}' if lower else 'close other programs or take a smaller input')
    if isinstance(err, OSError):
        return _explain_os_error(err)
    return None


def _explain_os_error(err: OSError) -> str | None:
    file = err.filename if err.filename is not None else 'a file'
    if err.errno in (errno.ENOSPC, errno.EDQUOT):
        return f'disk full while writing {file}: free some space, or choose another place'
    if err.errno in (errno.EACCES, errno.EPERM):
        return f'no permission to read or write {file}: change its permissions, or choose another place'
    if err.errno == errno.EROFS:
        return f'{file} is on a file system that is read-only: choose another place'
    if err.errno == errno.EFBIG:
        return f'{file} would be larger than its file system allows: choose another place, or a smaller size'
    if err.filename is None:
        return None
    if err.errno == errno.ENOENT:
        return f'no such file or folder: {file}'
    if err.errno == errno.EISDIR:
        return f'{file} is a folder, a file is needed'
    if err.errno == errno.EEXIST:
        return f'{file} is there already and is not a folder: choose another place'
    if err.errno == errno.ENOTDIR:
        return f'{file}: a part of this path is a file, not a folder'
    if err.errno in (errno.ENAMETOOLONG, errno.ELOOP, errno.EINVAL, errno.EILSEQ):
        return f'{str(file)[:200]}: {os.strerror(err.errno)}'
    return None


def is_out_of_memory(err: BaseException) -> bool:
    """Whether memory of the machine or of the GPU ran out; recognized by name and text, so that torch need not be imported."""
    if isinstance(err, MemoryError) or type(err).__name__ == 'OutOfMemoryError':
        return True
    if isinstance(err, OSError):
        return err.errno == errno.ENOMEM
    return isinstance(err, RuntimeError) and ("can't allocate memory" in str(err) or 'CUDA out of memory' in str(err))


def memory_options(command: click.Command) -> list[str]:
    """Those of MEMORY_OPTIONS that a command, or for a group any of its commands, has."""
    commands = [command, *getattr(command, 'commands', {}).values()]
    present = {option for each in commands for param in each.params for option in param.opts}
    return [option for option in MEMORY_OPTIONS if option in present]
