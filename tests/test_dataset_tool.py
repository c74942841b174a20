"""dataset_tool.py: what convert writes, in which order, what it leaves out and says; what check finds."""

import contextlib
import gzip
import json
import os
import subprocess
import sys
import zipfile
import zlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

import dataset_tool
from dnnlib.util import UserError
from tests.helpers import ROOT, error_line, run_command
from training.data.conversion import relabelled
from training.data.files import ImageFiles, decode
from training.data.workers import ordered_map
from training.dataset import ImageDataset, quick_check


def tool(*args):
    """Runs the tool in this process; a user's mistake comes as the exception that the command turns into a line."""
    dataset_tool.main.main([str(arg) for arg in args], standalone_mode=False)


def write_images(folder, values, size=(16, 16), mode='L', ending='png'):
    """Images 000.png, 001.png, ... of one value each."""
    folder.mkdir(parents=True, exist_ok=True)
    for i, value in enumerate(values):
        Image.new(mode, size, value).save(folder / f'{i:03d}.{ending}')
    return folder


def contents(path, use_labels=False):
    """([value of the first pixel of each image], [class of each] or None)"""
    with ImageDataset(path, use_labels=use_labels) as dataset:
        values = [int(dataset[i][0][0, 0, 0]) for i in range(len(dataset))]
        return values, [int(dataset.get_label(i).argmax()) for i in range(len(dataset))] if use_labels else None


def test_folder_to_zip_and_to_folder(tmp_path, capsys):
    write_images(tmp_path / 'src' / 'b', [10, 20, 30])
    write_images(tmp_path / 'src' / 'a', [40, 50])
    for dest in (tmp_path / 'set.zip', tmp_path / 'set'):
        tool('convert', tmp_path / 'src', dest)
        assert contents(dest, use_labels=True) == ([40, 50, 10, 20, 30], [0, 0, 1, 1, 1])
        with ImageDataset(dest, use_labels=True) as dataset:
            assert dataset.class_names == ['a', 'b'] and dataset.files.names[3] == '00000/img00000003.png'
            assert (dataset.resolution, dataset.num_channels) == (16, 1)
    assert ImageDataset(tmp_path / 'set.zip').digest == ImageDataset(tmp_path / 'set').digest
    out = capsys.readouterr().out
    assert '5 of 5 images -> 16x16x1, center-crop' in out and '5 images, 2 classes (a, b) of 2 to 3 images' in out
    with zipfile.ZipFile(tmp_path / 'set.zip') as archive:
        assert all(info.compress_type == zipfile.ZIP_STORED and info.external_attr >> 16 == 0o644 for info in archive.infolist())
    assert not list(tmp_path.glob('.tmp-*')) and not list(tmp_path.glob('*.report.json'))


def test_data_set_goes_through_again(tmp_path):
    """What convert wrote is a source whose labels and classes stay, also as a zip and at another size."""
    write_images(tmp_path / 'src' / 'b', [10, 20], mode='RGB')
    write_images(tmp_path / 'src' / 'a', [40], mode='RGB')
    tool('convert', tmp_path / 'src', tmp_path / 'one.zip')
    tool('convert', tmp_path / 'one.zip', tmp_path / 'two.zip', '--resolution=32')
    assert contents(tmp_path / 'two.zip', use_labels=True) == ([40, 10, 20], [0, 1, 1])
    assert ImageDataset(tmp_path / 'two.zip').class_names == ['a', 'b'] and ImageDataset(tmp_path / 'two.zip').resolution == 32


def test_several_sources_are_classes(tmp_path, capsys):
    write_images(tmp_path / 'dogs', range(10))
    write_images(tmp_path / 'cats', range(100, 104))
    tool('convert', tmp_path / 'dogs', tmp_path / 'cats', tmp_path / 'set.zip', '--max-per-class=5')
    assert contents(tmp_path / 'set.zip', use_labels=True) == ([0, 2, 4, 6, 8, 100, 101, 102, 103], [0] * 5 + [1] * 4)
    assert ImageDataset(tmp_path / 'set.zip').class_names == ['dogs', 'cats']
    tool('convert', tmp_path / 'dogs', tmp_path / 'cats', tmp_path / 'few.zip', '--max-images=7')
    assert contents(tmp_path / 'few.zip', use_labels=True) == ([0, 2, 4, 6, 8, 100, 102], [0] * 5 + [1] * 2)


