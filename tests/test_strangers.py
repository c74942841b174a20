"""Files from strangers: what has gone wrong before, a case each, and damage of any kind. The long proof is script/fuzz."""

import gzip
import io
import json
import os
import random
import struct
import sys
import zipfile
import zlib

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from dnnlib import cli
from dnnlib.arrays import NoArrays, arrays_in
from dnnlib.util import UserError, fetch, printable
from tests.helpers import script
from tests.tiny_snapshots import mistake, save, stylegan2
from tests.training.test_checkpoint import rewrite
from tests.training.tiny import make_images, tiny_run
from training import checkpoint
from training.config_json import from_json, to_json
from training.data import files
from training.data.files import BadImage, ImageFiles, decode, decode_8bit
from training.data.labels import parse_labels
from training.data.lmdb_pages import Damaged, Pages
from training.data.pickled import NotPlain, read_plain
from training.data.sources import open_source, read_idx
from training.state import read_state

FEW = settings(max_examples=15, deadline=None, derandomize=True, database=None,
               suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
VALUES = st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.just(10**30),
                      lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3), max_leaves=6)


def told(call, *args, **how):
    """The one line that a call is refused with."""
    with pytest.raises(UserError) as caught:
        call(*args, **how)
    assert '\n' not in str(caught.value)
    return str(caught.value)


def damaged(data, draw):
    """Bytes with a few of them changed, taken out or repeated."""
    data = bytearray(data)
    for _ in range(draw(st.integers(1, 4))):
        at, span = draw(st.integers(0, max(len(data) - 1, 0))), draw(st.sampled_from((1, 2, 4, 8, 100)))
        again = bytes(data[at:at + span]) * 3
        data[at:at + span] = draw(st.sampled_from((b'', b'\xff', bytes(4), b'\xff\xff\xff\xff', b'\xff' * 8, again)))
    return bytes(data)


# ---- Snapshots and states


@pytest.fixture(scope='module')
def snapshot(tmp_path_factory):
    return save(tmp_path_factory.mktemp('snapshot') / 'a.safetensors', stylegan2()).read_bytes()


@pytest.mark.parametrize('change', [
    lambda header: header.update(version=float('inf')), lambda header: header.update(version=[1]), lambda header: header.update(kimg=-1),
    lambda header: header.update(images='many'), lambda header: header.update(images=10**30), lambda header: header.update(networks=[]),
    lambda header: header['networks'].update(X={}), lambda header: header['networks'].update(G_ema=3),
    lambda header: header['networks']['G_ema'].update(init_kwargs='abc'),
    lambda header: header['networks']['G_ema']['init_kwargs']['synthesis_kwargs'].update(num_fp16_res=-1),
    lambda header: header['networks']['G_ema'].update(class_name='\ud800'),
    lambda header: header['dataset'].update(classes='cat'), lambda header: header['dataset'].update(classes=[1]),
    lambda header: header['dataset'].update(path=None), lambda header: header['dataset'].update(resolution=float('nan')),
    *(lambda header, name=name, value=value: header['networks']['G_ema']['init_kwargs'].update({name: value})
      for name in ('z_dim', 'w_dim', 'img_channels', 'mapping_kwargs', 'synthesis_kwargs')
      for value in (-1, 10**7, 10**30, 'x', [1], {'a': 1})),
])
def test_headers_that_say_nonsense(snapshot, tmp_path, change):
    path = tmp_path / 'a.safetensors'
    path.write_bytes(snapshot)
    rewrite(path, change)
    assert printable(told(checkpoint.load_networks, path)).isprintable()


def test_a_header_nested_too_deep(tmp_path):
    for text in ('{"a":' * 100_000, json.dumps({'__metadata__': {'header': '{"a":' * 100_000}})):
        (tmp_path / 'a.safetensors').write_bytes(struct.pack('<Q', len(text)) + text.encode())
        assert 'damaged' in told(checkpoint.load_networks, tmp_path / 'a.safetensors')


@FEW
@given(st.data())
def test_damaged_snapshots(snapshot, tmp_path, data):
    path = tmp_path / 'a.safetensors'
    path.write_bytes(damaged(snapshot, data.draw))
    try:
        checkpoint.load_networks(path)
    except UserError as err:
        assert '\n' not in str(err)


def nested(deep):
    """A tuple in a tuple and so on."""
    value = ()
    for _ in range(deep):
        value = (value,)
    return value


