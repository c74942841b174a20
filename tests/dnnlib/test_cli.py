import errno
import os
import subprocess
import sys

import click
import pytest

import inference
from dnnlib import cli
from dnnlib.util import UserError
from tests.helpers import ROOT


def convert(kind, value):
    return kind.convert(value, None, None)


# ---- Parameter types


@pytest.mark.parametrize('text, numbers', [('5', [5]), ('0-3', [0, 1, 2, 3]), ('0-2,7, 4-4', [0, 1, 2, 7, 4]), ('3,3', [3, 3])])
def test_int_range_list(text, numbers):
    assert convert(cli.IntRangeList(), text) == numbers


@pytest.mark.parametrize('text, reason', [
    ('', 'not a list'), ('1,,2', 'not a list'), ('-1', 'not a list'), ('a', 'not a list'), ('1.5', 'not a list'), ('7-0', 'write 0-7'),
    ('0-9999999', 'split it'), ('0-600000,0-600000', 'split it'),
])
def test_int_range_list_refuses(text, reason):
    with pytest.raises(click.BadParameter, match=reason):
        convert(cli.IntRangeList(), text)


@pytest.mark.parametrize('text, size', [('512', (512, 512)), ('1920x1080', (1920, 1080)), ('48X32', (48, 32)), ('1000000x1', (1000000, 1))])
def test_size_is_width_then_height(text, size):
    assert convert(cli.Size(), text) == size


@pytest.mark.parametrize('text, reason', [
    ('0', '1 to 1,000,000'), ('-4', '1 to 1,000,000'), ('64x0', '1 to 1,000,000'), ('1000001', '1 to 1,000,000'), ('big', 'WIDTHxHEIGHT'),
    ('1.5', 'WIDTHxHEIGHT'), ('1x2x3', 'WIDTHxHEIGHT'), ('', 'WIDTHxHEIGHT'),
])
def test_size_refuses(text, reason):
    with pytest.raises(click.BadParameter, match=reason):
        convert(cli.Size(), text)


def test_window():
    assert convert(cli.Window(), '-0.5,-0.25,1.5,1e0') == (-0.5, -0.25, 1.5, 1.0)


@pytest.mark.parametrize('text, reason', [
    ('0,0,1', 'not a window'), ('0,0,1,1,1', 'not a window'), ('a,0,1,1', 'not a window'), ('0,0,inf,1', 'finite'), ('nan,0,1,1', 'finite'),
    ('1,0,1,1', 'empty'), ('0,1,1,0.5', 'empty'), ('0,0,1e9,1', 'too far'),
])
def test_window_refuses(text, reason):
    with pytest.raises(click.BadParameter, match=reason):
        convert(cli.Window(), text)


@pytest.mark.parametrize('text', ['inf', 'nan', '-1', '0'])
def test_finite_range_refuses(text):
    assert convert(cli.FiniteRange(min=0, min_open=True), '0.5') == 0.5
    with pytest.raises(click.BadParameter):
        convert(cli.FiniteRange(min=0, min_open=True), text)


def test_windows_are_those_of_the_renderer():
    grid = pytest.importorskip('inr.grid')
    assert (cli.FARTHEST, inference.WHOLE) == (grid.FARTHEST, grid.WHOLE)


def test_preset_name_suggests():
    kind = cli.PresetName(lambda: ['inr', 'inr-tiny', 'stylegan2'])
    assert convert(kind, 'inr-tiny') == 'inr-tiny'
    with pytest.raises(click.BadParameter, match="'inr-tyni' is not known. Did you mean 'inr-tiny'\\? Known: inr, inr-tiny, stylegan2"):
        convert(kind, 'inr-tyni')


# ---- The command as a whole


@click.command()
@click.option('--seeds', type=cli.IntRangeList(), default='0-1', show_default=True, help='Seeds to draw.')
@click.option('--window', type=cli.Window(), default='0,0,1,1')
@click.option('--res', type=cli.Size())
@click.option('--cfg', type=cli.PresetName(['inr', 'inr-tiny']), default='inr')
@click.option('--batch', type=int, default=1)
def command(seeds, window, res, cfg, batch):
    """Draws."""
    print(seeds, window, res, cfg, batch)


def outcome(capsys, what, args=()):
    """(exit code, stdout, stderr) of a command run on a list of arguments."""
    with pytest.raises(SystemExit) as left:
        cli.run(what, args)
    return (left.value.code, *capsys.readouterr())


def failing(error):
    @click.command()
    @click.option('--batch', type=int)
    @click.option('--batch-gpu', type=int)
    def fails(batch, batch_gpu):
        raise error
    return fails