def test_idx_is_padded_to_32(tmp_path, capsys):
    images = np.random.RandomState(0).randint(1, 256, (5, 28, 28), dtype=np.uint8)
    labels = np.array([3, 1, 4, 1, 5], np.uint8)
    for name, array in [('train-images-idx3-ubyte.gz', images), ('train-labels-idx1-ubyte.gz', labels)]:
        head = bytes([0, 0, 8, array.ndim]) + b''.join(n.to_bytes(4, 'big') for n in array.shape)
        (tmp_path / name).write_bytes(gzip.compress(head + array.tobytes()))
    tool('convert', tmp_path, tmp_path / 'set.zip')
    assert '-> 32x32x1, pad' in capsys.readouterr().out
    with ImageDataset(tmp_path / 'set.zip', use_labels=True) as dataset:
        np.testing.assert_array_equal(dataset[2][0], np.pad(images[2], 2)[None])
        assert [int(dataset.get_label(i).argmax()) for i in range(5)] == [3, 1, 4, 1, 5] and dataset.label_dim == 6
    tool('convert', tmp_path, tmp_path / 'small.zip', '--resolution=16')  # does not fit: resized
    assert ImageDataset(tmp_path / 'small.zip').resolution == 16 and 'center-crop' in capsys.readouterr().out


def test_transforms_and_colours_reach_the_pixels(tmp_path):
    write_images(tmp_path / 'src', [(200, 100, 0, 0)], size=(64, 32), mode='RGBA')
    for i, (options, corner, middle) in enumerate([
        (['--transform=letterbox', '--padding=#010203', '--background=#0a0b0c'], (1, 2, 3), (10, 11, 12)),
        (['--transform=letterbox', '--channels=4'], (0, 0, 0, 0), None),
        (['--transform=center-crop-wide', '--resolution=64x32', '--background=#0a0b0c'], (0, 0, 0), (10, 11, 12)),
        (['--transform=stretch'], (255, 255, 255), (255, 255, 255)),
        (['--channels=1', '--background=#404040'], (64,), (64,)),
    ]):
        tool('convert', tmp_path / 'src', tmp_path / f'{i}.zip', '--resolution=64', *options)
        image = ImageDataset(tmp_path / f'{i}.zip')[0][0]
        assert image.shape == (len(corner), 64, 64) and tuple(image[:, 0, 0]) == corner
        assert middle is None or tuple(image[:, 32, 32]) == middle
    tool('convert', tmp_path / 'src', tmp_path / 'wide.zip', '--resolution=64', '--transform=center-crop-wide', '--background=#ffffff')
    image = ImageDataset(tmp_path / 'wide.zip')[0][0]
    assert (image[:, 8:56] == 255).all() and (image[:, :8] == 0).all() and (image[:, 56:] == 0).all()  # 4:3 where no height is given


def test_channels_auto(tmp_path, capsys):
    write_images(tmp_path / 'grey', [1, 2])
    write_images(tmp_path / 'mixed', [1, 2])
    Image.new('RGB', (16, 16), (9, 8, 7)).save(tmp_path / 'mixed' / 'z.png')
    write_images(tmp_path / 'alpha', [(0, 0, 0, 0)], mode='RGBA')
    for name, channels in [('grey', 1), ('mixed', 3), ('alpha', 3)]:
        tool('convert', tmp_path / name, tmp_path / f'{name}.zip')
        assert ImageDataset(tmp_path / f'{name}.zip').num_channels == channels
    assert 'Note: 1 images had alpha, composited on #ffffff; --channels=4 keeps it' in capsys.readouterr().out


