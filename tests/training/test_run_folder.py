"""Run folders: whose they are, which is the latest, what is whole in them, lines that are cut and lines that are not."""

import copy
import json
import os
import signal
import socket
from pathlib import Path

import pytest
import torch

from dnnlib.util import UserError
from tests.helpers import file_size_limit
from tests.training.runs import after_a_step
from training import run_folder
from training.checkpoint import network_path, save_networks, save_state, snapshots, state_path
from training.config_json import to_json
from training.run_folder import (
    Grown,
    add_line,
    cut_stats,
    find_latest_run,
    find_latest_snapshot,
    find_resumable,
    held,
    new_run_folder,
    remove_old,
    set_aside_later,
    stored_config,
)


def message(call, *args, **kwargs):
    with pytest.raises(UserError) as caught:
        call(*args, **kwargs)
    assert '\n' not in str(caught.value)
    return str(caught.value)


def pair(folder, images, state=True, mtime=None):
    folder.mkdir(parents=True, exist_ok=True)
    path = network_path(folder, images)
    path.touch()
    if state:
        state_path(path).touch()
    if mtime:
        os.utime(path, (mtime, mtime))
    return path


# ---- Whose it is


def lock(folder, **content):
    (folder / 'run.lock').write_text(json.dumps(content))


@pytest.mark.filterwarnings('ignore:.*multi-threaded, use of fork:DeprecationWarning')  # Python 3.12 on; the child only holds and ends
def test_one_process_holds_a_folder_and_its_death_frees_it(tmp_path):
    said, (ready, tell) = [], os.pipe()
    (tmp_path / '.tmp-1234abcd-network-snapshot-000001.safetensors').write_bytes(bytes(100))
    if not (child := os.fork()):
        with held(tmp_path):
            os.write(tell, b'holds')
            signal.pause()
    os.close(tell)  # its end, were it to come first, ends the wait
    assert os.read(ready, 5) == b'holds' and not list(tmp_path.glob('.tmp-*'))
    with pytest.raises(UserError, match=f'is in use by process {child} on {socket.gethostname()}: wait for its end'), held(tmp_path):
        pass
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    for _ in range(2):  # one that ended as it should leaves nothing to take over
        with held(tmp_path, said.append):
            pass
    assert said == [f'Taking over from process {child} on {socket.gethostname()}, which ended without a word']


@pytest.mark.parametrize('alive', [True, False])
def test_a_process_of_another_machine_is_waited_for(tmp_path, monkeypatch, alive):
    monkeypatch.setattr(run_folder, 'SILENT', 0.05)
    said, path, sleep = [], tmp_path / 'run.lock', run_folder.time.sleep
    lock(tmp_path, host='elsewhere', pid=7)
    monkeypatch.setattr(run_folder.time, 'sleep', lambda seconds: (sleep(seconds), alive and os.utime(path, (5, 5))))
    if alive:
        with pytest.raises(UserError, match='is in use by process 7 on elsewhere'), held(tmp_path, said.append):
            pass
        assert json.loads(path.read_text()) == {'host': 'elsewhere', 'pid': 7}
    else:
        with held(tmp_path, said.append):
            assert json.loads(path.read_text())['pid'] == os.getpid()
        assert said[1:] == ['Taking over from process 7 on elsewhere, which ended without a word']
    assert said[0] == 'Waiting 0.05 seconds for a sign of process 7 on elsewhere, which had this run last'


@pytest.mark.parametrize('content', [b'', b'{"pid"', b'[1]', b'\xff', b'{"pid": "x", "host": 3, "turn": true}', b'[' * 100_000])
def test_a_lock_that_says_nothing_holds_nothing(tmp_path, content):
    folder, said = tmp_path / 'run', []
    folder.mkdir()
    (folder / 'run.lock').write_bytes(content)
    with held(folder, said.append):
        assert json.loads((folder / 'run.lock').read_text())['turn'] == 1
    assert said == []


def test_the_holder_gives_signs_of_life(tmp_path, monkeypatch):
    monkeypatch.setattr(run_folder, 'BEAT', 0.01)
    with held(tmp_path):
        os.utime(tmp_path / 'run.lock', (5, 5))
        for _ in range(12_000):
            if (tmp_path / 'run.lock').stat().st_mtime > 5:
                return
            run_folder.time.sleep(0.01)
    raise AssertionError('no sign')


# ---- Which one


