"""Items, labels, mirroring and subsets of a data set; the sampler's order; mistakes in one line."""

import io
import json
import os
import shutil
import zipfile

import numpy as np
import pytest
from PIL import Image

from dnnlib.util import UserError
from tests.training.tiny import make_set
from training.dataset import ImageDataset, quick_check


@pytest.mark.parametrize('mode, channels', [('L', 1), ('RGB', 3), ('RGBA', 4)])
def test_items_are_the_pixels(tmp_path, mode, channels):
    pixels = make_set(tmp_path / 'five.zip', mode=mode)
    with ImageDataset(tmp_path / 'five.zip') as dataset:
        assert (len(dataset), dataset.name, dataset.resolution, dataset.num_channels) == (5, 'five', 16, channels)
        assert (dataset.label_dim, dataset.has_labels, dataset.class_names) == (0, False, None)
        for i in range(5):
            image, label = dataset[i]
            np.testing.assert_array_equal(image, pixels[i])
            assert image.dtype == np.uint8 and label.dtype == np.float32 and label.shape == (0,)
        with pytest.raises(IndexError):
            dataset[5]


def test_second_half_is_mirrored_left_to_right(tmp_path):
    pixels = make_set(tmp_path / 'set.zip', labels=[0, 1, 2, 1, 0])
    with ImageDataset(tmp_path / 'set.zip', use_labels=True, mirror=True) as dataset:
        assert len(dataset) == 10
        np.testing.assert_array_equal(dataset[3][0], pixels[3])
        np.testing.assert_array_equal(dataset[8][0], pixels[3][:, :, ::-1])
        np.testing.assert_array_equal(dataset[8][1], [0, 1, 0])
        np.testing.assert_array_equal(dataset[-1][0], pixels[4][:, :, ::-1])


def test_labels(tmp_path):
    make_set(tmp_path / 'index.zip', labels=[3, 0, 1, 1, 0], classes=['a', 'b', 'c', 'd', 'e'])
    with ImageDataset(tmp_path / 'index.zip', use_labels=True) as dataset:
        assert dataset.label_dim == 5 and dataset.class_names == ['a', 'b', 'c', 'd', 'e']
        np.testing.assert_array_equal(dataset.get_label(0), [0, 0, 0, 1, 0])
        np.testing.assert_array_equal(dataset[1][1], [1, 0, 0, 0, 0])
        assert dataset.class_sizes == [2, 2, 0, 1, 0]
    with ImageDataset(tmp_path / 'index.zip', use_labels=True, mirror=True, class_balance=1, subset=4, seed=1) as dataset:
        assert sum(dataset.class_sizes) == 4 and max(dataset.class_sizes) == 2
    with ImageDataset(tmp_path / 'index.zip') as dataset:
        assert dataset.label_dim == 0 and dataset.has_labels and dataset[0][1].shape == (0,) and dataset.class_sizes is None
    make_set(tmp_path / 'vector.zip', labels=[[0.5, i] for i in range(5)])
    with ImageDataset(tmp_path / 'vector.zip', use_labels=True) as dataset:
        assert dataset.label_dim == 2 and dataset.class_sizes is None
        np.testing.assert_array_equal(dataset.get_label(3), [0.5, 3])


@pytest.mark.parametrize('labels, classes, message', [
    ([[0, 1], [1, float('nan')]], None, r'img01.png is \[1, NaN\]: it must be a vector of 2 numbers'),
    ([[0, 1], [1, 10**400]], None, 'img01.png is .*: it must be a vector of 2 numbers'), ([[0, 1], [1]], None, 'a vector of 2 numbers'),
    ([[0, 1], 1], None, 'a vector of 2 numbers'), ([[]], None, 'a vector of 0'), ([[0, True]], None, 'a vector of 2'),
    ([[0, 1]], ['a', 'b', 'c'], '"classes" names 3, but labels are vectors of 2'),
])
def test_vectors_that_are_none(tmp_path, labels, classes, message):
    make_set(tmp_path / 'set.zip', count=len(labels), labels=labels, classes=classes)
    with pytest.raises(UserError, match=message):
        ImageDataset(tmp_path / 'set.zip', use_labels=True)