def test_states_made_to_do_harm(tmp_path):
    path = tmp_path / 'training-state-000001.pt'

    def changed(pickle):
        torch.save({'x': torch.zeros(3)}, path)
        with zipfile.ZipFile(path) as source:
            parts = {info.filename: source.read(info) for info in source.infolist()}
        with zipfile.ZipFile(path, 'w') as dest:
            for name, content in parts.items():
                dest.writestr(name, pickle(content) if name.endswith('data.pkl') else content)
        return told(read_state, path)

    deep = b'}' + b')' + b'\x85' * 200_000 + b'Ns.'  # as a key, hashing it would end the process
    assert 'a tuple as a key' in changed(lambda content: b'\x80\x02' + deep)
    assert 'asks for os.system' in changed(lambda content: b'\x80\x02cos\nsystem\nX\x04\x00\x00\x00true\x85R.')
    assert 'a tensor of' in changed(lambda content: content.replace(b'K\x03\x85', b'J\xff\xff\xff\x7f\x85', 1))
    assert 'a storage of' in changed(lambda content: content.replace(b'K\x03tq', b'J\xff\xff\xff\x7ftq', 1))
    with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as dest:
        dest.writestr('a/data.pkl', bytes(10**5))
    assert 'not of the format of torch.save' in told(read_state, path)


# ---- Options


@pytest.fixture(scope='module')
def options(tmp_path_factory):
    return to_json(tiny_run(make_images(tmp_path_factory.mktemp('data') / 'images'))[1])


@FEW
@given(st.data())
def test_options_that_say_nonsense(options, data):
    tree = json.loads(options)
    section = data.draw(st.sampled_from([name for name in tree if tree[name]]))
    tree[section][data.draw(st.sampled_from(list(tree[section])))] = data.draw(VALUES)
    try:
        found = from_json(json.dumps(tree))
        assert found.images_at_once(1) and found.generator_kwargs() and found.discriminator_kwargs(1) and found.optimizer('G')
    except UserError as err:
        assert '\n' not in str(err)


@pytest.mark.parametrize('text', [b'\xff\xfe\xfa', b'[' * 100_000, b'{"data": NaN}', b'null', b'[1]'])
def test_options_that_are_none(text):
    told(from_json, text)


def test_a_batch_without_end(options):
    assert '--batch=1000000000000' in told(from_json, options.replace('"batch": 4', '"batch": 1000000000000'))


# ---- Data


def zipped(**how):
    out, image = io.BytesIO(), io.BytesIO()
    Image.new('RGB', (16, 16)).save(image, 'png')
    with zipfile.ZipFile(out, 'w', **how) as archive:
        archive.writestr('a.png', image.getvalue())
        archive.writestr('b.png', image.getvalue())
    return out.getvalue()


@pytest.mark.parametrize('at, code', [(4, b'\x54\x00'), (6, b'\x54\x00'), (8, b'\x01\x00'), (10, b'\x01\x00'),
                                      (10, b'\x0c\x00'), (24, b'\xff' * 4), (28, b'\xff\xff'), (42, b'\xff' * 4), (28, b'\0\0')])
def test_fields_of_a_zip(tmp_path, at, code):
    """Version 8.4, encrypted, compressed by methods 1 and 12, sizes and offsets beyond the end, a name of no letters."""
    content = bytearray(zipped())
    entry = content.find(b'PK\1\2')
    content[entry + at:entry + at + len(code)] = code
    (tmp_path / 'a.zip').write_bytes(content)
    try:
        found = ImageFiles(tmp_path / 'a.zip')
    except UserError as err:
        assert '\n' not in str(err)
        return
    for name in found.names:
        try:
            decode(found.read(name))
        except BadImage:
            pass


def test_bombs(tmp_path, monkeypatch):
    monkeypatch.setattr(files, 'UNASKED_BYTES', 1 << 18)
    with zipfile.ZipFile(tmp_path / 'a.zip', 'w', zipfile.ZIP_DEFLATED) as archive:
        archive.writestr('a.png', bytes(1 << 20))
        archive.writestr('dataset.json', b' ' * (1 << 20))
    found = ImageFiles(tmp_path / 'a.zip')
    with pytest.raises(BadImage, match='would be 1,048,576 bytes out of'):
        found.read('a.png')
    assert 'would be 1,048,576 bytes' in told(found.labels)
    monkeypatch.undo()
    out = io.BytesIO()
    Image.new('L', (16, 16)).save(out, 'png')
    for mode in (b'\x08\x00', b'\x08\x03'):  # read by pyspng, by Pillow
        bomb = bytearray(out.getvalue())
        bomb[16:26] = struct.pack('>II', 30_000, 30_000) + mode
        bomb[29:33] = struct.pack('>I', zlib.crc32(bomb[12:29]))
        for reader in (decode, decode_8bit):
            with pytest.raises(BadImage, match='cannot be decoded'):
                reader(bytes(bomb))