def test_run_passes_the_options(capsys):
    code, out, err = outcome(capsys, command, ['--seeds=2-3', '--window=-0.5,-0.5,1.5,1.5', '--res=32x16'])
    assert (code, err) == (0, '') and out == '[2, 3] (-0.5, -0.5, 1.5, 1.5) (32, 16) inr 1\n'
    assert outcome(capsys, command)[1] == '[0, 1] (0.0, 0.0, 1.0, 1.0) None inr 1\n'


def test_run_help(capsys):
    code, out, err = outcome(capsys, command, ['--help'])
    assert (code, err) == (0, '')
    assert 'Draws.' in out and '[inr|inr-tiny]' in out and '0-1' in out


@pytest.mark.parametrize('args, line', [
    (['--bach=3'], "Error: No such option '--bach'. Did you mean '--batch'?"),
    (['--batch=x'], "Error: Invalid value for '--batch': 'x' is not a valid integer."),
    (['--res=0'], "Error: Invalid value for '--res': '0' is out of range: 1 to 1,000,000 pixels a side"),
    (['--cfg=inr-tine'], "Error: Invalid value for '--cfg': 'inr-tine' is not known. Did you mean 'inr-tiny'? Known: inr, inr-tiny"),
    (['stray'], 'Error: Got unexpected extra argument (stray)'),
])
def test_run_answers_a_wrong_option_in_one_line(capsys, args, line):
    code, out, err = outcome(capsys, command, args)
    assert (code, out) == (2, '')
    assert err == line + '\n'


class OutOfMemoryError(RuntimeError):
    """Named as torch's."""


@pytest.mark.parametrize('error, line', [
    (UserError('no images in x.zip:\nadd some'), 'no images in x.zip: add some'),
    (MemoryError(), 'out of memory: lower --batch-gpu or --batch'),
    (OutOfMemoryError('CUDA out of memory. Tried to allocate'), 'out of memory: lower --batch-gpu or --batch'),
    (RuntimeError("DefaultCPUAllocator: can't allocate memory"), 'out of memory: lower --batch-gpu or --batch'),
    (OSError(errno.ENOSPC, 'full', '/data/x.png'), 'disk full while writing /data/x.png: free some space, or choose another place'),
    (OSError(errno.ENOSPC, 'full'), 'disk full while writing a file: free some space, or choose another place'),
    (PermissionError(errno.EACCES, 'no', '/data/x'),
     'no permission to read or write /data/x: change its permissions, or choose another place'),
    (OSError(errno.EFBIG, 'big', 'x.tiff'), 'x.tiff would be larger than its file system allows: choose another place, or a smaller size'),
    (OSError(errno.EROFS, 'no', '/data/x'), '/data/x is on a file system that is read-only: choose another place'),
    (FileNotFoundError(errno.ENOENT, 'no', 'x.zip'), 'no such file or folder: x.zip'),
    (IsADirectoryError(errno.EISDIR, 'no', 'x'), 'x is a folder, a file is needed'),
    (FileExistsError(errno.EEXIST, 'no', 'x'), 'x is there already and is not a folder: choose another place'),
    (NotADirectoryError(errno.ENOTDIR, 'no', 'x/y'), 'x/y: a part of this path is a file, not a folder'),
])
def test_run_turns_errors_into_one_line(capsys, error, line):
    assert outcome(capsys, failing(error)) == (2, '', f'Error: {line}\n')


@pytest.mark.parametrize('error', [KeyError('bug'), RuntimeError('bug'), OSError('bug'), ValueError('bug')])
def test_run_lets_bugs_through(error):
    with pytest.raises(type(error)) as caught:
        cli.run(failing(error), [])
    assert caught.value is error


def test_run_answers_ctrl_c_with_130(capsys):
    code, out, err = outcome(capsys, failing(KeyboardInterrupt()))
    assert (code, out, err.strip()) == (130, '', 'Interrupted.')


def test_run_shows_the_traceback_when_asked(capsys, monkeypatch):
    monkeypatch.setenv('INR_TRACEBACK', '1')
    code, _, err = outcome(capsys, failing(UserError('a mistake')))
    assert code == 2 and 'Traceback' in err and err.endswith('Error: a mistake\n')


def test_run_of_a_group(capsys):
    group = click.Group('tool', commands=[failing(MemoryError())])
    code, out, err = outcome(capsys, group)
    assert code == 2 and 'fails' in out + err and 'Error' not in err
    assert outcome(capsys, group, ['fails']) == (2, '', 'Error: out of memory: lower --batch-gpu or --batch\n')


def test_neither_torch_nor_requests_is_imported():
    code = 'import sys, dnnlib.util, dnnlib.cli; print([name for name in ("torch", "requests", "tqdm", "numpy") if name in sys.modules])'
    done = subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True, env=os.environ)
    assert done.stdout.strip() == '[]', done.stderr