def test_broken_images_are_left_out_and_reported(tmp_path, capsys):
    src = write_images(tmp_path / 'src', range(6))
    (src / '002.png').write_bytes((src / '002.png').read_bytes()[:-20])
    (src / '004.png').write_bytes(b'junk')
    (src / 'dataset.json').write_text(json.dumps({'labels': [[f'{i:03d}.png', i] for i in range(5)]}))
    tool('convert', src, tmp_path / 'set.zip')
    assert contents(tmp_path / 'set.zip', use_labels=True) == ([0, 1, 3], [0, 1, 3])
    out = capsys.readouterr().out
    assert 'Skipped 3' in out and '1 x not an image' in out and '1 x no label in dataset.json' in out and 'set.zip: 3 images' in out
    skipped = json.loads((tmp_path / 'set.zip.report.json').read_text())['skipped']
    assert [os.path.basename(entry['file']).rpartition(': ')[2] for entry in skipped] == ['005.png', '002.png', '004.png']
    assert 'cannot be decoded' in skipped[1]['reason'] and skipped[2]['reason'] == 'not an image'


def test_one_picture_of_too_many_pixels_does_not_end_a_conversion(tmp_path, capsys):
    src = write_images(tmp_path / 'src', range(3))
    huge = bytearray((src / '001.png').read_bytes())
    huge[16:24] = (200_000).to_bytes(4, 'big') * 2
    huge[29:33] = zlib.crc32(huge[12:29]).to_bytes(4, 'big')
    (src / '001.png').write_bytes(huge)
    tool('convert', src, tmp_path / 'set.zip')
    assert contents(tmp_path / 'set.zip')[0] == [0, 2]
    assert '1 x 200000x200000 is more than' in capsys.readouterr().out


def test_files_that_are_no_known_pictures_are_reported(tmp_path, capsys):
    src = write_images(tmp_path / 'src', range(2))
    for name in ('IMG_1.HEIC', 'IMG_2.heic', 'raw.CR2', 'scan', 'notes.txt', '.hidden.heic'):
        (src / name).write_bytes(b'')
    tool('convert', src, tmp_path / 'set.zip')
    out = capsys.readouterr().out
    assert 'Skipped 4' in out and "2 x files of the kind '.heic' are not read: save them as PNG or JPEG: " in out and '1 x no ending' in out
    skipped = json.loads((tmp_path / 'set.zip.report.json').read_text())['skipped']
    assert [Path(entry['file'].rpartition(': ')[2]).name for entry in skipped] == ['IMG_1.HEIC', 'IMG_2.heic', 'raw.CR2', 'scan']
    for path in src.glob('*.png'):
        path.unlink()
    with pytest.raises(UserError, match='holds no images .*, but 5 other files such as IMG_1.HEIC'):
        tool('convert', src, tmp_path / 'none.zip')


def test_classes_keep_their_numbers_when_the_last_are_skipped(tmp_path, capsys):
    src = write_images(tmp_path / 'src', range(4))
    (src / '003.png').write_bytes(b'junk')
    labels = [[f'{i:03d}.png', i] for i in range(4)]
    (src / 'dataset.json').write_text(json.dumps({'labels': [*labels, ['lost.png', 5]]}))
    tool('convert', src, tmp_path / 'set.zip')
    assert '3 images, 6 classes (0, 1, 2, 3, 4, 5) of 0 to 1 images' in capsys.readouterr().out
    with ImageDataset(tmp_path / 'set.zip', use_labels=True) as dataset:
        assert dataset.label_dim == 6 and dataset.get_label(2).tolist() == [0, 0, 1, 0, 0, 0]


def test_classes_without_names_get_numbers_when_the_last_are_skipped(tmp_path, capsys):
    src = write_images(tmp_path / 'src', range(4))
    (src / 'dataset.json').write_text(json.dumps({'labels': [[f'{i:03d}.png', i] for i in range(4)]}))
    tool('convert', src, tmp_path / 'all.zip')
    assert ImageDataset(tmp_path / 'all.zip', use_labels=True).class_names is None
    (src / '003.png').write_bytes(b'junk')
    tool('convert', src, tmp_path / 'set.zip')
    assert '3 images, 4 classes (0, 1, 2, 3) of 0 to 1 images' in capsys.readouterr().out
    assert ImageDataset(tmp_path / 'set.zip', use_labels=True).label_dim == 4


