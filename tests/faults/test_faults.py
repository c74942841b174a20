"""Faults of script/faults.py, some of each kind: --resume=latest goes on from what is whole, and ends as if there had been none."""

import os
import signal
import sys
import time

import pytest

from tests.helpers import ROOT
from tests.training.tiny import ROW, make_images
from training.presets import PRESETS

pytestmark = pytest.mark.filterwarnings('ignore:.*multi-threaded, use of fork:DeprecationWarning')  # Python 3.12 on


@pytest.fixture(scope='module')
def faults(tmp_path_factory):
    sys.path.append(str(ROOT / 'script'))
    import faults

    return faults


@pytest.fixture(scope='module')
def trials(faults, tmp_path_factory):
    PRESETS['tiny'] = ROW
    yield faults.Trials(tmp_path_factory.mktemp('faults'), ('--cfg=tiny',), make_images)
    del PRESETS['tiny']


@pytest.mark.parametrize('name, lost', [('kill -9 between a state and its weights', 2), ('kill -9 within a line of stats.jsonl', 2)])
def test_a_run_that_was_killed_goes_on_bit_for_bit(faults, trials, name, lost):
    fault, = (row for row in faults.FAULTS if row.name == name)
    code, same, steps, said = trials(fault)
    assert same, said
    assert (code, steps) == (-signal.SIGKILL, lost)


def test_a_folder_with_damage_of_all_kinds_goes_on_bit_for_bit(faults, trials):
    names = ('a bit of the newest state', 'stats.jsonl: half a line', 'training_options.json: not UTF-8', 'all files of 2030')
    rows = [next(row for row in faults.FAULTS if row.name == name) for name in names]
    _, same, steps, said = trials(faults.Fault('all', damage=lambda folder: [row.damage(folder) for row in rows]))
    assert same and steps == 2, said
    for line in ('Passing over ', 'training_options.json is damaged: taking the recipe from ', '1 damaged line of stats.jsonl left out'):
        assert said.count(line) == 1, said


def test_a_folder_takes_one_run_at_a_time(faults, trials):
    """A second resumption is refused in one line, while the first goes on to its end; a killed one is taken over from."""
    outdir = trials.root / 'held'
    ready, tell = os.pipe()

    def wait(training):
        os.write(tell, b'1')
        time.sleep(600)  # until it is killed

    child = trials.start(outdir, faults.TOTAL, inject=faults.at_step(20, wait))
    os.close(tell)  # so that its end, were it to come first, is an end of the pipe and no wait
    assert os.read(ready, 1) == b'1'
    run, = outdir.iterdir()
    before = {path.name: path.read_bytes() for path in run.glob('*') if path.is_file()}
    same, _, said = trials.resumed(outdir, 0)
    assert not same and f'Error: {run} is in use by process {child} on ' in said and said.count('\n') == 1
    assert {path.name: path.read_bytes() for path in run.glob('*') if path.is_file()} == before
    os.kill(child, signal.SIGKILL)
    assert faults.ended(child) == -signal.SIGKILL
    same, lost, said = trials.resumed(outdir, 20)
    assert same and lost == 1 and f'Taking over from process {child} on ' in said
