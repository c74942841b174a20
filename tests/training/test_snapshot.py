"""Grids, the log and run folders."""

import json

import numpy as np
import pytest
from PIL import Image

from dnnlib.util import format_time
from tests.training.tiny import make_images
from training.dataset import ImageDataset
from training.run_folder import Grown
from training.snapshot import Bar, RunLog, grid_image, grid_items, grid_size, save_grid


def test_grid_fits_a_screen():
    assert [grid_size(side, side) for side in (64, 256, 1024, 128)] == [(16, 9), (7, 4), (6, 4), (15, 8)]
    assert grid_size(128, 64) == (15, 9) and grid_size(1024, 16) == (2, 9)


def test_grid_goes_row_by_row(tmp_path):
    images = np.zeros([6, 2, 2, 3], np.uint8) + np.arange(6, dtype=np.uint8)[:, None, None, None] * 10
    images[:, :, 1] += 1                                                     # the right half of each
    grid = np.asarray(grid_image(images, columns=3))
    assert grid.shape == (4, 6, 3)
    assert grid[::2, :, 0].tolist() == [[0, 1, 10, 11, 20, 21], [30, 31, 40, 41, 50, 51]]
    save_grid(tmp_path / 'a.png', images[..., :1], 2)
    saved = Image.open(tmp_path / 'a.png')
    assert saved.mode == 'L' and np.asarray(saved)[0].tolist() == [0, 1, 10, 11]
    assert [path.name for path in tmp_path.iterdir()] == ['a.png']


def test_rows_hold_one_class_each(tmp_path):
    with ImageDataset(make_images(tmp_path / 'a', count=9, classes=3), use_labels=True) as dataset:
        items = grid_items(dataset, 16, 4, seed=0)
        assert [[i % 3 for i in items[row * 4:row * 4 + 4]] for row in range(4)] == [[0] * 4, [1] * 4, [2] * 4, [0] * 4]
        assert len(set(items[:4])) == 3                                      # all three of the class, then the first again
    with ImageDataset(tmp_path / 'a') as dataset:
        assert sorted(grid_items(dataset, 9, 3, seed=0)) == list(range(9))
        assert grid_items(dataset, 9, 3, seed=0) == grid_items(dataset, 9, 3, seed=0) != grid_items(dataset, 9, 3, seed=1)


def test_labels_that_are_no_classes_make_no_rows(tmp_path):
    make_images(tmp_path / 'a', count=9, classes=3)
    pairs = [[f'{i:02d}.png', [i / 9, 1.0]] for i in range(9)]
    (tmp_path / 'a' / 'dataset.json').write_text(json.dumps({'labels': pairs}))
    with ImageDataset(tmp_path / 'a', use_labels=True) as dataset:
        assert sorted(grid_items(dataset, 9, 3, seed=0)) == list(range(9))


def test_log_and_stats(tmp_path, capsys):
    log = RunLog(tmp_path)
    log.say('first')
    log.stats(32, {'Loss/G': 0.5})
    log.stats(64, {'Loss/G': 0.25})
    log.progress(32, 64, 0)                                                  # stdout is no terminal: no bar
    log.close()
    assert (tmp_path / 'log.txt').read_text() == capsys.readouterr().out == 'first\n'
    again = RunLog(tmp_path, images=32, quiet=True)
    again.say('second')
    again.stats(64, {'Loss/G': 0.125})
    again.close()
    assert capsys.readouterr().out == '' and (tmp_path / 'log.txt').read_text() == 'first\nsecond\n'
    lines = [json.loads(line) for line in (tmp_path / 'stats.jsonl').read_text().splitlines()]
    assert [(line['images'], line['Loss/G']) for line in lines] == [(32, 0.5), (64, 0.125)]
    assert scalars(tmp_path, 'Loss/G') == [(32, 0.5), (64, 0.125)]


def test_a_full_disk_costs_lines_of_the_log_and_neither_numbers_nor_the_run(tmp_path, capsys, monkeypatch):
    log, add = RunLog(tmp_path), Grown.add

    def full(file, content):
        raise OSError(28, 'No space left on device', str(file.path))

    log.say('before')
    log.stats(8, {'a': 1.0})
    monkeypatch.setattr(Grown, 'add', full)
    log.say('lost')
    log.stats(16, {'a': 2.0})
    log.stats(24, {'a': 3.0})
    monkeypatch.setattr(Grown, 'add', add)
    log.say('after')
    log.stats(32, {'a': 4.0})
    log.close()
    out = capsys.readouterr().out
    assert [out.count(f'The run goes on without {what}\n') for what in ('log.txt', 'stats.jsonl', 'TensorBoard')] == [1, 1, 1]
    assert f'disk full while writing {tmp_path}/stats.jsonl' in out
    assert (tmp_path / 'log.txt').read_text() == 'before\nafter\n'
    assert [json.loads(line)['images'] for line in (tmp_path / 'stats.jsonl').read_text().splitlines()] == [8, 16, 24, 32]
    assert scalars(tmp_path, 'a') == [(8, 1), (16, 2), (24, 3), (32, 4)]


def test_a_clock_that_goes_back_keeps_the_order_for_tensorboard(tmp_path, monkeypatch):
    for now, images in ((2e9, 8), (1e9, 16)):
        monkeypatch.setattr('training.snapshot.time.time', lambda now=now: now)
        log = RunLog(tmp_path, images - 8, quiet=True)
        log.stats(images, {'a': images})
        log.close()
    names = sorted(path.name.split('.')[3] for path in tmp_path.glob('events.*'))
    assert names == ['2000000000', '2000000001'] and scalars(tmp_path, 'a') == [(8, 8), (16, 16)]


def scalars(folder, name):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    return [(event.step, event.value) for event in events.Scalars(name)]


def test_log_without_a_folder_writes_nothing(capsys):
    log = RunLog(None, quiet=True)
    log.say('nothing')
    log.stats(1, {'a': 1})
    log.close()
    assert capsys.readouterr().out == ''


def test_bar_moves_on_a_terminal(monkeypatch, capsys):
    monkeypatch.setattr('sys.stdout.isatty', lambda: True, raising=False)
    log = RunLog(None)
    log.progress(64, 128, start=32)
    log.progress(96, 128, start=32)
    assert log._bar.n == 96 and log._bar.total == 128
    log.close()


@pytest.mark.parametrize('ends, expected', [(float('inf'), '00:20'), (1030.0, '00:20'), (1007.0, '00:07'), (990.0, '00:00')])
def test_eta_is_what_comes_first(monkeypatch, capsys, ends, expected):
    monkeypatch.setattr('training.snapshot.time.monotonic', lambda: 1000.0)
    bar = Bar(ends, total=64, initial=32, disable=True)
    monkeypatch.setattr('tqdm.tqdm.format_dict', {'rate': 1.0, 'n': 44, 'initial': 32, 'elapsed': 12.0, 'total': 64})
    assert bar.format_dict['eta'] == format_time(int(expected[3:]))
    monkeypatch.setattr('tqdm.tqdm.format_dict', {'rate': None, 'n': 44, 'initial': 32, 'elapsed': 12.0, 'total': 64})
    assert bar.format_dict['eta'] == format_time(int(expected[3:]))
    monkeypatch.setattr('tqdm.tqdm.format_dict', {'rate': None, 'n': 32, 'initial': 32, 'elapsed': 0.0, 'total': 64})
    assert Bar(float('inf'), total=64, initial=32, disable=True).format_dict['eta'] == '?'
