"""Shards made and looked at: a set written as tars, an index for tars that are there, indexes of several machines joined. No torch."""

import hashlib
import io
import itertools
import json
import shutil
import tarfile
import uuid
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np

from dnnlib.util import UserError, atomic_path, file_digest
from training.data.files import EXTENSIONS, BadImage, native_problem, read_header, shape_problem
from training.data.labels import Labels, parse_labels
from training.data.order import key_of, permuted
from training.data.shards import INDEX, Index, ShardFiles, columns, offsets_name, record_type
from training.data.workers import in_batches, inspect_many, ordered_map

SECTOR = 512               # of a tar
MOST_LABEL_BYTES = 1 << 20
MOST_SHARD_SAMPLES = 50_000  # a table of offsets is read whole

Label = int | tuple[float, ...] | None


class Pictures:
    """What all pictures of a set have in common; the first of them decides. least_side: see `Index`"""

    def __init__(self, least_side: int | None = None):
        self.least_side, self.shape, self.first = least_side, None, ''

    def expect(self, name: str, data: bytes) -> None:
        """Raises UserError for a picture that training cannot take beside the first."""
        try:
            shape = read_header(io.BytesIO(data))
        except BadImage as err:
            raise UserError(f'{name}: {err}: repair or remove it') from err
        if self.shape is None:
            self.shape, self.first = shape, name
        problem = native_problem(shape, self.shape[2], self.least_side) if self.least_side else shape_problem(shape, self.shape, self.first)
        if problem is not None:
            raise UserError(f'{name} {problem}. Convert all first: python dataset_tool.py convert')


class Records:
    """The records of the samples of one shard, and how many samples of each class all shards have."""

    def __init__(self, label: str | int | None):
        self.kind, self.rows, self.counts = record_type(label), [], np.zeros(0, np.int64)
        self.label = label

    def add(self, offset: int, data: bytes, label: Label) -> None:
        """A sample: where its picture begins, the picture, its label."""
        self.rows.append((offset, len(data), zlib.crc32(data), *(() if self.label is None else (label,))))

    def finish(self, path: Path) -> tuple[int, str]:
        """Writes the offsets of a shard; the next sample is of another shard. Returns (samples, SHA-256)."""
        table = np.array(self.rows, self.kind)
        if self.label == 'class':
            here = np.bincount(table['label'], minlength=len(self.counts))
            self.counts = np.pad(self.counts, (0, len(here) - len(self.counts))) + here
        with atomic_path(path) as temporary:
            temporary.write_bytes(table.tobytes())
        self.rows = []
        return len(table), hashlib.sha256(table.tobytes()).hexdigest()

    def index(self, pictures: Pictures, labels: Labels | None, shards: list[tuple]) -> Index:
        """The index of all.

        labels: what names the classes and says how they look, if anything does
        shards: (file, samples, bytes, SHA-256, SHA-256 of the offsets) of each
        """
        counts, classes = None, labels and labels.classes
        if self.label == 'class':
            counts = np.pad(self.counts, (0, max(0, len(classes or ()) - len(self.counts))))
        return Index(pictures.shape, pictures.least_side, self.label, classes, counts, *columns(shards), labels and labels.looks)


def kind_of(label: Label) -> str | int | None:
    """What `record_type` calls labels like this one."""
    return len(label) if isinstance(label, tuple) else None if label is None else 'class'


def save_index(path: Path, index: Index) -> None:
    """Writes an index.json."""
    with atomic_path(path) as temporary:
        temporary.write_text(index.to_json(), encoding='utf-8')


# ---- A set as shards


class TarWriter:
    """A tar of files that all have date 0, so that the same pictures give the same bytes."""

    def __init__(self, path: Path):
        self.file, self.position, self.sha256 = open(path, 'wb'), 0, hashlib.sha256()

    def add(self, name: str, data: bytes) -> int:
        """Adds a file; returns where its content begins."""
        info = tarfile.TarInfo(name)
        info.size = len(data)
        self._write(info.tobuf(tarfile.USTAR_FORMAT))
        start = self.position
        self._write(data + bytes(-len(data) % SECTOR))
        return start

    def finish(self) -> tuple[int, str]:
        """Ends the tar. Returns (bytes, SHA-256)."""
        self._write(bytes(2 * SECTOR))
        self.file.close()
        return self.position, self.sha256.hexdigest()

    def _write(self, data: bytes) -> None:
        self.file.write(data)
        self.sha256.update(data)
        self.position += len(data)


