"""What script/fuzz.py damages and how: whole files of every kind, small; changes of bytes, of JSON, of zips, of pickles."""

import copy
import gzip
import io
import json
import pickle
import struct
import tarfile
import zipfile

import numpy as np
import torch
from PIL import Image

from training import checkpoint
from training.config_json import to_json

NUMBERS = (0, -1, 1, 2, 255, 2**15, 2**31, 2**32 - 1, 2**53, 2**63, 10**12, 10**30, 0.5, -0.0, 1e308, float('nan'), float('inf'))
ODD = ('', 'x', '\ud800', '\x1b[2J\x1b]0;owned\x07', 'a' * 5000, '../../out', '/etc/passwd', 'os.system', 'training.networks.Generator',
       'inr.generator.Generator', [], {}, [1], {'a': 1}, None, True, [[]] * 20, [None] * 1000)
DEEP = ('[' * 100_000 + ']' * 100_000, '{"a":' * 100_000 + '1' + '}' * 100_000)
CODES = [struct.pack(form, value) for form in ('<B', '<H', '<I', '<Q', '>I') for value in (0, 1, 0x7f, 0xff, 0xffff, 2**31, 2**32 - 1,
                                                                                           2**63)
         if value < 256 ** struct.calcsize(form)]
OPCODES = (b'cos\nsystem\nX\x0a\x00\x00\x00touch MADE\x85R', b'cposix\nsystem\n(X\x0a\x00\x00\x00touch MADEtR', b'cbuiltins\neval\n',
           b'cbuiltins\ngetattr\n', b'\x93', b'R', b'b', b'\x81', b'Q', b'(' * 1000, b't' * 1000, b'0', b'2', b'\x85' * 5000, b'}', b']',
           b'\x8f',
           b'\x8e\xff\xff\xff\xff\xff\xff\xff\x7f', b'\x8b\xff\xff\xff\x7f', b'h\x00', b'j\xff\xff\xff\x7f', b'\x94', b'N', b'K\x00',
           b'G' + bytes(8))


def bytes_changed(data, random, others=()):
    """A file with one to eight changes of its bytes."""
    data = bytearray(data)
    for _ in range(random.choice((1, 1, 1, 2, 3, 8))):
        size, kind = max(len(data), 1), random.randrange(8)
        at = min(int(random.random() ** 2 * size), size - 1) if random.random() < 0.5 else random.randrange(size)
        span = min(random.choice((1, 2, 4, 8, 50, 1000)), size)
        if kind == 0 and data:
            data[at] ^= 1 << random.randrange(8)
        elif kind == 1:
            code = random.choice(CODES)
            data[at:at + len(code)] = code
        elif kind == 2:
            del data[at:]
        elif kind == 3:
            del data[at:at + span]
        elif kind == 4:
            data[at:at] = data[at:at + span] * random.choice((1, 2, 50))
        elif kind == 5:
            data[at:at] = random.randbytes(span)
        elif kind == 6:
            data[at:at + span] = bytes([random.choice((0, 255))]) * span
        elif others:
            other = random.choice(others)
            data[at:at + span] = other[at:at + span]
    return bytes(data)


def places(tree, path=()):
    """The paths of all values in a tree of dicts and lists."""
    yield path
    for key in tree if isinstance(tree, dict) else range(min(len(tree), 30)) if isinstance(tree, list) else ():
        yield from places(tree[key], (*path, key))


def tree_changed(tree, random, odd=()):
    """A copy of a tree with one to three values replaced, taken out, or put elsewhere."""
    tree = pickle.loads(pickle.dumps(tree))
    for _ in range(random.choice((1, 1, 2, 3))):
        *above, key = random.choice([path for path in places(tree) if path])
        inner = tree
        for step in above:
            inner = inner[step]
        kind = random.randrange(6)
        if kind == 0 and isinstance(inner, (dict, list)):
            inner.pop(key)
        elif kind == 1 and isinstance(inner, dict):
            inner[random.choice(('x', '', '\ud800', '\x1b[31m'))] = inner.pop(key)
        else:
            chosen = random.choice((random.choice(NUMBERS), random.choice(NUMBERS), random.choice((*ODD, *odd))))
            inner[key] = copy.deepcopy(chosen)  # ODD stays what it is, whatever is changed next
        if not any(path for path in places(tree)):
            break
    return tree