def test_workers_change_nothing(tmp_path):
    src = tmp_path / 'src'
    src.mkdir()
    for i in range(150):
        Image.fromarray(np.random.RandomState(i).randint(0, 256, (20, 24, 3), dtype=np.uint8)).save(src / f'{i:03d}.png')
    (src / '077.png').write_bytes(b'junk')
    for workers in (1, 2):
        tool('convert', src, tmp_path / f'{workers}.zip', '--resolution=16', f'--workers={workers}')
    assert (tmp_path / '1.zip').read_bytes() == (tmp_path / '2.zip').read_bytes()
    assert len(ImageDataset(tmp_path / '1.zip')) == 149


def test_killed_worker_is_one_line():
    with pytest.raises(UserError, match='worker process was ended .* lower --workers=2'):
        list(ordered_map(os._exit, iter([9]), 2, 10_000))


@pytest.mark.parametrize('args, message', [
    (['{src}'], "Missing argument 'SOURCE...'"),
    (['{tmp}/missing', '{tmp}/d.zip'], 'missing does not exist'),
    (['{src}', '{src}'], 'src exists already'),
    (['{src}', '{src}/inside', '--resolution=16'], 'inside is inside'),
    (['{src}', '{tmp}/no/d.zip'], 'no is no folder: make it'),
    (['{src}', '{tmp}/d.zip'], 'is 40x30, not a size that training takes (a power of two'),
    (['{src}', '{tmp}/d.zip', '--resolution=100'], '--resolution=100: training takes a power of two from 16 to 1024'),
    (['{src}', '{tmp}/d.zip', '--resolution=2048'], '--resolution=2048: training takes'),
    (['{src}', '{tmp}/d.zip', '--resolution=64x40'], '--resolution=64x40: training takes a power of two'),
    (['{src}', '{tmp}/d.zip', '--resolution=32x64', '--transform=center-crop-wide'], 'and a height up to that'),
    (['{src}', '{tmp}/d.zip', '--resolution=16', '--transform=pad'], 'none of 2 images can be used, nothing is written.'),
    (['{src}', '{tmp}/d', '--resolution=16', '--transform=pad'], '000.png: 40x30 does not fit into 16x16'),
    (['{src}', '{tmp}/d.zip', '--resolution=16', '--max-per-class=3'], '--max-per-class needs classes'),
    (['{src}', '{tmp}/d.zip', '--resolution=16', '--background=red'], "'red' is not a colour: write #rrggbb"),
])
def test_mistakes(tmp_path, args, message):
    write_images(tmp_path / 'src', [1, 2], size=(40, 30))
    with pytest.raises(Exception) as caught:  # noqa: B017 UserError or one of click's
        tool('convert', *(arg.format(tmp=tmp_path, src=tmp_path / 'src') for arg in args))
    text = caught.value.format_message() if hasattr(caught.value, 'format_message') else str(caught.value)
    assert message in text and '\n' not in text
    assert sorted(os.listdir(tmp_path)) == ['src']  # nothing half-written