def test_what_is_no_file_is_not_waited_for(tmp_path):
    make_images(tmp_path / 'images', count=2)
    os.mkfifo(tmp_path / 'images' / 'a.png')
    with pytest.raises(BadImage, match='is not a file'):
        ImageFiles(tmp_path / 'images').read('a.png')
    assert 'neither a file nor a folder' in told(open_source, tmp_path / 'images' / 'a.png')


@pytest.mark.parametrize('sides', [(2**31, 2**31, 4), (2**32 - 1, 0, 0), (0, 4, 4), (2**32 - 1,) * 3, (10**9, 1, 1), (3, 4, 5)])
@pytest.mark.parametrize('packed', [False, True])
def test_sides_of_an_idx(tmp_path, sides, packed):
    path = tmp_path / 'train-images-idx3-ubyte'
    data = b'\0\0\x08\3' + struct.pack('>III', *sides) + bytes(48)
    path.write_bytes(gzip.compress(data) if packed else data)
    assert 'is damaged' in told(read_idx, path)


def lmdb_file(folder):
    import lmdb

    with lmdb.open(str(folder / 'lmdb'), map_size=1 << 20) as environment, environment.begin(write=True) as transaction:
        for i in range(60):
            transaction.put(f'key{i:02d}'.encode(), bytes([i]) * (i * 150))
    return (folder / 'lmdb' / 'data.mdb').read_bytes()


def test_an_lmdb_cut_short(tmp_path):
    """The library ends the process with a bus error here."""
    content = lmdb_file(tmp_path)
    whole = Pages(tmp_path / 'lmdb' / 'data.mdb')
    assert whole.keys == [f'key{i:02d}'.encode() for i in range(60)]
    assert all(whole.value(i) == bytes([i]) * (i * 150) for i in range(60))
    for size in (*range(0, len(content), 4096), len(content) - 1):
        (tmp_path / 'data.mdb').write_bytes(content[:size])
        assert 'cannot be read as an lmdb' in told(open_source, tmp_path / 'data.mdb')