def test_a_name_with_two_labels(tmp_path):
    make_set(tmp_path / 'set.zip', count=2)
    for pairs, message in [([['img00.png', 1], ['img01.png', 0], ['img00.png', 1]], None),
                           ([['img00.png', 1], ['img01.png', 0], ['img00.png', 0]], 'img00.png has two labels, 1 and 0: remove one')]:
        shutil.copy(tmp_path / 'set.zip', tmp_path / 'labelled.zip')
        spoil(tmp_path / 'labelled.zip', 'dataset.json', json.dumps({'labels': pairs}))
        if message is None:
            assert ImageDataset(tmp_path / 'labelled.zip', use_labels=True).label_dim == 2
        else:
            with pytest.raises(UserError, match=message):
                ImageDataset(tmp_path / 'labelled.zip')
    spoil(tmp_path / 'set.zip', 'dataset.json', '[' * 100_000)
    with pytest.raises(UserError, match='dataset.json is not valid JSON'):
        ImageDataset(tmp_path / 'set.zip')


def test_subset_is_chosen_by_seed(tmp_path):
    pixels = make_set(tmp_path / 'set.zip', count=12, labels=range(12))

    def chosen(seed):
        with ImageDataset(tmp_path / 'set.zip', use_labels=True, mirror=True, subset=4, seed=seed) as dataset:
            assert len(dataset) == 8 and dataset.label_dim == 12
            which = [int(dataset.get_label(i).argmax()) for i in range(8)]
            np.testing.assert_array_equal(dataset[2][0], pixels[which[2]])
            assert which[:4] == which[4:] == sorted(set(which))
            return which[:4]

    assert chosen(0) == chosen(0) and len({tuple(chosen(seed)) for seed in range(8)}) > 4
    for subset in (0, 13):
        with pytest.raises(UserError, match=f'subset {subset}: .*give 1 to 12'):
            ImageDataset(tmp_path / 'set.zip', subset=subset)


