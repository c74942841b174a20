"""Batches by worker processes: the same images, and what becomes of workers that are lost."""

import itertools
import os
import pickle
import zipfile
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
import torch

from dnnlib.util import UserError
from tests.training.tiny import make_images, make_set, tiny_run
from training.dataset import ImageDataset
from training.loading import _lost_worker, batches


@pytest.mark.filterwarnings('ignore:.*multi-threaded, use of fork:DeprecationWarning')  # Python 3.12 on; nothing here holds a lock
def test_no_usable_image_is_one_line_also_from_a_worker(tmp_path):
    make_set(tmp_path / 'set.zip', count=1)
    with zipfile.ZipFile(tmp_path / 'set.zip') as archive:
        whole = archive.read('img00.png')
    (tmp_path / 'set').mkdir()
    (tmp_path / 'set' / 'img00.png').write_bytes(whole[:-60])
    dataset = ImageDataset(tmp_path / 'set')
    with pytest.raises(UserError, match='1 images in a row .* check .*set$') as direct:
        dataset[0]
    loader = torch.utils.data.DataLoader(dataset, sampler=[0], num_workers=1, multiprocessing_context='fork')
    iterator = iter(loader)
    try:
        list(iterator)
    except UserError as err:
        wrapped = str(err.with_traceback(None))
    del iterator  # ends the worker; frames of a traceback would keep it, and it would be waited for
    assert wrapped == str(direct.value)
    dataset.close()


@pytest.mark.filterwarnings('ignore:.*multi-threaded, use of fork:DeprecationWarning')  # Python 3.12 on; nothing here holds a lock
@pytest.mark.parametrize('method', ['fork', 'forkserver'])
def test_workers_read_the_same_images(tmp_path, method):
    pixels = make_set(tmp_path / 'set.zip', count=16, size=32)
    dataset = ImageDataset(tmp_path / 'set.zip')
    assert (dataset[0][0] == pixels[0]).all()  # the zip is open before the workers start
    loader = torch.utils.data.DataLoader(dataset, batch_size=2, num_workers=2, multiprocessing_context=method)
    np.testing.assert_array_equal(torch.cat([images for images, _ in loader]).numpy(), pixels)
    np.testing.assert_array_equal(dataset[7][0], pixels[7])
    copy = pickle.loads(pickle.dumps(dataset))
    np.testing.assert_array_equal(copy[9][0], pixels[9])
    copy.close()
    dataset.close()


def run_of(tmp_path, **given):
    """(data set, settings) of a run with one process that loads."""
    if not (tmp_path / 'images').exists():
        make_images(tmp_path / 'images')
    return tiny_run(tmp_path / 'images', **given)


@pytest.mark.filterwarnings('ignore:.*multi-threaded, use of fork:DeprecationWarning')
def test_a_worker_that_is_killed_is_replaced_once_and_the_batches_stay_the_same(tmp_path):
    expected = [images for images, _ in itertools.islice(batches(*run_of(tmp_path, workers=0), 8, pin=False), 12)]
    said, before = [], psutil.Process().children()
    data = batches(*run_of(tmp_path, workers=1), 8, pin=False, say=said.append)
    found = []
    for number in range(12):
        found.append(next(data)[0])
        for child in [child for child in psutil.Process().children() if child not in before] if number in (2, 7) else []:
            child.kill()
            os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # all of its threads; the run itself is to see its end
    assert [child for child in psutil.Process().children() if child not in before] == []
    data.close()
    assert all(torch.equal(*pair) for pair in zip(found, expected, strict=True))
    assert said == ['A process that loads data ended (killed): another takes its place',
                    'A process that loads data ended (killed): the main one loads, as with --workers=0']


def test_where_no_worker_can_start_the_main_process_loads(tmp_path, monkeypatch):
    def full():
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(torch.multiprocessing, 'get_context', lambda: SimpleNamespace(Queue=full))
    said = []
    data = batches(*run_of(tmp_path, workers=2), 0, pin=False, say=said.append)
    expected = next(batches(*run_of(tmp_path, workers=0), 0, pin=False))
    assert torch.equal(next(data)[0], expected[0])
    assert said == ['No process that loads data can start (is /dev/shm full?): the main one loads, as with --workers=0']


@pytest.mark.parametrize('error, reason', [
    (RuntimeError('Caught RuntimeError in DataLoader worker process 0.\nTraceback\nRuntimeError: unable to allocate shared memory(shm) for '
                  'file </torch_1_2>: No space left on device (28)'), 'no room in /dev/shm'),
    (RuntimeError('DataLoader worker (pid 7) is killed by signal: Bus error. It is possible that there is not enough shm'),
     'killed by signal: Bus error'),
    (RuntimeError('DataLoader worker (pid(s) 7, 12) exited unexpectedly'), 'exited unexpectedly'),
    (ConnectionResetError(104, 'Connection reset by peer'), 'killed'),
    (ConnectionError('Caught ConnectionError in DataLoader worker process 0.\nno answer'), ''),
    (RuntimeError('Caught RuntimeError in DataLoader worker process 0.\nsomething else'), ''), (UserError('DataLoader worker'), '')])
def test_how_a_worker_was_lost(error, reason):
    assert _lost_worker(error) == reason
