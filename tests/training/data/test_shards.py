"""Sets in shards: made, indexed, read from a disk, a server that fails and a store; order, labels, digest; what is wrong with them."""

import contextlib
import hashlib
import io
import json
import pickle
import re
import shutil
import tarfile
import tracemalloc
import zipfile
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from dnnlib.util import UserError
from tests.training.data.test_ranges import Patience, Server
from training.data import ranges, sharding, shards
from training.data.files import ImageFiles
from training.data.opening import SeveralFiles, absolute, is_missing, open_files
from training.data.shards import Index, Names, ShardFiles, parse_index
from training.dataset import ImageDataset, quick_check
from training.sampling import make_sampler, some_items

COUNT = 60


def make_zip(path, labels=None, classes=None, count=COUNT, seed=1):
    """A zip of 16x16 images of random pixels; returns the pixels [N, 3, 16, 16]."""
    pixels = np.random.RandomState(seed).randint(0, 256, (count, 16, 16, 3), dtype=np.uint8)
    with zipfile.ZipFile(path, 'w') as archive:
        for i, image in enumerate(pixels):
            with archive.open(f'img{i:02d}.png', 'w') as file:
                Image.fromarray(image).save(file, 'png')
        if labels is not None:
            archive.writestr('dataset.json', json.dumps({'labels': [[f'img{i:02d}.png', label] for i, label in enumerate(labels)],
                                                         'classes': classes}))
    return pixels.transpose(0, 3, 1, 2)


def make_shards(folder, source, shard_bytes=12 << 10, **options):
    files = open_files(source)
    return sharding.write_shards(files, files.labels(), folder, shard_bytes, **options)


@pytest.fixture(scope='module')
def made(tmp_path_factory):
    """(folder with set.zip, shards/ and plain/ (not shuffled), pixels): 60 images of 4 classes, the last of which has none."""
    folder = tmp_path_factory.mktemp('shards')
    pixels = make_zip(folder / 'set.zip', [i % 7 % 3 for i in range(COUNT)], ['a', 'b', 'c', 'd'])
    make_shards(folder / 'shards', folder / 'set.zip')
    make_shards(folder / 'plain', folder / 'set.zip', shuffle=None)
    return folder, pixels


def items(dataset):
    return [dataset[i] for i in range(len(dataset))]


def sequence(dataset, count, rank=0, world=1, start=0):
    sampler = iter(make_sampler(dataset, 5, rank, world, start))
    return [next(sampler) for _ in range(count)]


# ---- Made


def test_shards_hold_what_the_zip_holds(made):
    folder, pixels = made
    with ImageDataset(folder / 'plain', use_labels=True) as plain, ImageDataset(folder / 'set.zip', use_labels=True) as whole:
        assert len(plain.files.index.names) > 4 and (plain.resolution, plain.num_channels, plain.label_dim) == (16, 3, 4)
        assert plain.class_names == ['a', 'b', 'c', 'd'] and plain.name == 'plain'
        assert plain.class_sizes == whole.class_sizes and sum(whole.class_sizes) == COUNT and whole.class_sizes[3] == 0
        for (image, label), (expected, its) in zip(items(plain), items(whole), strict=True):
            np.testing.assert_array_equal(image, expected)
            np.testing.assert_array_equal(label, its)
    with ImageDataset(folder / 'shards' / 'index.json', mirror=True) as mixed:
        found = {image.tobytes() for image, _ in items(mixed)[:COUNT]}
        assert found == {image.tobytes() for image in pixels} and mixed[0][0].tobytes() != pixels[0].tobytes()
        assert (mixed[COUNT + 3][0] == mixed[3][0][:, :, ::-1]).all()


def test_shards_are_plain_tars_in_webdatasets_layout(made):
    folder, _ = made
    with tarfile.open(folder / 'plain' / 'shard-000001.tar', 'r:') as tar, zipfile.ZipFile(folder / 'set.zip') as archive:
        names = tar.getnames()
        first = int(names[0].partition('.')[0])
        assert names[:4] == [f'{first:09d}.png', f'{first:09d}.cls', f'{first + 1:09d}.png', f'{first + 1:09d}.cls']
        assert tar.extractfile(names[0]).read() == archive.read(f'img{first:02d}.png')
        assert tar.extractfile(names[1]).read() == str(first % 7 % 3).encode()