def test_check_lists_every_bad_file(tmp_path, capsys):
    path = write_images(tmp_path / 'set', [(i, 0, 0) for i in range(12)], mode='RGB')
    tool('check', path)
    assert 'is fine: 12 images of 16x16x3, no labels, digest ' + ImageDataset(path).digest[:16] in capsys.readouterr().out
    (path / '001.png').write_bytes((path / '001.png').read_bytes()[:-20])
    (path / '002.png').write_bytes(b'junk')
    Image.new('RGB', (32, 32)).save(path / '000.png')  # the first is the odd one, not all others
    Image.new('L', (16, 16)).save(path / '004.png')
    labels = [[f'{i:03d}.png', 0] for i in range(13) if i != 5]
    (path / 'dataset.json').write_text(json.dumps({'labels': labels}))
    with pytest.raises(UserError, match='set: 6 problems in 12 images'):
        tool('check', path)
    lines = capsys.readouterr().out.splitlines()
    assert [line[:7] for line in lines] == ['001.png', '002.png', '000.png', '004.png', '005.png', '012.png']
    for line, part in zip(lines, ['cannot be decoded', 'not an image -> copy it again, or remove it', 'is 32x32, but 003.png is 16x16',
                                  'has 1 channels', 'has no label in dataset.json -> add one', 'is not there'], strict=True):
        assert part in line
    (path / 'dataset.json').write_text('{')
    with pytest.raises(UserError, match='5 problems'):
        tool('check', path)
    assert 'dataset.json is not valid JSON' in capsys.readouterr().out.splitlines()[0]


def test_check_from_the_shell(tmp_path):
    done = run_command('dataset_tool.py', 'check', 'demo')
    names = 'smileys, people, animals, food, travel, activities, objects, symbols, flags'
    assert done.returncode == 0 and f'3391 images of 64x64x3, 9 classes ({names}) of 85 to 1881' in done.stdout
    path = write_images(tmp_path / 'odd', [1, 2], size=(20, 20))
    done = run_command('dataset_tool.py', 'check', path)
    assert error_line(done) == f'Error: {path}: 2 problems in 2 images, listed above'
    assert done.stdout.startswith('000.png: is 20x20: training needs a power of two from 16 to 1024 as the side of squares, or')
    with pytest.raises(UserError, match='odd: 000.png is 20x20'):
        quick_check(path)


def test_shards(tmp_path, capsys):
    write_images(tmp_path / 'src' / 'b', [10, 20, 30])
    write_images(tmp_path / 'src' / 'a', [40, 50])
    tool('convert', tmp_path / 'src', tmp_path / 'set.zip', '--workers=1')
    tool('shard', tmp_path / 'set.zip', tmp_path / 'whole', '--no-shuffle')
    assert contents(tmp_path / 'whole', use_labels=True) == contents(tmp_path / 'set.zip', use_labels=True)
    tool('shard', tmp_path / 'set.zip', tmp_path / 'mixed', '--shard-mb=1', '--prefix=x-')
    assert sorted(contents(tmp_path / 'mixed')[0]) == [10, 20, 30, 40, 50] and (tmp_path / 'mixed' / 'x-000000.tar').is_file()
    tool('check', tmp_path / 'whole')
    assert 'is fine: 16x16x1, 2 classes (a, b) of 2 to 3 images, 5 images in 1 shards' in capsys.readouterr().out
    (tmp_path / 'mixed' / 'index.json').unlink()
    tool('index', tmp_path / 'mixed' / 'x-000000.tar')
    assert sorted(contents(f'{tmp_path}/mixed/*.tar')[0]) == [10, 20, 30, 40, 50]
    tool('index', tmp_path / 'mixed' / 'index.json', '--out', tmp_path / 'whole.json')
    assert json.loads((tmp_path / 'whole.json').read_text())['class_counts'] == [2, 3]
    tar = tmp_path / 'mixed' / 'x-000000.tar'
    tar.write_bytes(tar.read_bytes()[:-512])
    capsys.readouterr()
    with pytest.raises(UserError, match='1 problems in 1 shards of 5 images'):
        tool('check', tmp_path / 'mixed')
    assert capsys.readouterr().out == 'x-000000.tar: its SHA-256 is not that of the index: copy or make it again\n'
    for args, message in [(('shard', tmp_path / 'set.zip', tmp_path / 'whole'), 'exists already'),
                          (('shard', tmp_path / 'set.zip', tmp_path / 'new', '--prefix=a/b'), "--prefix='a/b'"),
                          (('index', tmp_path / 'set.zip'), 'give tars, or index.json files'),
                          (('index', tmp_path / 'no.tar'), 'does not exist'),
                          (('index', tmp_path / 'whole.json'), '--out is missing')]:
        with pytest.raises(UserError, match=message):
            tool(*args)
    (tmp_path / 'part').mkdir()
    write_images(tmp_path / 'part', [1, 2])
    (tmp_path / 'part' / 'dataset.json').write_text('{"labels": [["000.png", 0]]}')
    with pytest.raises(UserError, match='001.png has no label in dataset.json'):
        tool('shard', tmp_path / 'part', tmp_path / 'new')
    assert not (tmp_path / 'new').exists()