def json_changed(text, random):
    """JSON with other values, deep nesting in place of one, or other bytes."""
    kind = random.random()
    if kind < 0.7:
        return json.dumps(tree_changed(json.loads(text), random)).encode()
    if kind < 0.75:
        return random.choice(DEEP).encode()
    if kind < 0.8:
        return text.replace(': ', ': ' + random.choice(('NaN,"x":', '-Infinity,"x":', '1e999,"x":', '9' * 5000 + ',"x":', '"\\ud800",')),
                            1).encode()
    return bytes_changed(text.encode('utf-8', 'surrogatepass'), random)


def snapshot_changed(content, random, others):
    """A network file with another header, in its metadata or of safetensors' own, or with other bytes."""
    kind = random.random()
    if kind < 0.3:
        return bytes_changed(content, random, others)
    length = struct.unpack('<Q', content[:8])[0]
    head, rest = json.loads(content[8:8 + length]), content[8 + length:]
    if kind < 0.5:  # of safetensors
        head = tree_changed(head, random)
        text = json.dumps(head).encode()
        return struct.pack('<Q', random.choice((len(text), len(text), len(text), 0, 2**40, 2**63))) + text + rest
    meta = json.loads(head['__metadata__']['header'])
    del head['__metadata__']['header_crc32']
    if kind < 0.55:
        head['__metadata__']['header'] = random.choice(DEEP)
    elif kind < 0.65:
        head['__metadata__']['header'] = json.dumps(tree_changed(meta, random))
    else:  # what networks are made from
        name = random.choice(list(meta['networks']))
        meta['networks'][name] = tree_changed(meta['networks'][name], random, odd=(['training.networks.Discriminator'], 'abc', [1, 2], 7.5))
        head['__metadata__']['header'] = json.dumps(meta)
    text = json.dumps(head).encode()
    return struct.pack('<Q', len(text)) + text + rest


def saved(tree):
    """A file of torch.save."""
    file = io.BytesIO()
    torch.save(tree, file)
    return file.getvalue()


def state_changed(content, random, others):
    """A training state with other values in it, another pickle, or other bytes."""
    kind = random.random()
    if kind < 0.3:
        return bytes_changed(content, random, others)
    if kind < 0.7:
        tensors = (torch.zeros(3), torch.zeros(2**10, 0), torch.tensor(float('nan')), torch.ones(2, dtype=torch.int64),
                   torch.zeros(1).expand(5))
        try:
            return saved(tree_changed(torch.load(io.BytesIO(content), weights_only=True), random, odd=tensors))
        except Exception:  # a lone surrogate as a key cannot be written
            return content[:-1]
    return zip_rewritten(content, random, change={'data.pkl': lambda data: pickle_changed(data, random)})