def write_shards(files, labels: Labels | None, dest: Path, shard_bytes: int, prefix: str = 'shard-', shuffle: int | None = 0,
                 told: Callable[[], None] = lambda: None) -> Index:
    """Writes a set of `opening.Files` as shards into a new folder, pictures unchanged.

    shard_bytes: a shard ends with the picture that reaches so many;  shuffle: seed of the order, None keeps that of the set
    told: called for each picture
    """
    total = len(files.names)
    order: Iterable[int] = range(total)
    if shuffle is not None:
        order = (int(i) for first in range(0, total, 4096)
                 for i in permuted(np.arange(first, min(first + 4096, total), dtype=np.uint64), total, key_of(shuffle)))
    label_of = (lambda name: None) if labels is None else labels.by_name.__getitem__
    records, pictures, shards = Records(kind_of(label_of(files.names[0]))), Pictures(files.least_side()), []
    temporary = dest.with_name(f'.tmp-{uuid.uuid4().hex[:8]}-{dest.name}')
    try:
        temporary.mkdir()
        writer, samples = None, enumerate(order)
        for number, i in samples:
            name = files.names[i]
            data = _picture(files, name)
            pictures.expect(f'{files.path}: {name}', data)
            if writer is None:
                shard = f'{prefix}{len(shards):06d}.tar'
                writer = TarWriter(temporary / shard)
            _add_sample(writer, records, f'{number:09d}', name, data, label_of(name))
            told()
            if writer.position >= shard_bytes or len(records.rows) == MOST_SHARD_SAMPLES or number == total - 1:
                size, digest = writer.finish()
                count, of_offsets = records.finish(temporary / offsets_name(shard))
                shards.append((shard, count, size, digest, of_offsets))
                writer = None
        index = records.index(pictures, labels, shards)
        save_index(temporary / INDEX, index)
        temporary.rename(dest)
        return index
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _picture(files, name: str) -> bytes:
    try:
        return files.read(name)
    except BadImage as err:
        raise UserError(f'{files.path}: {name}: {err}: repair or remove it') from err


def _add_sample(writer: TarWriter, records: Records, key: str, name: str, data: bytes, label: Label) -> None:
    ending = next(ending for ending in EXTENSIONS if name.lower().endswith(ending)) if '.' in name else '.png'
    records.add(writer.add(key + ending, data), data, label)
    if isinstance(label, tuple):
        writer.add(key + '.json', json.dumps({'label': label}).encode())
    elif label is not None:
        writer.add(key + '.cls', str(label).encode())


# ---- An index for tars that are there


def index_tars(paths: list[Path], told: Callable[[], None] = lambda: None) -> Index:
    """Writes the offsets beside each tar (plain, in WebDataset's layout, all in one folder) and returns the index. told: see above"""
    records, pictures, shards, first = None, Pictures(), [], None
    for path in paths:
        for key, offset, data, label in samples_of(path):
            pictures.expect(f'{path}: {key}', data)
            if records is None:
                records, first = Records(kind_of(label)), key
            if kind_of(label) != records.label:
                raise UserError(f'{path}: {key} has {_words(kind_of(label))}, {first} of {paths[0]} has {_words(records.label)}: training '
                                'needs one kind')
            records.add(offset, data, label)
            told()
        if records is None or not records.rows:
            raise UserError(f'{path} holds no pictures ({", ".join(ending[1:] for ending in EXTENSIONS)})')
        count, of_offsets = records.finish(path.with_name(offsets_name(path.name)))
        shards.append((path.name, count, path.stat().st_size, file_digest(path), of_offsets))
    return records.index(pictures, None, shards)


def _words(kind: str | int | None) -> str:
    return {None: 'no label', 'class': 'a class'}.get(kind, f'a label of {kind} numbers')


def samples_of(path: Path) -> Iterator[tuple[str, int, bytes, Label]]:
    """(key, where its picture begins, the picture, label) of each sample of a tar. Raises UserError for a tar that is damaged."""
    try:
        with tarfile.open(path, 'r:') as tar, open(path, 'rb') as file:
            members = (member for member in tar if member.isreg())
            for key, group in itertools.groupby(members, lambda member: _key(member.name)):
                picture, label = None, None
                for member in group:
                    ending = member.name[len(key):].lower()
                    if ending in EXTENSIONS and picture is None:
                        picture = member
                    elif ending in ('.cls', '.json'):
                        found = _label_of(_content(file, member, MOST_LABEL_BYTES), ending, f'{path}: {member.name}')
                        label = found if found is not None else label
                if picture is not None:
                    yield key, picture.offset_data, _content(file, picture), label
            file.seek(tar.offset)
            if file.read(SECTOR) != bytes(SECTOR):  # tarfile takes a header that is none for the end
                raise tarfile.TarError(f'no header and no end at byte {tar.offset}')
    except tarfile.TarError as err:
        raise UserError(f'{path} is no plain tar, or damaged ({err}): unpack it if it is packed, or copy it again') from err