def test_help_needs_no_torch():
    for args in (['--help'], ['convert', '--help'], ['check', '--help'], ['cluster', '--help']):
        check = 'assert not {"torch", "numpy"} & {*sys.modules}'
        code = f'import sys, dataset_tool\ntry: dataset_tool.main({args})\nexcept SystemExit: {check}'
        done = subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0 and 'Usage: ' in done.stdout, done.stderr
    code = 'import sys, training.data.conversion, training.data.sources; assert "torch" not in sys.modules'
    assert subprocess.run([sys.executable, '-c', code], cwd=ROOT).returncode == 0


def test_native_pictures_keep_pixels_size_and_shape(tmp_path, capsys):
    random = np.random.RandomState(0)
    (tmp_path / 'src').mkdir()
    pictures = {}
    for name, (width, height) in {'a': (40, 33), 'b': (32, 70), 'c': (31, 90), 'd': (64, 64)}.items():
        pictures[name] = random.randint(0, 256, [height, width, 3], np.uint8)
        Image.fromarray(pictures[name]).save(tmp_path / 'src' / f'{name}.png')
    tool('convert', tmp_path / 'src', tmp_path / 'set.zip', '--native', '--resolution=32')
    out = capsys.readouterr().out
    assert '4 of 4 images -> at least 32x32x3, native' in out and '1 x 31x90 is smaller than 32x32' in out
    with contextlib.closing(ImageFiles(tmp_path / 'set.zip')) as files:
        assert files.least_side() == 32 and [files.header(name)[:2] for name in files.names] == [(40, 33), (32, 70), (64, 64)]
        for name, key in zip(files.names, 'abd', strict=True):
            assert np.array_equal(decode(files.read(name)).transpose(1, 2, 0), pictures[key])
    tool('check', tmp_path / 'set.zip')
    assert '3 images of 32x70 to 64x64x3, half of them 1.03 times 32 or more, no labels' in capsys.readouterr().out


def test_what_windows_cannot_use_is_named(tmp_path, capsys):
    write_images(tmp_path / 'set', [1, 2, 3], size=(40, 33))
    Image.new('L', (40, 20)).save(tmp_path / 'set' / 'small.png')
    Image.new('RGB', (40, 40)).save(tmp_path / 'set' / 'colour.png')
    (tmp_path / 'set' / 'dataset.json').write_text('{"labels": null, "native": 32}')
    with pytest.raises(UserError, match='2 problems in 5 images'):
        tool('check', tmp_path / 'set')
    out = capsys.readouterr().out
    assert 'small.png: is 40x20, smaller than 32x32' in out and '--native --resolution=32' in out
    assert 'colour.png: has 3 channels, but the first has 1' in out


@pytest.mark.parametrize('options, says', [
    (['--native', '--transform=stretch'], 'leave out --transform=stretch'),
    (['--native', '--resolution=48'], '--native --resolution=48: the size of training windows'),
    (['--native', '--resolution=1024'], 'none of 1 images can be used'),
])
def test_native_mistakes(tmp_path, options, says):
    write_images(tmp_path / 'src', [1], size=(64, 48))
    with pytest.raises(UserError, match=says):
        tool('convert', tmp_path / 'src', tmp_path / 'set.zip', *options)