def test_latest_by_time(tmp_path):
    runs = tmp_path / 'runs'
    assert find_latest_snapshot(runs) is None
    assert 'no run in' in message(find_latest_run, runs)
    newest = pair(runs / '00000-a', 2000, mtime=1_600_000_000)
    pair(runs / '00001-b', 9000, mtime=1_500_000_000)
    pair(runs / '00001-b' / 'superseded', 99_000, mtime=1_700_000_000)
    assert find_latest_snapshot(runs) == newest
    further = pair(runs / '00000-a', 3000, mtime=1_550_000_000)  # copied files lose the order of their times, not that of their steps
    assert find_latest_snapshot(runs) == further
    for name, time in (('00000-a', 1_400_000_000), ('00001-b', 1_550_000_000)):
        options = runs / name / 'training_options.json'
        options.touch()
        os.utime(options, (time, time))
    assert find_latest_run(runs) == runs / '00000-a'
    os.utime(runs / '00001-b' / 'training_options.json', (1_650_000_000, 1_650_000_000))   # started later, no snapshot yet
    assert find_latest_run(runs) == runs / '00001-b'
    os.utime(runs / '00000-a' / 'training_options.json', (4_000_000_000, 4_000_000_000))   # a clock that was wrong once
    assert find_latest_run(runs) == runs / '00001-b'


def test_latest_is_the_one_that_was_started_or_resumed_last_whatever_clocks_say(tmp_path):
    a, b, old = (pair(tmp_path / name, 1000).parent for name in ('00000-a', '00001-b', '00002-old'))
    for folder, latest in ((b, b), (a, a), (b, b)):
        with held(folder):
            assert find_latest_run(tmp_path) == latest or folder == latest
        os.utime(network_path(folder, 1000), (1, 1))
        assert find_latest_run(tmp_path) == latest and find_latest_snapshot(tmp_path) == network_path(latest, 1000)
    os.utime(network_path(old, 1000), (4_000_000_000, 4_000_000_000))
    assert find_latest_run(tmp_path) == b


# ---- What it goes on from


@pytest.fixture(scope='module')
def training(tmp_path_factory):
    return after_a_step(tmp_path_factory.mktemp('data') / 'images')


@pytest.fixture(scope='module')
def saved(training, tmp_path_factory):
    folder = tmp_path_factory.mktemp('run')
    for images in (1000, 2000):
        path = network_path(folder, images)
        save_state(state_path(path), {**training.state_dict(), 'images': images})
        save_networks(path, training.networks, training.settings, images)
    (folder / 'training_options.json').write_text(to_json(training.settings))
    return folder


@pytest.fixture
def run(saved, tmp_path):
    for path in saved.iterdir():
        os.link(path, tmp_path / path.name)
    return tmp_path


def replace(path, content):
    path.unlink()  # a link to the other tests' file
    path.write_bytes(content)


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    replace(path, content)


def not_finite(path):
    state = copy.deepcopy(torch.load(path, weights_only=True))
    state['optimizers']['G']['state'][0]['exp_avg_sq'][0] = float('inf')
    path.unlink()
    torch.save(state, path)


@pytest.mark.parametrize('damage', [
    lambda path: flip(path), lambda path: flip(state_path(path)), lambda path: not_finite(state_path(path)),
    lambda path: replace(path, path.read_bytes()[:-9]), lambda path: replace(state_path(path), b'')])
def test_the_snapshot_before_a_damaged_one_is_taken(run, damage):
    first, second = snapshots(run)
    assert find_resumable(run) == second
    damage(second)
    said = []
    assert find_resumable(run, said.append) == first
    assert len(said) == 1 and said[0].startswith(f'Passing over {run}/') and '000002' in said[0]
    damage(first)
    assert f'{run} has no snapshot to go on from: {run}' in message(find_resumable, run)


def test_half_a_pair_is_never_resumed(run):
    first, second = snapshots(run)
    state_path(second).unlink()
    state_path(network_path(run, 3000)).touch()
    assert find_resumable(run) == first
    state_path(first).unlink()
    assert find_resumable(run) is None


@pytest.mark.parametrize('change, word', [
    (lambda content: content[:300], 'damaged'), (lambda content: b'', 'damaged'), (lambda content: b'\xff\xfe' + content, 'damaged'),
    (lambda content: bytes(100), 'damaged'), (lambda content: b'[1]', 'damaged'), (lambda content: b'[' * 100_000, 'damaged'),
    (None, 'missing')])
def test_a_recipe_that_is_lost_comes_from_a_snapshot(training, run, change, word):
    path, said = run / 'training_options.json', []
    assert stored_config(run, said.append) == training.settings and said == []
    content = path.read_bytes()
    path.unlink()
    if change:
        path.write_bytes(change(content))
    snapshots(run)[1].unlink()
    (run / 'network-snapshot-000002.safetensors').write_bytes(b'junk')
    assert stored_config(run, said.append) == training.settings
    assert said == [f'{path} is {word}: taking the recipe from network-snapshot-000001.safetensors']
    snapshots(run)[0].unlink()
    expected = 'is damaged, it is not JSON' if change else 'is not a run folder: it has no training_options.json'
    assert expected in message(stored_config, run)