def pickle_changed(data, random, others=()):
    """A pickle with opcodes put in or other bytes."""
    if random.random() < 0.4:
        return bytes_changed(data, random, others)
    for _ in range(random.choice((1, 1, 2, 4))):
        at = random.randrange(2, len(data)) if random.random() < 0.5 else random.choice((2, max(len(data) - 1, 2), len(data) // 2))
        data = data[:at] + random.choice(OPCODES) + data[at + random.choice((0, 0, 1, 4)):]
    return data


def zip_rewritten(content, random, change=None):
    """A zip with other members: names, contents, methods, duplicates."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as source, zipfile.ZipFile(out, 'w') as dest:
        for info in source.infolist():
            data = source.read(info)
            for ending, function in (change or {}).items():
                data = function(data) if info.filename.endswith(ending) else data
            if change is None and random.random() < 0.3:
                kind = random.randrange(7)
                if kind == 0:
                    info.filename = random.choice(('../../' + info.filename, '/tmp/' + info.filename, 'C:\\' + info.filename,
                                                   '\x1b[2J.png', '', 'é\n.png'))
                elif kind == 1:
                    data = bytes_changed(data, random)
                elif kind == 2:
                    info.compress_type = random.choice((zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA))
                elif kind == 3:
                    dest.writestr(info.filename, data[:50])
                elif kind == 4:
                    info.compress_type, data = zipfile.ZIP_DEFLATED, data[:100] + bytes(random.choice((10**6, 10**8)))
                elif kind == 5:
                    info.filename = info.filename.replace('.', '..', 1)
            dest.writestr(info, data)
    return out.getvalue()


def zip_changed(content, random, others=()):
    """A zip with other fields of its headers, other members, or other bytes."""
    kind = random.random()
    if kind < 0.3:
        return bytes_changed(content, random, others)
    if kind < 0.6:
        return zip_rewritten(content, random)
    data = bytearray(content)
    marks = [at for mark in (b'PK\1\2', b'PK\3\4', b'PK\5\6') for at in _all(data, mark)]
    at = random.choice(marks)
    # needed version, flags (1 is encrypted), method, sizes, length of name, number of entries, offsets
    field, code = random.choice(((4, b'\x54\x00'), (6, b'\x54\x00'), (6, b'\x01\x00'), (8, b'\x01\x00'), (8, b'\x0c\x00'), (10,
                                                                                                                            b'\x01\x00'),
                                 (10, b'\x0c\x00'), (10, b'\x5f\x00'), (18, b'\xff' * 4), (20, b'\xff' * 4), (24, b'\xf0\xff\xff\xff'),
                                 (22, b'\0' * 4),
                                 (26, b'\xff\xff'), (28, b'\xff\xff'), (42, b'\xff\xff\xff\x7f'), (16, b'\xff\xff\xff\x7f'), (10,
                                                                                                                              b'\xff\xff')))
    data[at + field:at + field + len(code)] = code
    return bytes(data)


def _all(data, mark):
    at = data.find(mark)
    while at >= 0:
        yield at
        at = data.find(mark, at + 1)


def npz_changed(content, random, others):
    """A projected_w with another array header, other members, or other bytes."""
    if random.random() < 0.5:
        return zip_changed(content, random, others)
    headers = ("{'descr': '<f4', 'fortran_order': False, 'shape': (2147483648, 2147483648, 4), }",
               "{'descr': '|O', 'fortran_order': False, 'shape': (3,), }",
               "{'descr': '<f4', 'fortran_order': False, 'shape': (0, 9, 8), }",
               "{'descr': '<f4', 'fortran_order': False, 'shape': (-1,), }",
               '(' * 9000, "{'descr': [('a', '<f4')] * 3, 'fortran_order': 1, 'shape': 3}",
               "{'descr': '<U99999999', 'fortran_order': False, 'shape': (1,), }")
    header = random.choice(headers).encode() + b'\n'
    made = b'\x93NUMPY\x01\x00' + struct.pack('<H', len(header)) + header + random.randbytes(random.choice((0, 12, 1000)))
    return zip_rewritten(content, random, change={random.choice(('w.npy', '.npy')): lambda data: made})


# ---- Whole files


def small_files(folder, training):
    """{kind: [whole files]} to begin from. training: a Training that has stepped, with its run in `folder`/run."""
    network = checkpoint.network_path(folder / 'run', 4)
    checkpoint.save_state(checkpoint.state_path(network), training.state_dict())
    checkpoint.save_networks(network, training.networks, training.settings, training.images)
    (folder / 'run' / 'training_options.json').write_text(to_json(training.settings))
    pixels = np.random.RandomState(0).randint(0, 256, (6, 28, 28), np.uint8)
    labels = {'labels': [[f'{i:02d}.png', i % 2] for i in range(10)], 'classes': ['cat', 'dog']}
    vectors = {'labels': [[f'{i:02d}.png', [0.5, i / 10]] for i in range(10)]}
    return {'snapshot': [network.read_bytes()], 'state': [checkpoint.state_path(network).read_bytes()],
            'options': [to_json(training.settings).encode()], 'json': [json.dumps(each).encode() for each in (labels, vectors)],
            'images': list(images(pixels)), 'zip': [zipped(folder / 'images')], 'idx': [idx(pixels), gzip.compress(idx(pixels), mtime=0)],
            'lmdb': [lmdb(folder)], 'cifar': [cifar(protocol) for protocol in (2, 4)]}


def images(pixels):
    """One picture in many formats and modes."""
    grey = Image.fromarray(np.ascontiguousarray(np.pad(pixels[0], 2)))
    for mode, form, how in (('RGB', 'PNG', {}), ('RGBA', 'PNG', {}), ('L', 'PNG', {}), ('P', 'PNG', {}), ('I;16', 'PNG', {}), ('RGB',
                                                                                                                               'JPEG', {}),
                            ('CMYK', 'JPEG', {}), ('L', 'JPEG', {'progressive': True}), ('RGB', 'WEBP', {}), ('RGB', 'WEBP',
                                                                                                              {'lossless': True}),
                            ('RGB', 'TIFF', {}), ('RGB', 'TIFF', {'compression': 'tiff_lzw'}), ('P', 'GIF', {'save_all': True}), ('RGB',
                                                                                                                                  'BMP',
                                                                                                                                  {}),
                            ('L', 'PPM', {}), ('RGB', 'TGA', {}), ('RGB', 'AVIF', {})):
        file = io.BytesIO()
        try:
            grey.convert(mode).save(file, form, **how)
        except (OSError, ValueError, KeyError):
            continue  # a format that this Pillow cannot write
        yield file.getvalue()


def zipped(folder):
    """A zip of a folder of images with labels."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, 'w') as archive:
        for path in sorted(folder.iterdir()):
            archive.write(path, path.name)
    return out.getvalue()


def idx(pixels):
    """An idx file of images."""
    return b'\0\0\x08\3' + struct.pack('>III', *pixels.shape) + pixels.tobytes()


def lmdb(folder):
    """An lmdb of a few pictures, values of its own pages among them."""
    import lmdb

    with lmdb.open(str(folder / 'lmdb'), map_size=1 << 20) as environment, environment.begin(write=True) as transaction:
        for i in range(40):
            transaction.put(f'key{i}'.encode(), bytes([i]) * (i * 200))
    return (folder / 'lmdb' / 'data.mdb').read_bytes()


def cifar(protocol):
    """A small archive in the layout of CIFAR-10."""
    batch = {b'data': np.zeros((4, 3072), np.uint8), b'labels': [0, 1, 1, 0], b'filenames': [b'a', b'b', b'c', b'd']}
    files = {'cifar-10-batches-py/data_batch_1': pickle.dumps(batch, protocol),
             'cifar-10-batches-py/batches.meta': pickle.dumps({b'label_names': [b'cat', b'dog']}, protocol)}
    return tarred(files)


def tarred(files):
    """A .tar.gz of files by name."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode='w:gz') as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def cifar_changed(content, random, others):
    """The archive with other pickles, its tar with other bytes, or its gzip."""
    kind = random.random()
    if kind < 0.2:
        return bytes_changed(content, random, others)
    if kind < 0.4:
        return gzip.compress(bytes_changed(gzip.decompress(content), random), 1, mtime=0)
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        files = {member.name: tar.extractfile(member).read() for member in tar}
    name = random.choice(list(files))
    files[name] = pickle_changed(files[name], random, list(files.values()))
    return tarred(files)


def idx_changed(content, random, others):
    """An idx file with other sides, or other bytes, packed or not."""
    packed = content[:2] == b'\x1f\x8b'
    if random.random() < 0.2:
        return bytes_changed(content, random, others)
    data = bytearray(gzip.decompress(content) if packed else content)
    sides = random.choice(([2**32 - 1, 0, 0], [0, 28, 28], [2**31, 2**31, 4], [2**32 - 1] * 3, [6, 28, 29], [2**16, 2**16, 2**16], [10**6,
                                                                                                                                    1, 1],
                                                                                                                                    None))
    if sides is None:
        data = bytes_changed(bytes(data), random)
    else:
        data[4:16] = struct.pack('>III', *sides)
        data = data[:random.choice((16, len(data)))]
    return gzip.compress(data, 1, mtime=0) if packed else bytes(data)


def _decoded(changed):
    return lambda content, random, others: changed(content.decode(), random)


CHANGES = {'snapshot': snapshot_changed, 'state': state_changed, 'pickle': pickle_changed, 'projected_w': npz_changed, 'zip': zip_changed,
           'json': _decoded(json_changed), 'options': _decoded(json_changed), 'images': bytes_changed, 'idx': idx_changed,
           'lmdb': bytes_changed,
           'cifar': cifar_changed}