def test_clusters_of_a_set(tmp_path, capsys):
    for folder in ('cat', 'dog'):
        write_images(tmp_path / 'src' / folder, [0, 255, 1, 254, 2, 253], size=(32, 32))
    tool('convert', tmp_path / 'src', tmp_path / 'set.zip')
    for dest in (tmp_path / 'clusters.zip', tmp_path / 'clusters'):
        tool('cluster', tmp_path / 'set.zip', dest, '--clusters=4', '--device=cpu')
        with ImageDataset(tmp_path / 'set.zip') as source, ImageDataset(dest, use_labels=True) as dataset:
            assert dataset.class_names == ['cat/1', 'dog/1', 'cat/2', 'dog/2'] and dataset.files.names == source.files.names
            assert all(dataset.files.read(name) == source.files.read(name) for name in source.files.names)
            labels = [dataset.class_names[dataset.get_label(i).argmax()] for i in range(12)]
            assert labels == ['cat/1', 'cat/2'] * 3 + ['dog/1', 'dog/2'] * 3
            assert dataset.item_classes.tolist() == [0] * 6 + [1] * 6  # groups of a batch are of cats, or of dogs
            assert dataset.class_sizes == [3] * 4
            assert len(dataset.labels.looks) == 4 and len({len(row) for row in dataset.labels.looks}) == 1
    assert '12 images, 4 classes (cat/1, dog/1, cat/2, dog/2) of 3 images' in capsys.readouterr().out
    tool('convert', tmp_path / 'src', tmp_path / 'small.zip', '--resolution=16')
    tool('cluster', tmp_path / 'small.zip', tmp_path / 'small-clusters.zip', f'--like={tmp_path}/clusters.zip')
    with ImageDataset(tmp_path / 'clusters') as other, ImageDataset(tmp_path / 'small-clusters.zip', use_labels=True) as dataset:
        assert dataset.resolution == 16 and dataset.labels == other.labels
    pictures = sorted((tmp_path / 'src').glob('*/*.png'))
    for number, path in enumerate(pictures):  # others of the same classes, so with the same names
        Image.fromarray(np.random.RandomState(number).randint(0, 256, (32, 32), np.uint8)).save(path)
    tool('convert', tmp_path / 'src', tmp_path / 'others.zip')
    pictures[0].unlink()
    tool('convert', tmp_path / 'src', tmp_path / 'moved.zip')
    tool('cluster', tmp_path / 'others.zip', tmp_path / 'others-clusters.zip', '--clusters=4', '--device=cpu')
    for source, like, message in (('others.zip', 'clusters.zip', 'have not the same pictures under the same names'),
                                  ('moved.zip', 'others-clusters.zip', 'are not the same pictures')):
        with pytest.raises(UserError, match=message):
            tool('cluster', tmp_path / source, tmp_path / 'again.zip', f'--like={tmp_path / like}')
    with zipfile.ZipFile(tmp_path / 'others.zip') as source, zipfile.ZipFile(tmp_path / 'broken.zip', 'w') as broken:
        for name in source.namelist():
            broken.writestr(name, source.read(name)[:-40] if name.endswith('3.png') else source.read(name))
    for options in (['--clusters=4', '--device=cpu'], [f'--like={tmp_path}/others-clusters.zip']):
        with pytest.raises(UserError, match=r'img00000003.png: cannot be decoded'):
            tool('cluster', tmp_path / 'broken.zip', tmp_path / 'again.zip', *options)
    assert not (tmp_path / 'again.zip').exists()
    with zipfile.ZipFile(tmp_path / 'others.zip') as source, zipfile.ZipFile(tmp_path / 'vectors.zip', 'w') as vectors:
        names = [name for name in source.namelist() if name.endswith('.png')]
        for name in names:
            vectors.writestr(name, source.read(name))
        vectors.writestr('dataset.json', json.dumps({'labels': [[name, [0, 1]] for name in names], 'classes': ['cat', 'dog']}))
    tool('cluster', tmp_path / 'vectors.zip', tmp_path / 'vectors-clusters.zip', f'--like={tmp_path}/others-clusters.zip')
    for other, message in (('set.zip', 'has no clusters'), ('few.zip', 'is not in')):
        if other == 'few.zip':
            tool('convert', tmp_path / 'src', tmp_path / 'f.zip', '--max-images=3')
            tool('cluster', tmp_path / 'f.zip', tmp_path / 'few.zip', '--clusters=1', '--device=cpu')
        with pytest.raises(UserError, match=message):
            tool('cluster', tmp_path / 'small.zip', tmp_path / 'again.zip', f'--like={tmp_path / other}')
    with pytest.raises(UserError, match='--clusters has no effect'):
        tool('cluster', tmp_path / 'small.zip', tmp_path / 'again.zip', '--like=x', '--clusters=3')
    with pytest.raises(UserError, match='exists already'):
        tool('cluster', tmp_path / 'set.zip', tmp_path / 'clusters.zip')
    with pytest.raises(UserError, match='divided already'):
        tool('cluster', tmp_path / 'clusters.zip', tmp_path / 'again.zip')
    tool('shard', tmp_path / 'set.zip', tmp_path / 'shards')
    for source in (tmp_path / 'shards' / 'index.json', f'{tmp_path}/set.zip,{tmp_path}/clusters.zip'):
        with pytest.raises(UserError, match='give one zip or folder'):
            tool('cluster', source, tmp_path / 'again.zip')
    with pytest.raises(UserError, match='is inside'):
        tool('cluster', tmp_path / 'clusters', tmp_path / 'clusters' / 'again')
    with pytest.raises(UserError, match='is no folder'):
        tool('cluster', tmp_path / 'set.zip', tmp_path / 'none' / 'again.zip')
    for prefix in 'ab':
        tool('shard', tmp_path / 'clusters.zip', tmp_path / prefix, f'--prefix={prefix}-')
    tool('index', tmp_path / 'a' / 'index.json', tmp_path / 'b' / 'index.json', f'--out={tmp_path}/index.json')
    tool('convert', tmp_path / 'clusters', tmp_path / 'converted.zip', '--resolution=16')
    assert json.loads((tmp_path / 'index.json').read_text())['looks'] == ImageDataset(tmp_path / 'clusters').labels.looks
    for copy in (f'{tmp_path}/clusters.zip,{tmp_path}/clusters', tmp_path / 'a', tmp_path / 'converted.zip'):
        with ImageDataset(copy) as dataset, ImageDataset(tmp_path / 'clusters') as first:
            assert dataset.labels.looks == first.labels.looks and dataset.class_names == first.class_names, copy
    assert not (tmp_path / 'again.zip').exists()