def test_a_recipe_that_says_something_else_is_a_mistake(run):
    tree = json.loads((run / 'training_options.json').read_text())
    tree['loss']['gama'] = 3
    replace(run / 'training_options.json', json.dumps(tree).encode())
    assert "'gama' is not known. Did you mean 'gamma'?" in message(stored_config, run)


def test_old_pairs_go(tmp_path):
    for images in (1000, 2000, 3000):
        pair(tmp_path, images)
    (tmp_path / 'network-best.safetensors').touch()
    remove_old(tmp_path, 0)
    assert len(snapshots(tmp_path)) == 3
    state_path(network_path(tmp_path, 4000)).touch()  # its weights were not written any more
    remove_old(tmp_path, 2)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        'network-best.safetensors', 'network-snapshot-000002.safetensors', 'network-snapshot-000003.safetensors',
        'training-state-000002.pt', 'training-state-000003.pt']


def test_a_network_file_goes_before_its_state(tmp_path, monkeypatch):
    """Whatever ends it in between, a network file is there only when its state is."""
    for images in (1000, 2000):
        pair(tmp_path, images)
    gone, unlink = [], Path.unlink
    monkeypatch.setattr(Path, 'unlink', lambda path, **options: gone.append(path.name) or unlink(path, **options))
    remove_old(tmp_path, 1)
    assert gone == ['network-snapshot-000001.safetensors', 'training-state-000001.pt']


def test_later_pairs_are_set_aside(tmp_path):
    kept, *_ = [pair(tmp_path, images) for images in (1000, 2000, 3000)]
    assert set_aside_later(tmp_path, kept) == ['network-snapshot-000002.safetensors', 'network-snapshot-000003.safetensors']
    assert snapshots(tmp_path) == [kept] and len(snapshots(tmp_path / 'superseded')) == 2
    assert state_path(snapshots(tmp_path / 'superseded')[0]).is_file()
    assert set_aside_later(tmp_path, None) == [kept.name] and snapshots(tmp_path) == []




def test_run_folders_are_numbered(tmp_path):
    runs = tmp_path / 'a' / 'runs'
    assert new_run_folder(runs, 'demo-inr').name == '00000-demo-inr'
    assert new_run_folder(runs, 'demo-inr').name == '00001-demo-inr'
    (runs / '00041').mkdir()
    (runs / 'other').mkdir()
    assert new_run_folder(runs, 'x').name == '00042-x'
    (tmp_path / 'file').write_text('')
    with pytest.raises(UserError, match='file is not a folder: choose another --outdir'):
        new_run_folder(tmp_path / 'file', 'x')
    with pytest.raises(UserError, match='is not a folder: choose another --outdir'):
        new_run_folder(tmp_path / 'file' / 'below', 'x')


# ---- Lines


@pytest.mark.parametrize('junk', [b'{"imag', b'{"imag\n', b'\xff\xfe\x00\n', b'[1]\n', b'3\n', b'{"a": 1}\n', b'{"images": "x"}\n',
                                  b'{"images": true}\n', b'{"images": NaN}\n', b'[' * 100_000 + b'\n', b'\n', b'{"images": 8}'])
def test_damaged_lines_go_and_the_others_stay(tmp_path, junk):
    path, whole = tmp_path / 'stats.jsonl', b'{"images": 8}\n{"images": 16}\n'
    path.write_bytes(whole + b'{"images": 24}\n')
    assert cut_stats(path, 16) == 0 and path.read_bytes() == whole
    path.write_bytes(whole + junk)
    assert cut_stats(path, 16) == 1 and path.read_bytes() == whole
    if junk.endswith(b'\n'):
        path.write_bytes(junk + whole)
        assert cut_stats(path, 16) == 1 and path.read_bytes() == whole
    assert cut_stats(tmp_path / 'none.jsonl', 8) == 0 and not (tmp_path / 'none.jsonl').exists()


def test_lines_are_whole_or_not_there(tmp_path):
    path = tmp_path / 'log.txt'
    path.write_text('half a li')
    add_line(path, 'next')
    assert path.read_text() == 'half a li\nnext\n'
    file = Grown(path)
    with file_size_limit(20), pytest.raises(OSError) as caught:
        file.add_line('more than there is room for')
    assert caught.value.filename == str(path) and path.read_text() == 'half a li\nnext\n'
    file.add_line('later \ud800')
    file.close()
    assert path.read_text() == 'half a li\nnext\nlater ?\n'