def test_an_index_made_from_the_tars_is_the_same(made, tmp_path):
    folder, _ = made
    for path in (folder / 'plain').glob('*.tar'):
        shutil.copy(path, tmp_path)
    index = sharding.index_tars(sorted(tmp_path.glob('*.tar')))
    written = parse_index((folder / 'plain' / 'index.json').read_bytes(), 'x')
    assert (index.names, index.shape, index.label) == (written.names, written.shape, written.label)
    for field in ('samples', 'bytes', 'sha256', 'offsets_sha256'):
        np.testing.assert_array_equal(getattr(index, field), getattr(written, field))
    assert index.class_counts.tolist() == written.class_counts.tolist()[:3]
    assert parse_index(index.to_json().encode(), 'x').digest == index.digest


def add(tar, name, data):
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))


def png(shade, size=16):
    file = io.BytesIO()
    Image.new('RGB', (size, size), (shade, 0, 0)).save(file, 'png')
    return file.getvalue()


def test_tars_of_others(tmp_path):
    """Folders, long names, other members, labels as JSON, formats of tar."""
    for format in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        with tarfile.open(tmp_path / 'a.tar', 'w', format=format) as tar:
            add(tar, 'x/README', b'hello')
            for i in range(3):
                key = f'x/{"long" * 40}{i}'
                add(tar, f'{key}.json', json.dumps({'text': 'ä', 'label': [i, 0.5]}).encode())
                add(tar, f'{key}.seg.png', png(99))
                add(tar, f'{key}.PNG', png(i))
                add(tar, f'{key}.txt', b'a picture')
        sharding.save_index(tmp_path / 'index.json', sharding.index_tars([tmp_path / 'a.tar']))
        with ImageDataset(tmp_path / 'a.tar', use_labels=True) as dataset:
            assert [(image[0, 0, 0], label.tolist()) for image, label in items(dataset)] == [(i, [i, 0.5]) for i in range(3)]


@pytest.mark.parametrize('members, message', [
    ([('a.png', png(1)), ('a.cls', b'1'), ('b.png', png(2))], 'b has no label, a of .*t.tar has a class'),
    ([('a.png', png(1)), ('a.cls', b'-1')], "a.cls holds '-1': a class index is needed"),
    ([('a.png', png(1)), ('a.cls', b'9999999999')], 'must be a class index'),
    ([('a.png', png(1)), ('a.json', b'{"label": [1, NaN]}')], 'must be a vector'),
    ([('a.png', png(1)), ('a.json', b'[' * 99_999)], 'not valid JSON'),
    ([('a.png', png(1)), ('b.png', png(2, 32))], 'b is 32x32, but .*a is 16x16'), ([('a.png', b'junk')], 'a: not an image'),
    ([('a.txt', b'x')], 'holds no pictures'), ([('a.png', png(1, 24))], 'a is 24x24: training needs a power of two'),
])
def test_tars_that_training_cannot_take(tmp_path, members, message):
    with tarfile.open(tmp_path / 't.tar', 'w') as tar:
        for name, data in members:
            add(tar, name, data)
    with pytest.raises(UserError, match=message) as caught:
        sharding.index_tars([tmp_path / 't.tar'])
    assert '\n' not in str(caught.value)


def test_damaged_tars(made, tmp_path):
    data = (made[0] / 'plain' / 'shard-000000.tar').read_bytes()
    for content in (b'', data[:700], data[:5000], b'\x1f\x8b' + data, bytes(3000), data[:1000] + b'\xff' * 3000):
        (tmp_path / 't.tar').write_bytes(content)
        with pytest.raises(UserError):
            sharding.index_tars([tmp_path / 't.tar'])


def test_indexes_of_several_machines_become_one(made, tmp_path):
    folder, pixels = made
    for part, seed in (('a', 1), ('b', 2)):
        make_zip(tmp_path / f'{part}.zip', [i % 2 for i in range(20)], ['x', 'y'], count=20, seed=seed)
        make_shards(tmp_path / part, tmp_path / f'{part}.zip', prefix=f'{part}-')
    parts = [(part, parse_index((tmp_path / part / 'index.json').read_bytes(), part)) for part in 'ab']
    (tmp_path / 'all').mkdir()
    for path in [*tmp_path.glob('?/*.tar'), *tmp_path.glob('?/*.offsets')]:
        shutil.copy(path, tmp_path / 'all')
    sharding.save_index(tmp_path / 'all' / 'index.json', sharding.joined(parts))
    with ImageDataset(tmp_path / 'all', use_labels=True) as dataset:
        assert len(dataset) == 40 and sum(label for _, label in items(dataset)).tolist() == [20, 20]
        assert list(sharding.problems_of(dataset.files, 1)) == []
    looked = [(part, replace(index, looks=[[1.0], [2.0]])) for part, index in parts]
    assert sharding.joined(looked).looks == [[1.0], [2.0]] and sharding.joined([looked[0], parts[1]]).looks is None
    again = parse_index(sharding.joined(looked).to_json().encode(), 'again')
    assert again.looks == again.part(['b-000000.tar']).looks == [[1.0], [2.0]] and 'looks' not in parts[0][1].to_json()
    with pytest.raises(UserError, match='a-000000.tar is in more than one of these'):
        sharding.joined([parts[0], parts[0]])
    with pytest.raises(UserError, match='and a differ'):
        sharding.joined([parts[0], ('c', parse_index((folder / 'plain' / 'index.json').read_bytes(), 'c'))])