def test_small_classes_are_shown_more_often(tmp_path):
    classes = [0] * 16 + [1] * 4 + [3]
    pixels = make_set(tmp_path / 'set.zip', count=21, labels=classes)

    def shown(strength, **options):
        with ImageDataset(tmp_path / 'set.zip', mirror=True, class_balance=strength, **options) as dataset:
            assert dataset.images == (options.get('subset') or 21)
            seen = [dataset._locate(i) for i in range(len(dataset))]
            assert seen[:len(seen) // 2] == [(name, False) for name, _ in seen[len(seen) // 2:]]
            return [int(name[3:5]) for name, flip in seen if not flip]

    assert shown(0) == list(range(21))
    for strength, counts in ((0.5, [16, 8, 4]), (1, [16, 16, 16]), (0.25, [16, 6, 2])):
        indices = shown(strength, use_labels=True)
        assert [sum(classes[i] == each for i in indices) for each in (0, 1, 3)] == counts
        assert set(indices) == set(range(21)) and shown(strength) == indices  # with or without --cond
    assert len({tuple(shown(0.25, seed=seed)) for seed in range(8)}) > 1  # who comes twice
    with ImageDataset(tmp_path / 'set.zip', use_labels=True, class_balance=1) as dataset:
        np.testing.assert_array_equal(dataset[47][0], pixels[20])
        assert dataset.drawn_label(47).tolist() == dataset.get_label(47).tolist() == [0, 0, 0, 1]
        assert dataset.left_out(9) is None
    with ImageDataset(tmp_path / 'set.zip', subset=18, class_balance=1) as dataset:
        rest = dataset.left_out(9)
        assert len(rest) == rest.images == 3
        assert {rest._locate(i)[0] for i in range(3)} | {dataset._locate(i)[0] for i in range(len(dataset))} == set(dataset.files.names)

    with ImageDataset(tmp_path / 'set.zip', class_balance=1, mirror=True) as dataset:
        assert dataset.distinct == 42 and [dataset._locate(i) for i in dataset.spread(64)] == \
            [(name, flip) for flip in (False, True) for name in dataset.files.names]
        assert [dataset._locate(i)[0][3:5] for i in dataset.spread(3)] == ['00', '20', '20']

    make_set(tmp_path / 'plain.zip')
    make_set(tmp_path / 'vectors.zip', labels=[[0, 1]] * 5)
    for name, problem in (('plain', 'has no labels: train without --class-balance=0.5, or '),
                          ('vectors', 'class-balance=0.5: the labels of .* are lists of numbers')):
        with pytest.raises(UserError, match=problem):
            ImageDataset(tmp_path / f'{name}.zip', class_balance=0.5)


def test_a_bad_image_that_is_repeated_is_left_out_like_any(tmp_path, capsys):
    pixels = make_set(tmp_path / 'set.zip', count=152, labels=[0] * 150 + [1, 2])
    with zipfile.ZipFile(tmp_path / 'set.zip') as archive:
        archive.extractall(tmp_path / 'set')
    os.truncate(tmp_path / 'set' / 'img150.png', 60)
    with ImageDataset(tmp_path / 'set', use_labels=True, class_balance=1) as dataset:
        image, label = dataset[150]  # the first of 150 repeats
        np.testing.assert_array_equal(image, pixels[151])
        assert label.tolist() == [0, 0, 1] and capsys.readouterr().err.count('Left out') == 1
        read = []
        dataset.take(150, lambda name, flip: read.append(name) or dataset._decoded(name))
        assert read == ['img150.png', 'img151.png']  # and is not tried 150 times


def test_digest_is_of_the_content(tmp_path):
    make_set(tmp_path / 'a.zip', labels=[0, 1, 2, 3, 4])
    make_set(tmp_path / 'b.zip', labels=[0, 1, 2, 3, 3])
    make_set(tmp_path / 'c.zip', count=4, labels=[0, 1, 2, 3])
    with zipfile.ZipFile(tmp_path / 'a.zip') as archive:
        archive.extractall(tmp_path / 'folder')
    digests = {name: ImageDataset(tmp_path / name).digest for name in ('a.zip', 'b.zip', 'c.zip', 'folder')}
    assert digests['a.zip'] == digests['folder'] == ImageDataset(tmp_path / 'a.zip', use_labels=True, mirror=True, subset=2).digest
    assert len(set(digests.values())) == 3


def test_mistakes_are_one_line(tmp_path):
    make_set(tmp_path / 'small.zip', size=8)
    make_set(tmp_path / 'odd.zip', size=48)
    make_set(tmp_path / 'plain.zip')
    make_set(tmp_path / 'part.zip', count=3, labels=[0, 1])
    with zipfile.ZipFile(tmp_path / 'wide.zip', 'w') as archive, archive.open('w.png', 'w') as file:
        Image.new('RGB', (32, 24)).save(file, 'png')
    for name, labels, message in [
        ('missing.zip', False, 'does not exist'),
        ('small.zip', False, 'img00.png is 8x8: training needs a power of two from 16 to 1024'),
        ('odd.zip', False, 'DEST.zip --resolution=32'),
        ('wide.zip', False, 'w.png is 32x24: training needs a power of two'),
        ('plain.zip', True, 'has no labels: train without --cond'),
        ('part.zip', True, 'img02.png has no label in dataset.json'),
    ]:
        with pytest.raises(UserError) as caught:
            quick_check(tmp_path / name, use_labels=labels)
        assert message in str(caught.value) and str(tmp_path / name) in str(caught.value) and '\n' not in str(caught.value)


def test_pictures_of_other_kinds_are_told(tmp_path, capsys):
    make_set(tmp_path / 'set.zip')
    quick_check(tmp_path / 'set.zip')
    for name in ('readme.txt', 'IMG_1.HEIC', 'scan'):
        spoil(tmp_path / 'set.zip', name, b'')
    assert capsys.readouterr().out == ''
    quick_check(tmp_path / 'set.zip')
    assert "set.zip are left out, such as IMG_1.HEIC: files of the kind '.heic' are not read" in capsys.readouterr().out


def spoil(path, name, content):
    """Adds an image to a zip."""
    with zipfile.ZipFile(path, 'a') as archive:
        archive.writestr(name, content)


def test_odd_one_out_is_named(tmp_path):
    def png(size, mode):
        out = io.BytesIO()
        Image.new(mode, (size, size)).save(out, 'png')
        return out.getvalue()

    for name, content, message in [('size', png(32, 'RGB'), 'zz.png is 32x32, but img00.png is 16x16'),
                                   ('mode', png(16, 'L'), 'zz.png has 1 channels, but img00.png has 3'),
                                   ('junk', b'junk', 'zz.png: not an image. Every bad file is listed by: python dataset_tool.py check')]:
        path = tmp_path / f'{name}.zip'
        make_set(path, count=40)
        quick_check(path, most=5)
        spoil(path, 'zz.png', content)
        with pytest.raises(UserError) as caught:
            quick_check(path, most=5)
        assert message in str(caught.value) and str(path) in str(caught.value)


def whole_and_cut(tmp_path, **options):
    """A set whose images 2 and 3 can be opened but not decoded, and the pixels of all."""
    pixels = make_set(tmp_path / 'whole.zip', **options)
    with zipfile.ZipFile(tmp_path / 'whole.zip') as whole, zipfile.ZipFile(tmp_path / 'set.zip', 'w') as archive:
        for name in whole.namelist():
            content = whole.read(name)
            archive.writestr(name, content[:-60] if name in ('img02.png', 'img03.png') else content)
    return pixels


@pytest.mark.parametrize('keep', [True, False])
def test_a_bad_image_is_named_and_left_out(tmp_path, capsys, monkeypatch, keep):
    monkeypatch.setattr('training.dataset.KEEP_BYTES', 1 << 20 if keep else 0)
    pixels = whole_and_cut(tmp_path, labels=range(5))
    quick_check(tmp_path / 'set.zip')  # the headers are whole: only decoding tells
    with ImageDataset(tmp_path / 'set.zip', use_labels=True, mirror=True) as dataset:
        assert len(dataset) == 10 and bool(dataset._kept) is False
        for i, shown in [(2, 4), (3, 4), (4, 4), (7, 9), (-3, 9), (0, 0), (2, 4)]:
            image, label = dataset[i]
            np.testing.assert_array_equal(image, pixels[shown % 5][:, :, ::-1] if shown > 4 else pixels[shown])
            assert label.argmax() == shown % 5
            image[:] = 0  # a caller may do as it likes with what it got
        assert set(dataset._kept) == ({'img00.png', 'img04.png'} if keep else set())
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2 and all(line.startswith('Left out, the next image takes its place: ') for line in lines)
    assert f'{tmp_path}/set.zip: img02.png: cannot be decoded' in lines[0] and 'python dataset_tool.py check' in lines[0]


def test_other_sizes_are_left_out_and_a_set_that_is_gone_ends(tmp_path, capsys):
    make_set(tmp_path / 'set.zip', count=3)
    with zipfile.ZipFile(tmp_path / 'set.zip') as archive:
        archive.extractall(tmp_path / 'set')
    Image.new('RGB', (32, 32)).save(tmp_path / 'set' / 'img01.png')
    (tmp_path / 'set' / 'img02.png').unlink()
    (tmp_path / 'set' / 'img02.png').symlink_to(tmp_path / 'nowhere')
    dataset = ImageDataset(tmp_path / 'set')
    assert len(dataset.digest) == 64
    assert (dataset[1][0] == dataset[0][0]).all() and (dataset[2][0] == dataset[0][0]).all()
    err = capsys.readouterr().err
    assert 'img01.png: is 32x32, but the first is 16x16' in err and 'img02.png: is not a file' in err
    dataset = ImageDataset(tmp_path / 'set')
    (tmp_path / 'set').rename(tmp_path / 'gone')
    with pytest.raises(UserError, match='3 images in a row cannot be used, from img01.png on: is the disk still there'):
        dataset[1]


def test_classes_in_groups_are_balanced_as_groups(tmp_path):
    make_set(tmp_path / 'set.zip', 12, labels=[0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 2, 3], classes=['a/1', 'a/2', 'b/1', 'b/2'])
    with ImageDataset(tmp_path / 'set.zip', use_labels=True, class_balance=1) as dataset:
        assert dataset.item_classes.tolist().count(0) == dataset.item_classes.tolist().count(1) == 10
        assert {len(own) for own in dataset.members} == {10} and dataset.class_sizes == [1, 9, 1, 1]


@pytest.mark.parametrize('looks', ['x', [[1.0]], [[1.0], [1.0, 2.0]], [[1.0], []], [[1.0], [float('inf')]], [1.0, 2.0], [['a'], ['b']]])
def test_looks_that_do_not_fit_the_classes(tmp_path, looks):
    make_set(tmp_path / 'set.zip', 2)
    with zipfile.ZipFile(tmp_path / 'set.zip', 'a') as archive:
        pairs = [['img00.png', 0], ['img01.png', 1]]
        archive.writestr('dataset.json', json.dumps({'labels': pairs, 'classes': ['a', 'b'], 'looks': looks}))
    with pytest.raises(UserError, match='"looks" must be a list of numbers for each of the "classes"'):
        ImageDataset(tmp_path / 'set.zip')
