"""Every kind of source, made here in miniature, and damaged ones."""

import gzip
import io
import json
import pickle
import tarfile
import zipfile

import numpy as np
import pytest
from PIL import Image

from dnnlib.util import UserError
from tests.helpers import ROOT
from training.data.files import decode
from training.data.sources import FileSource, open_source, read_idx

RNG = np.random.RandomState(0)


def write_images(folder, names):
    """Writes an image of one grey value each: 0, 1, 2, ..."""
    for i, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new('L', (16, 16), i).save(path)


def write_idx(path, array):
    head = bytes([0, 0, 8, array.ndim]) + b''.join(n.to_bytes(4, 'big') for n in array.shape)
    data = head + array.tobytes()
    path.write_bytes(gzip.compress(data) if path.suffix == '.gz' else data)


def write_lmdb(path, values):
    import lmdb

    with lmdb.open(str(path), map_size=1 << 20) as environment, environment.begin(write=True) as transaction:
        for i, value in enumerate(values):
            transaction.put(f'key{i}'.encode(), value)


def cifar_batches(per_batch=3):
    """(files of a CIFAR-10 archive by name, images [N, 32, 32, 3], labels), pickled as in the original: protocol 2, keys as bytes."""
    images = RNG.randint(0, 256, (5, per_batch, 32, 32, 3), dtype=np.uint8)
    labels = RNG.randint(0, 10, (5, per_batch))
    names = [f'class{i}' for i in range(10)]
    files = {'batches.meta': pickle.dumps({b'label_names': [name.encode() for name in names]}, 2), 'readme.html': b'',
             'test_batch': pickle.dumps({}, 2)}
    for i in range(5):
        data = images[i].transpose(0, 3, 1, 2).reshape(per_batch, -1)
        files[f'data_batch_{i + 1}'] = pickle.dumps({b'data': data, b'labels': labels[i].tolist(), b'batch_label': b'batch'}, 2)
    return files, images.reshape(-1, 32, 32, 3), labels.ravel().tolist()


def write_cifar(path, files):
    with tarfile.open(path, 'w:gz') as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(f'cifar-10-batches-py/{name}')
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


def value(source, i):
    """The grey value of image i, which is all of one value."""
    return decode(source.read(i))[0, 0, 0]


def test_folder_names_are_classes(tmp_path):
    write_images(tmp_path, ['dog/b.png', 'cat/x/a.png', 'dog/a.gif'])
    source = open_source(tmp_path)
    assert isinstance(source, FileSource) and source.names == ['cat/x/a.png', 'dog/a.gif', 'dog/b.png']
    assert source.labels == [0, 1, 1] and source.classes == ['cat', 'dog']
    assert [value(source, i) for i in range(3)] == [1, 2, 0]
    with zipfile.ZipFile(tmp_path / 'set.zip', 'w') as archive:
        for name in source.names:
            archive.write(tmp_path / name, 'around/' + name)
    packed = open_source(tmp_path / 'set.zip')
    assert packed.labels == [0, 1, 1] and packed.classes == ['cat', 'dog'] and [value(packed, i) for i in range(3)] == [1, 2, 0]


def test_folders_that_are_no_classes(tmp_path):
    for case, names in {'one': ['only/a.png', 'only/b.png'], 'flat': ['a.png', 'b.png'], 'numbered': ['00000/a.png', '01000/b.png'],
                        'mixed': ['a.png', 'x/b.png', 'y/c.png']}.items():
        write_images(tmp_path / case, names)
        source = open_source(tmp_path / case)
        assert source.labels is None and source.classes is None and len(source) == len(names)
        assert bool(source.notes) == (case == 'mixed')


def test_dataset_json_comes_before_folder_names(tmp_path):
    write_images(tmp_path, ['x/a.png', 'y/b.png', 'y/c.png'])
    (tmp_path / 'dataset.json').write_text(json.dumps({'labels': [['x/a.png', 4], ['y/c.png', 0]]}))
    source = open_source(tmp_path)
    assert source.labels == [4, None, 0] and source.classes is None


def test_lmdb(tmp_path):
    out = io.BytesIO()
    Image.new('L', (16, 16), 77).save(out, 'webp', lossless=True)
    write_lmdb(tmp_path / 'bedroom_lmdb', [out.getvalue(), b'broken'])
    for path in (tmp_path / 'bedroom_lmdb', tmp_path / 'bedroom_lmdb' / 'data.mdb'):
        source = open_source(path)
        assert source.names == ['key0', 'key1'] and source.labels is None
        assert source.read(0) == out.getvalue() and source.read(1) == b'broken'
        del source
    write_lmdb(tmp_path / 'empty', [])
    with pytest.raises(UserError, match='empty is an lmdb without entries'):
        open_source(tmp_path / 'empty')
    (tmp_path / 'bad').mkdir()
    (tmp_path / 'bad' / 'data.mdb').write_bytes(b'no database' * 1000)
    with pytest.raises(UserError, match='bad cannot be read as an lmdb'):
        open_source(tmp_path / 'bad')