# ---- Read


def test_one_sequence_for_any_number_of_processes_and_any_start(made):
    with ImageDataset(made[0] / 'shards', mirror=True) as dataset:
        assert dataset.files.block >= 1
        whole = sequence(dataset, 400)
        assert sorted(whole[:120]) == list(range(120)) and whole[:60] != sorted(whole[:60])
        for world in (2, 4):
            assert [sequence(dataset, 50, rank, world, start=100) for rank in range(world)] == \
                [whole[100 + rank:100 + 50 * world:world] for rank in range(world)]


def test_a_plain_zip_keeps_its_order(made):
    with ImageDataset(made[0] / 'set.zip') as dataset:
        order = np.random.RandomState([5, 0]).permutation(COUNT)
        assert sequence(dataset, COUNT) == order.tolist() and some_items(dataset, 9, 3).tolist() == \
            np.random.RandomState(3).permutation(COUNT)[:9].tolist()


@pytest.fixture
def server(monkeypatch, tmp_path, made):
    monkeypatch.setattr('time.sleep', lambda seconds: None)
    monkeypatch.setenv('no_proxy', '*')
    monkeypatch.setenv('INR_CACHE_DIR', str(tmp_path / 'cache'))
    server = Server({path.name: path.read_bytes() for path in (made[0] / 'shards').iterdir()})
    monkeypatch.setattr(ranges, 'TIMEOUT', Patience(server))
    yield server
    server.stop()


def test_a_server_that_fails_loses_nothing(made, server, monkeypatch):
    monkeypatch.setattr(shards, 'BLOCK_BYTES', 4 << 10)
    faults = ['500', 'cut', 'stall', '', *['wrong', '', '503', 'cut', 'wrong', '', '429'] * 40]
    with ImageDataset(made[0] / 'shards', use_labels=True) as local:
        server.faults = list(faults)
        with ImageDataset(server.url + 'index.json', use_labels=True) as remote:
            assert remote.digest == local.digest and remote.path == remote.place == server.url + 'index.json'
            for i in sequence(local, 70):
                (image, label), (expected, its) = remote[i], local[i]
                np.testing.assert_array_equal(image, expected)
                np.testing.assert_array_equal(label, its)
            assert sum(fault != '' for _, _, fault in server.asked) > 20
            asked = len(server.asked)
            again = pickle.loads(pickle.dumps(remote))
            assert (again[3][0] == local[3][0]).all() and len(server.asked) == asked  # the tables too are kept
            assert asked < len(faults)


def test_blocks_are_fetched_whole_unless_few_images_are_wanted(made, server):
    quick_check(server.url + 'index.json')
    server.asked.clear()
    for subset, calls in ((None, 1), (40, 3)):
        shutil.rmtree(ranges.PartCache().folder, ignore_errors=True)
        with ImageDataset(server.url + 'index.json', subset=subset) as dataset:
            dataset[0], server.asked.clear()
            dataset.files.block = 4  # of this shard
            [dataset[i] for i in range(4)]
            pictures = [path for path, _, _ in server.asked if path.endswith('.tar')]
            assert len(pictures) == calls, subset