@FEW
@given(st.data())
def test_damaged_lmdbs(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp('lmdb')
    content = bytearray(lmdb_file(folder))
    for _ in range(data.draw(st.integers(1, 20))):
        at = data.draw(st.integers(0, len(content) - 1))
        content[at:at + 2] = data.draw(st.sampled_from((b'\xff\xff', b'\0\0', b'\1\0')))
    (folder / 'data.mdb').write_bytes(content)
    try:
        pages = Pages(folder / 'data.mdb')
        for i in range(len(pages.keys)):
            pages.value(i)
    except Damaged as err:
        assert '\n' not in str(err)


@FEW
@given(st.data())
def test_labels_of_any_kind(data):
    content = data.draw(st.fixed_dictionaries({'labels': VALUES | st.lists(st.tuples(st.text(max_size=5), VALUES).map(list), max_size=4)},
                                              optional={'classes': VALUES}))
    try:
        parse_labels(json.dumps(content).encode(), '', 'dataset.json')
    except UserError as err:
        assert '\n' not in printable(str(err))


@FEW
@given(st.data())
def test_damaged_pickles(data):
    import pickle

    whole = pickle.dumps({b'data': np.zeros((2, 3), np.uint8), b'labels': [1, 2], 'x': (None, 1.5, 'text')}, data.draw(st.integers(0, 5)))
    try:
        read_plain(damaged(whole, data.draw))
    except NotPlain as err:
        assert '\n' not in str(err)


# ---- Arrays


@pytest.mark.parametrize('header', ["{'descr': '<f4', 'fortran_order': False, 'shape': (2147483648, 2147483648, 4), }", '(' * 9000, '',
                                    "{'descr': '|O', 'fortran_order': False, 'shape': (1,), }", "{'descr': '<U999999999', 'shape': (1,)}",
                                    "{'descr': '<f4', 'fortran_order': False, 'shape': (-1,), }",
                                    "{'descr': 7, 'fortran_order': 1, 'shape': 2}"])
def test_headers_of_arrays(tmp_path, header):
    content = b'\x93NUMPY\x01\x00' + struct.pack('<H', len(header)) + header.encode() + bytes(4)
    (tmp_path / 'a.npy').write_bytes(content)
    with zipfile.ZipFile(tmp_path / 'a.npz', 'w') as archive:
        archive.writestr('w.npy', content)
    for name in ('a.npy', 'a.npz'):
        with pytest.raises(NoArrays) as caught:
            arrays_in(tmp_path / name, 'w')
        assert '\n' not in str(caught.value)


def test_members_that_are_no_arrays(tmp_path):
    with zipfile.ZipFile(tmp_path / 'a.npz', 'w') as archive:
        archive.writestr('w.npy', b'text')
    with pytest.raises(NoArrays, match='magic'):
        arrays_in(tmp_path / 'a.npz', 'w')
    np.savez(tmp_path / 'b.npz', w=np.arange(3.0), network='name')
    found = arrays_in(tmp_path / 'b.npz', 'w')
    assert found['w'].tolist() == [0, 1, 2] and str(found['network']) == 'name'
    np.save(tmp_path / 'c.npy', np.arange(3, dtype='>f4'))
    assert torch.from_numpy(arrays_in(tmp_path / 'c.npy', 'w')['w']).tolist() == [0, 1, 2]


# ---- Names and addresses


def test_names_that_steer_a_terminal():
    import click

    @click.command()
    def command():
        print('class \x1b[2J\x9b31m', '\udcff', 'é', sep='|')
        raise UserError('file \x1b]0;owned\x07 \ud800\r\n of \u202e' + 'x' * 5000)

    line = mistake(command)
    assert line.startswith(r'Error: file \x1b]0;owned\x07 \ud800 ') and line[:-1].isprintable() and len(line) < 1100


def test_printed_names_keep_to_their_line(capsys):
    stream = cli.Harmless(io.StringIO())
    print('class \x1b[2J\x9b31m', '\udcff', 'é\tb\r', sep='|', file=stream)
    assert stream.getvalue() == 'class \\x1b[2J\\x9b31m|\\udcff|é\tb\r\n'


@pytest.mark.parametrize('address', ['http://[', 'https://exa mple..\ud800', 'file://[', 'a' * 5000, 'a\0b'])
def test_addresses_that_are_none(address, tmp_path):
    with pytest.raises((UserError, OSError)) as caught:
        fetch(address, cache_dir=tmp_path)
    assert cli.explain(caught.value) and not list(tmp_path.iterdir())


def test_fuzzing_reads_whole_files(tmp_path, monkeypatch):
    """What the script calls takes what it is called with; else every case would end in a traceback."""
    monkeypatch.setattr(sys, 'argv', ['fuzz_worker.py', '0'])
    monkeypatch.setattr(sys, 'path', list(sys.path))
    script('fuzz_cases')
    readers = script('fuzz_worker').Readers(tmp_path / 'whole')
    for kind, (content, *_) in readers.files.items():
        (tmp_path / kind).mkdir()
        if kind == 'lmdb':  # its values are no pictures
            told(readers.read, kind, content, tmp_path / kind)
        else:
            readers.read(kind, content, tmp_path / kind)


def test_fuzzing_is_repeatable():
    """The script's changes are a function of the kind and the number of a case."""
    cases = script('fuzz_cases')
    whole = zipped()
    assert len({cases.zip_changed(whole, random.Random(i), [whole]) for i in range(30)}) > 20
    small_idx = b'\0\0\x08\3' + struct.pack('>III', 1, 2, 2) + b'abcd'
    for kind, content in (('zip', whole), ('json', b'{"labels": [["a", 1]]}'), ('idx', small_idx)):
        first, second = (cases.CHANGES[kind](content, random.Random(5), [content]) for _ in range(2))
        assert first == second
    odd = repr(cases.ODD)
    for number in range(300):
        cases.CHANGES['json'](b'{"labels": [["a", [1, {"b": 2}]]], "x": {"y": {"z": []}}}', random.Random(number), [])
    assert repr(cases.ODD) == odd  # else a case would depend on those before it