def test_cifar(tmp_path):
    files, images, labels = cifar_batches()
    write_cifar(tmp_path / 'cifar-10-python.tar.gz', files)
    (tmp_path / 'unpacked').mkdir()
    for name, content in files.items():
        (tmp_path / 'unpacked' / name).write_bytes(content)
    for path in (tmp_path / 'cifar-10-python.tar.gz', tmp_path / 'unpacked'):
        source = open_source(path)
        assert source.labels == labels and source.classes[9] == 'class9' and len(source) == 15
        np.testing.assert_array_equal(source.read(7), images[7])
    files['data_batch_3'] = pickle.dumps({b'data': np.zeros((2, 5), np.uint8), b'labels': [0, 1]}, 2)
    write_cifar(tmp_path / 'wrong.tar.gz', files)
    with pytest.raises(UserError, match='wrong.tar.gz: data_batch_3 is not a file of the CIFAR-10 python version'):
        open_source(tmp_path / 'wrong.tar.gz')
    wrong = {'labels': {b'data': np.zeros((2, 3072), np.uint8), b'labels': [0, -1]}, 'keys': {b'data': 1}, 'list': [1]}
    for name, content in wrong.items():
        write_cifar(tmp_path / f'{name}.tar.gz', {**files, 'data_batch_3': pickle.dumps(content, 2)})
        with pytest.raises(UserError, match=f'{name}.tar.gz: data_batch_3 is not a file of the CIFAR-10 python version'):
            open_source(tmp_path / f'{name}.tar.gz')
    write_cifar(tmp_path / 'other.tar.gz', {'a.png': b''})
    with pytest.raises(UserError, match='is not the CIFAR-10 python archive'):
        open_source(tmp_path / 'other.tar.gz')
    (tmp_path / 'cut.tar.gz').write_bytes((tmp_path / 'cifar-10-python.tar.gz').read_bytes()[:3000])
    with pytest.raises(UserError, match='cut.tar.gz cannot be read as a tar archive'):
        open_source(tmp_path / 'cut.tar.gz')


@pytest.mark.parametrize('ending', ['', '.gz'])
def test_idx(tmp_path, ending):
    images, labels = RNG.randint(0, 256, (6, 28, 28), dtype=np.uint8), np.array([3, 1, 4, 1, 5, 9], np.uint8)
    write_idx(tmp_path / f'train-images-idx3-ubyte{ending}', images)
    write_idx(tmp_path / f't10k-images-idx3-ubyte{ending}', images[:2])
    source = open_source(tmp_path / f'train-images-idx3-ubyte{ending}')
    assert source.labels is None and source.padded and 'no labels' in source.notes[0]
    write_idx(tmp_path / f'train-labels-idx1-ubyte{ending}', labels)
    for path in (tmp_path, tmp_path / f'train-images-idx3-ubyte{ending}'):
        source = open_source(path)
        assert source.labels == [3, 1, 4, 1, 5, 9] and all(type(label) is int for label in source.labels)
        np.testing.assert_array_equal(source.read(4), images[4])
    assert len(open_source(tmp_path / f't10k-images-idx3-ubyte{ending}')) == 2
    with pytest.raises(UserError, match='holds labels: give the idx file with the images'):
        open_source(tmp_path / f'train-labels-idx1-ubyte{ending}')
    write_idx(tmp_path / f'train-labels-idx1-ubyte{ending}', labels[:4])
    with pytest.raises(UserError, match='has 4 labels for the 6 images'):
        open_source(tmp_path)


def test_damaged_idx(tmp_path):
    whole = tmp_path / 'train-images-idx3-ubyte.gz'
    write_idx(whole, RNG.randint(0, 256, (6, 28, 28), dtype=np.uint8))
    (tmp_path / 'cut-images-idx3-ubyte.gz').write_bytes(whole.read_bytes()[:2000])
    (tmp_path / 'short-images-idx3-ubyte').write_bytes(gzip.decompress(whole.read_bytes())[:-1])
    (tmp_path / 'floats-idx3-ubyte').write_bytes(b'\0\0\x0d\3' + bytes(20))
    for name, message in [('cut-images-idx3-ubyte.gz', 'is damaged'), ('short-images-idx3-ubyte', r'is damaged \(an array of shape'),
                          ('floats-idx3-ubyte', 'is not an idx file of bytes')]:
        with pytest.raises(UserError, match=message):
            read_idx(tmp_path / name)


def test_what_is_no_source(tmp_path):
    with pytest.raises(UserError, match='missing does not exist: give a folder, a zip, an lmdb'):
        open_source(tmp_path / 'missing')
    for name in ('test_dataset.py', 'helpers.py'):
        path = next((ROOT / 'tests').rglob(name))
        with pytest.raises(UserError, match='is neither a zip nor a folder of images'):
            open_source(path)
    with pytest.raises(UserError, match='holds no images'):
        open_source(tmp_path)