def test_sides_are_drawn_without_fetching_every_picture(made, server):
    with ImageDataset(server.url + 'index.json', resolution=16) as far, ImageDataset(made[0] / 'set.zip', resolution=16) as near:
        far.files.most_checked = 4
        far.sides()
        looked_at = {name: 20 + n for n, name in enumerate(far._sides)}
        far._sides.update(looked_at)
        server.asked.clear()
        assert sorted(far.drawn_side(i) for i in range(COUNT)) == sorted(list(looked_at.values()) * (COUNT // 4))
        assert not server.asked
        near._sides[near.files.names[7]] = 99
        assert [near.drawn_side(7), near.drawn_side(8)] == [99, 16]


def test_a_picture_that_is_damaged_on_the_server_is_left_out_alone(made, server, capsys):
    with ImageDataset(made[0] / 'shards') as local:
        table = local.files.table(1)
        data = bytearray(server.files['shard-000001.tar'])
        data[int(table['offset'][2]) + 40] ^= 255
        server.files['shard-000001.tar'] = bytes(data)
        with ImageDataset(server.url + 'index.json') as remote:
            first = int(local.files.names.first[1])
            for i in (first, first + 1, first + 3):
                np.testing.assert_array_equal(remote[i][0], local[i][0])
            before = len(server.asked)
            np.testing.assert_array_equal(remote[first + 2][0], local[first + 3][0])
            assert len(server.asked) <= before + 3  # it twice, the next one once; not four times, nor the whole block
    assert 'shard-000001.tar[2]: cannot be read' in capsys.readouterr().err


def test_a_server_that_is_gone_ends_with_one_line(made, server):
    with ImageDataset(server.url + 'index.json') as dataset:
        server.faults = ['500'] * 99
        with pytest.raises(UserError, match='^http.* cannot be read, after 10 attempts .the server answered 500.$'):
            dataset[30]


def test_a_store(made):
    import fsspec

    system = fsspec.filesystem('memory')
    for path in (made[0] / 'plain').iterdir():
        system.pipe(f'/bucket/set/{path.name}', path.read_bytes())
    with ImageDataset('memory://bucket/set/index.json') as dataset:
        assert (dataset[33][0] == made[1][33]).all() and dataset.name == 'set'
    system.rm('/bucket', recursive=True)


def test_damage_on_the_disk_is_seen(made, tmp_path, capsys):
    for case, message in [('picture', r'shard-000001.tar\[2\]: cannot be read .*a checksum does not fit'),
                          ('table', 'its SHA-256 is another'), ('short', 'shard-000001.tar: its SHA-256'),
                          ('gone', 'shard-000001.tar.*No such file')]:
        folder = shutil.copytree(made[0] / 'plain', tmp_path / case)
        tar, table = folder / 'shard-000001.tar', folder / 'shard-000001.offsets'
        records = np.frombuffer(table.read_bytes(), shards.record_type('class'))
        data = bytearray(tar.read_bytes())
        data[int(records['offset'][2]) + 40] ^= 255
        if case == 'table':
            table.write_bytes(table.read_bytes()[:-1] + b'\x01')
        elif case == 'gone':
            tar.unlink()
        else:
            tar.write_bytes(bytes(data) if case == 'picture' else bytes(data[:2000]))
        with contextlib.closing(open_files(folder)) as files:
            problems = [': '.join(problem) for problem in sharding.problems_of(files, 1)]
        assert problems and any(np.char.find(problems, 'shard-000001') >= 0)
        assert any(re.search(message, problem) for problem in problems), problems
        with ImageDataset(folder) as dataset:
            first = int(dataset.files.names.first[1])
            if case == 'picture':
                assert (dataset[first + 2][0] == made[1][first + 3]).all()  # the next takes its place
            if case == 'table':
                with pytest.raises(UserError, match='shard-000001.offsets is damaged .its SHA-256 is another'):
                    dataset[first]


# ---- Labels


def test_labels_are_drawn_as_often_as_the_set_has_them(made):
    zipped = ImageDataset(made[0] / 'set.zip', use_labels=True)
    with ImageDataset(made[0] / 'shards', use_labels=True, mirror=True) as dataset, zipped as whole:
        counts = sum(whole.get_label(i) for i in range(COUNT))
        dataset.files._tables.clear()
        assert sum(dataset.drawn_label(i) for i in range(2 * COUNT)).tolist() == (2 * counts).tolist()
        assert not dataset.files._tables  # none was looked up
        some = ImageDataset(made[0] / 'shards', use_labels=True, subset=10)
        assert all((some.drawn_label(i) == some.get_label(i)).all() for i in range(10))
        assert all((whole.drawn_label(i) == whole.get_label(i)).all() for i in range(COUNT))
        assert dict(dataset.labels.by_name.items())[dataset.files.names[7]] == dataset.get_label(7).argmax()


def test_part_of_the_shards(made):
    two = str(made[0] / 'shards' / 'shard-00000[12].tar')
    with ImageDataset(two, use_labels=True) as part, ImageDataset(made[0] / 'shards') as whole:
        first = int(whole.files.names.first[1])
        assert len(part) == whole.files.index.samples[1:3].sum() and part.label_dim == 4 and part.digest != whole.digest
        assert all((part[i][0] == whole[first + i][0]).all() for i in range(len(part)))
        assert (part.drawn_label(3) == part.get_label(3)).all() and part.left_out(5) is None and part.class_sizes is None
    with ImageDataset(made[0] / 'shards', subset=50, use_labels=True) as dataset:
        assert len(dataset.left_out(99)) == 10 and dataset.class_sizes is None
    with pytest.raises(UserError, match='class-balance=0.5: .* is read in blocks'):
        ImageDataset(made[0] / 'shards', use_labels=True, class_balance=0.5)


# ---- Indexes


def spoiled(text, **values):
    content = {**json.loads(text), **values}
    return json.dumps(content).encode()


def test_indexes_that_are_none(made):
    text = (made[0] / 'shards' / 'index.json').read_text()
    row = json.loads(text)['shards'][0]
    for content, message in [
        (b'{', 'not valid JSON'), (b'[' * 100_000, 'not valid JSON'), (b'[]', '"format" is not'), (b'{"format": 1}', '"format" is not'),
        (spoiled(text, version=2), '"version" is 2'), (spoiled(text, shape=[16, 16]), '"shape"'), (spoiled(text, shape=None), '"shape"'),
        (spoiled(text, shape=[1e9, 1, 3]), '"shape"'), (spoiled(text, label=True), '"label" must be'), (spoiled(text, label=-1), '"label"'),
        (spoiled(text, classes='abcd'), '"classes" must'), (spoiled(text, class_counts=[1, 2, -3, 0]), '"class_counts" must'),
        (spoiled(text, class_counts=[60, 0]), 'one for each class'), (spoiled(text, class_counts=[60, 1, 0, 0]), 'and samples differ'),
        (spoiled(text, label=None), '"class_counts" without'), (spoiled(text, shards=[]), '"shards" must list'),
        (spoiled(text, shards=[row[:4]]), '"shards" must list'), (spoiled(text, shards=[row, row]), 'comes twice'),
        (spoiled(text, shards=[['../x.tar', *row[1:]]]), "file '../x.tar'"), (spoiled(text, shards=[['http://h/x.tar', *row[1:]]]), 'file'),
        (spoiled(text, shards=[[None, *row[1:]]]), "file 'None'"), (spoiled(text, shards=[[row[0], 0, *row[2:]]]), 'samples and bytes'),
        (spoiled(text, shards=[[row[0], 10**30, *row[2:]]]), 'samples and bytes'), (spoiled(text, shards=[[*row[:4], 'x']]), 'a SHA-256'),
        (spoiled(text, least_side=0), '"least_side"'), (spoiled(text, shape=[32, 32, 3], digest='x'), 'its digest does not fit'),
    ]:
        with pytest.raises(UserError, match='some/index.json is no index of shards') as caught:
            parse_index(content, 'some/index.json')
        assert message in str(caught.value) and '\n' not in str(caught.value)


def test_looks_that_do_not_fit_the_classes(made):
    text = (made[0] / 'shards' / 'index.json').read_text()
    for looks in ('x', [[1.0]] * 3, [[1.0], [1.0], [1.0], [1.0, 2.0]]):
        with pytest.raises(UserError, match='some/index.json: "looks" must be a list of numbers for each'):
            parse_index(spoiled(text, looks=looks), 'some/index.json')


def test_offsets_that_lead_elsewhere(made, tmp_path):
    """Offsets whose checksum fits, but which were made to point outside of the shard or back."""
    folder = shutil.copytree(made[0] / 'plain', tmp_path / 'set')
    path = folder / 'shard-000000.offsets'
    whole = np.frombuffer(path.read_bytes(), shards.record_type('class'))
    index = parse_index((folder / 'index.json').read_bytes(), 'x')
    for field, value, message in [('offset', 1 << 63, 'places that are not in the shard'), ('size', 1 << 31, 'places'),
                                  ('offset', 0, 'places'), ('label', 4, 'a class that index.json does not know'), ('label', -1, 'a class')]:
        table = whole.copy()
        table[field][2] = value
        path.write_bytes(table.tobytes())
        index.offsets_sha256[0] = hashlib.sha256(table.tobytes()).hexdigest()
        index.__dict__.pop('digest', None)
        sharding.save_index(folder / 'index.json', index)
        with pytest.raises(UserError, match=message):
            ShardFiles(str(folder / 'index.json')).table(0)


def test_memory_follows_the_shards_not_the_samples():
    """3,000 shards of 10,000 samples; benchmarks/bench_shards.py has 10^5 of them."""
    count = 3000
    files = [f'shard-{i:06d}.tar' for i in range(count)]
    index = Index((64, 64, 3), None, None, None, None, files, np.full(count, 10_000), np.full(count, 1 << 28), np.full(count, b'0' * 64),
                  np.full(count, b'1' * 64))
    text = index.to_json().encode()
    tracemalloc.start()
    names = Names(parse_index(text, 'x'))
    held, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(names) == 30_000_000 and names[29_999_999] == 'shard-002999.tar[9999]' and names.place(10_000) == (1, 0)
    assert held < 500 * count and peak < 1600 * count


# ---- Places


def test_several_zips_are_one_set(tmp_path, made):
    for name, seed, labels in (('a', 3, [1, 0, 1]), ('b', 4, [0, 0, 2])):
        make_zip(tmp_path / f'{name}.zip', labels, count=3, seed=seed)
    for place in (f'{tmp_path}/a.zip,{tmp_path}/b.zip', f'{tmp_path}/?.zip'):
        with ImageDataset(place, use_labels=True, mirror=True) as both, ImageDataset(tmp_path / 'b.zip', use_labels=True) as b:
            assert isinstance(both.files, SeveralFiles) and len(both) == 12 and both.label_dim == 3 and both.name == 'a-and-1-more'
            assert (both[4][0] == b[1][0]).all() and [both.get_label(i).argmax() for i in range(6)] == [1, 0, 1, 0, 0, 2]
            assert both.class_sizes == [3, 2, 1]
            assert sorted(sequence(both, 12)) == list(range(12)) and absolute(place) == both.place == place
    quick_check(f'{tmp_path}/?.zip', use_labels=True)
    digests = {ImageDataset(place).digest for place in (f'{tmp_path}/a.zip,{tmp_path}/b.zip', f'{tmp_path}/b.zip,{tmp_path}/a.zip')}
    assert len(digests) == 2 and digests.isdisjoint({ImageDataset(tmp_path / 'a.zip').digest})
    make_zip(tmp_path / 'bare.zip', count=2)
    make_zip(tmp_path / 'vectors.zip', [[0, 1], [1, 0]], count=2)
    for other, message in [('bare', 'bare.zip has no labels and .*a.zip has'),
                           ('vectors', 'the labels of .*vectors.zip are not of the kind')]:
        with pytest.raises(UserError, match=message):
            ImageDataset(f'{tmp_path}/a.zip,{tmp_path}/{other}.zip')


def test_places(tmp_path, made, monkeypatch):
    monkeypatch.chdir(made[0])
    assert isinstance(open_files('set.zip'), ImageFiles) and isinstance(open_files('shards/*.tar'), ShardFiles)
    assert absolute('shards/*.tar') == str(made[0] / 'shards/*.tar') and absolute('https://h/index.json') == 'https://h/index.json'
    assert absolute('a.zip, b.zip') == f'{made[0]}/a.zip,{made[0]}/b.zip' and absolute('set.zip') == str(made[0] / 'set.zip')
    assert [is_missing(place) for place in ('set.zip', 'no.zip', 'set.zip,no.zip', 'shards/*.tar', 'no/*.tar', 'https://h/x.json')] == \
        [False, True, True, False, True, False]
    (tmp_path / 'a,b[1]').mkdir()
    make_zip(tmp_path / 'a,b[1]' / 'x.zip', count=2)
    assert len(open_files(tmp_path / 'a,b[1]' / 'x.zip').names) == 2  # a name that has such signs in it
    shutil.copy('shards/shard-000000.tar', tmp_path)
    for place, message in [('https://h/set.zip', 'only shards are read: give the address of their index.json'),
                           ('no/*.zip', 'no file has such a name'), ('no.tar', 'no.tar does not exist'),
                           (f'{tmp_path}/*.tar', 'needs an index.json beside it: python dataset_tool.py index'),
                           ('set.zip,shards/shard-000000.tar', 'zips and tars'),
                           (f'shards/shard-000000.tar,{tmp_path}/shard-000000.tar', '2 folders')]:
        with pytest.raises(UserError, match=message.replace('.', r'\.')):
            open_files(place)