def test_clusters_of_a_set_with_a_damaged_picture_or_a_name_that_leads_out(tmp_path):
    write_images(tmp_path / 'src', [0, 200, 30], size=(32, 32))
    (tmp_path / 'src' / '001.png').write_bytes(b'no picture')
    with pytest.raises(UserError, match='leads out of a folder'):
        relabelled(SimpleNamespace(names=['/tmp/x.png'], path='set'), [0], ['a'], tmp_path / 'dest')
    with zipfile.ZipFile(tmp_path / 'set.zip', 'w') as archive:
        for file in sorted((tmp_path / 'src').iterdir()):
            archive.write(file, file.name)
    data = bytearray((tmp_path / 'set.zip').read_bytes())
    data[data.index(b'no picture')] ^= 1  # what the zip's checksum does not fit
    (tmp_path / 'set.zip').write_bytes(data)
    with pytest.raises(UserError, match='001.png'):
        tool('cluster', tmp_path / 'set.zip', tmp_path / 'clusters.zip', '--device=cpu')
    assert not (tmp_path / 'clusters.zip').exists()


def test_clusters_of_pictures_as_they_were(tmp_path):
    write_images(tmp_path / 'src', [0, 200, 30], size=(48, 40))
    tool('convert', tmp_path / 'src', tmp_path / 'native.zip', '--native', '--resolution=32')
    tool('cluster', tmp_path / 'native.zip', tmp_path / 'clusters.zip', '--res=32', '--device=cpu')
    with ImageDataset(tmp_path / 'clusters.zip', use_labels=True, resolution=32) as dataset:
        assert dataset.class_names == ['all/1'] and dataset.files.least_side() == 32