def _key(name: str) -> str:
    """What members of one sample have in common: all up to the first dot of the last part."""
    folder, slash, last = name.rpartition('/')
    return folder + slash + last.partition('.')[0]


def _content(file, member: tarfile.TarInfo, most: int = 1 << 32) -> bytes:
    file.seek(member.offset_data)
    data = file.read(min(member.size, most))
    if len(data) < member.size:
        raise tarfile.TarError(f'{member.name} is cut short' if member.size <= most else f'{member.name} is too large')
    return data


def _label_of(data: bytes, ending: str, where: str) -> Label:
    """The label in a .cls file (a class index) or .json ("label": class index or list of numbers); None where the JSON has none."""
    if ending == '.cls':
        text = data.decode('ascii', 'replace').strip()
        if not text.isdecimal():
            raise UserError(f'{where} holds {text[:20]!r}: a class index is needed')
        label: object = int(text)
    else:
        try:
            content = json.loads(data)
        except (ValueError, RecursionError) as err:
            raise UserError(f'{where} is not valid JSON ({str(err)[:80]})') from err
        label = content.get('label') if isinstance(content, dict) else None
        if label is None:
            return None
    pairs = parse_labels(json.dumps({'labels': [['', label]]}).encode(), '', where)  # the rules of dataset.json
    return pairs.by_name['']


# ---- Several indexes


def joined(parts: list[tuple[str, Index]]) -> Index:
    """One index of shards that several machines made. parts: (what messages call it, index) of each"""
    where, first = parts[0]
    for other, index in parts:
        if (index.shape[2], index.label, index.least_side is None) != (first.shape[2], first.label, first.least_side is None) or \
                index.least_side is None and index.shape != first.shape or index.classes != first.classes:
            raise UserError(f'{other} and {where} differ in the size, channels, kind of labels or names of classes of their pictures')
    names = [name for _, index in parts for name in index.names]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise UserError(f'{twice} is in more than one of these: make the parts with another --prefix each')
    counts = None
    if first.label == 'class' and all(index.class_counts is not None for _, index in parts):
        most = max(len(index.class_counts) for _, index in parts)
        counts = sum(np.pad(index.class_counts, (0, most - len(index.class_counts))) for _, index in parts)
    arrays = (np.concatenate([getattr(index, field) for _, index in parts]) for field in ('samples', 'bytes', 'sha256', 'offsets_sha256'))
    least = min(index.least_side for _, index in parts) if first.least_side else None
    looks = first.looks if all(index.looks == first.looks for _, index in parts) else None
    return Index(first.shape, least, first.label, first.classes, counts, names, *arrays, looks)


# ---- What is wrong with shards


def problems_of(files: ShardFiles, workers: int, told: Callable[[int], object] = lambda count: None) -> Iterator[tuple[str, str]]:
    """(shard or sample, what is wrong) of everything in a set that is not as it was written, or that training cannot take.

    workers: processes that decode;  told: called with how many samples were looked at
    """
    index = files.index
    for shard, name in enumerate(index.names):
        samples = [f'{name}[{row}]' for row in range(int(index.samples[shard]))]
        try:
            if not files.remote and file_digest(files.place(name)) != index.sha256[shard].decode():
                yield name, 'its SHA-256 is not that of the index: copy or make it again'
            files.table(shard)
        except (UserError, OSError) as err:
            yield name, f'cannot be read ({err})'
            told(len(samples))
            continue
        results = itertools.chain.from_iterable(ordered_map(inspect_many, in_batches(samples, files.read), workers, len(samples)))
        for sample, (shape, reason) in zip(samples, results, strict=True):
            told(1)
            if shape is not None:
                reason = (native_problem(shape, index.shape[2], index.least_side) if index.least_side else
                          shape_problem(shape, index.shape, INDEX)) or ''
            if reason:
                yield sample, reason
