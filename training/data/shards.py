"""Sets in shards: plain tar files in WebDataset's layout, read sample by sample from wherever they are, by the index beside them. No torch.

A sample is the members of one name: a picture (000017.png) and what its label is (000017.cls, a class index, or 000017.json). The index is
index.json, which lists the shards (file, samples, bytes, SHA-256 of the file, SHA-256 of its offsets), and beside each shard NAME.offsets:
a little-endian record of each sample in the order of the tar, `record_type`: where the picture begins, its bytes, their CRC-32, the label.
`dataset_tool.py shard` and `index` make them (training.data.sharding).
"""

import functools
import hashlib
import io
import itertools
import json
import os
import re
import zlib
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from dnnlib.util import UserError
from training.data.files import BadImage, read_header
from training.data.labels import Labels, parse_looks
from training.data.ranges import WRONG, Damaged, Ranges, beside, is_url

INDEX = 'index.json'
FORMAT = 'inr-gan shards'
VERSION = 1
BLOCK_BYTES = 4 << 20   # of the samples that are read together
TABLE_BYTES = 64 << 20  # of the offsets that are kept in memory
MOST_SAMPLES = 1 << 40
MOST_DIM = 1 << 20      # classes, or numbers of a label


def record_type(label: str | int | None) -> np.dtype:
    """A sample in a file of offsets. label: None, 'class', or how many numbers each label has"""
    fields = [('offset', '<u8'), ('size', '<u4'), ('crc', '<u4')]
    if label is not None:
        fields.append(('label', '<i4') if label == 'class' else ('label', '<f8', (label,)))
    return np.dtype(fields)


def offsets_name(shard: str) -> str:
    """The file of offsets of a shard."""
    return shard.removesuffix('.tar') + '.offsets'


@dataclass(frozen=True)
class Index:
    """What index.json says.

    shape: (width, height, channels) of all pictures;  label: see `record_type`;  classes: their names, or None
    least_side: of pictures that keep their size (convert --native), which `shape` does not tell then; else None
    class_counts: int64 [classes], how many samples each has; None where that is not known
    names, sha256, offsets_sha256: of the shards;  samples, bytes: int64 [shards]
    looks: see data.labels.Labels
    """

    shape: tuple[int, int, int]
    least_side: int | None
    label: str | int | None
    classes: list[str] | None
    class_counts: np.ndarray | None
    names: list[str]
    samples: np.ndarray
    bytes: np.ndarray
    sha256: np.ndarray          # S64 [shards]
    offsets_sha256: np.ndarray  # S64 [shards]
    looks: list[list[float]] | None = None

    @functools.cached_property
    def digest(self) -> str:
        """SHA-256 (hex) of the whole set, pictures and labels, by the checksums of its files."""
        total = hashlib.sha256(repr((self.least_side, self.label, self.classes)).encode())
        for part in (self.samples, self.bytes, self.sha256, self.offsets_sha256):
            total.update(part.tobytes())
        return total.hexdigest()

    @property
    def dim(self) -> int:
        """Classes, or numbers of a label."""
        if self.label != 'class':
            return self.label or 0
        return len(self.classes) if self.classes else len(self.class_counts)

    def part(self, kept: Sequence[str]) -> 'Index':
        """The index of some of the shards, by name."""
        of_name = {name: i for i, name in enumerate(self.names)}
        missing = next((name for name in kept if name not in of_name), None)
        if missing is not None:
            raise UserError(f'{missing} is not in {INDEX}: python dataset_tool.py index {missing} and all others makes it anew')
        if len(kept) == len(self.names):
            return self
        rows = [of_name[name] for name in sorted(kept)]
        classes = self.classes or ([str(i) for i in range(self.dim)] if self.label == 'class' else None)
        return Index(self.shape, self.least_side, self.label, classes, None, [self.names[i] for i in rows], self.samples[rows],
                     self.bytes[rows], self.sha256[rows], self.offsets_sha256[rows], self.looks)

    def to_json(self) -> str:
        """The content of index.json."""
        digests = (column.astype(str).tolist() for column in (self.sha256, self.offsets_sha256))
        lines = ',\n'.join(map(json.dumps, zip(self.names, self.samples.tolist(), self.bytes.tolist(), *digests, strict=True)))
        counts = None if self.class_counts is None else self.class_counts.tolist()
        head = {'format': FORMAT, 'version': VERSION, 'shape': self.shape, 'least_side': self.least_side, 'label': self.label,
                'classes': self.classes, 'class_counts': counts, 'digest': self.digest}
        head |= {'looks': self.looks} if self.looks else {}
        return json.dumps(head)[:-1] + ', "shards": [\n' + lines + '\n]}\n'


def parse_index(data: bytes, where: str) -> Index:
    """The index in the content of an index.json. Raises UserError for what is none, or says what cannot be."""
    def expect(right: bool, what: str) -> None:
        if not right:
            raise UserError(f'{where} is no index of shards ({what}): make it with python dataset_tool.py index')

    try:
        content = json.loads(data)
    except (ValueError, RecursionError) as err:
        content = expect(False, f'not valid JSON: {str(err)[:100]}')
    expect(isinstance(content, dict) and content.get('format') == FORMAT, f'"format" is not {FORMAT!r}')
    expect(content.get('version') == VERSION, f'"version" is {str(content.get("version"))[:20]}, this program reads {VERSION}')
    shape, least, label, classes, counts, rows = (content.get(key) for key in ('shape', 'least_side', 'label', 'classes', 'class_counts',
                                                                                'shards'))
    expect(_whole(shape, 1 << 20, 1) and len(shape) == 3, '"shape" must be [width, height, channels]')
    expect(least is None or _whole([least], 1 << 20, 1), '"least_side" must be null or a number of pixels')
    expect(label in (None, 'class') or _whole([label], MOST_DIM, 1), '"label" must be null, "class" or how many numbers')
    expect(classes is None or isinstance(classes, list) and len(classes) <= MOST_DIM and all(isinstance(name, str) for name in classes),
           '"classes" must be names')
    expect(counts is None or _whole(counts, MOST_SAMPLES) and len(counts) <= MOST_DIM, '"class_counts" must be whole numbers')
    expect(label != 'class' or bool(counts) and (not classes or len(classes) == len(counts)), '"class_counts" must have one for each class')
    expect(label == 'class' or not counts, '"class_counts" without classes')
    expect(isinstance(rows, list) and len(rows) > 0 and all(isinstance(row, list) and len(row) == 5 for row in rows),
           '"shards" must list [file, samples, bytes, SHA-256, SHA-256 of the offsets]')
    names, samples, sizes, *digests = zip(*rows, strict=True)
    for name in names:
        expect(isinstance(name, str) and re.fullmatch(r'[^/\\:?#\[\]\x00-\x1f]+\.tar', name) is not None, f'file {str(name)[:60]!r}')
    expect(len(set(names)) == len(names), 'a file comes twice')
    expect(_whole(samples, 1 << 31, 1) and _whole(sizes, 1 << 60, 1) and sum(samples) <= MOST_SAMPLES, 'samples and bytes')
    for digest in itertools.chain(*digests):
        expect(isinstance(digest, str) and re.fullmatch('[0-9a-f]{64}', digest) is not None, 'a SHA-256')
    expect(label != 'class' or sum(counts) == sum(samples), '"class_counts" and samples differ')
    index = Index(tuple(shape), least, label, classes, np.array(counts, np.int64) if label == 'class' else None, *columns(rows),
                  parse_looks(content.get('looks'), classes, where))
    expect(content.get('digest') == index.digest, 'its digest does not fit its content')
    return index


def columns(rows: Sequence) -> tuple:
    """The last five fields of an `Index`. rows: (file, samples, bytes, SHA-256, SHA-256 of the offsets) of each shard"""
    names, samples, sizes, *digests = zip(*rows, strict=True)
    return list(names), np.array(samples, np.int64), np.array(sizes, np.int64), *(np.array(digest, 'S64') for digest in digests)


def _whole(values: object, below: int, least: int = 0) -> bool:
    """Whether these are whole numbers from `least` to below `below`."""
    return isinstance(values, (list, tuple)) and all(type(value) is int and least <= value < below for value in values)


# ---- Samples


class Names(Sequence):
    """What the samples of a set are called, 'shard-000012.tar[17]', by number; made when asked for."""

    def __init__(self, index: Index):
        self.index = index
        self.first = np.concatenate([[0], np.cumsum(index.samples)])  # number of each shard's first sample
        self._shard = {name: i for i, name in enumerate(index.names)}

    def __len__(self) -> int:
        return int(self.first[-1])

    def __getitem__(self, i):
        if isinstance(i, slice):
            return [self[k] for k in range(*i.indices(len(self)))]
        shard, row = self.place(range(len(self))[i])
        return f'{self.index.names[shard]}[{row}]'

    def __contains__(self, name: object) -> bool:
        try:
            self.parse(name)
        except (KeyError, ValueError, AttributeError):
            return False
        return True

    def place(self, number: int) -> tuple[int, int]:
        """(shard, row in it) of a sample."""
        shard = int(np.searchsorted(self.first, number, side='right')) - 1
        return shard, number - int(self.first[shard])

    def parse(self, name: str) -> tuple[int, int]:
        """(shard, row in it) of a sample by its name. Raises KeyError or ValueError for another name."""
        shard, _, row = name.rpartition('[')
        shard, row = self._shard[shard], int(row[:-1])
        if not 0 <= row < self.index.samples[shard]:
            raise KeyError(name)
        return shard, row


class ShardLabels(Mapping):
    """The label of each sample by name, read when asked for."""

    def __init__(self, files: 'ShardFiles'):
        self.files = files

    def __getitem__(self, name: str) -> int | tuple[float, ...]:
        shard, row = self.files.names.parse(name)
        label = self.files.table(shard)['label'][row]
        return int(label) if self.files.index.label == 'class' else tuple(label.tolist())

    def __contains__(self, name: object) -> bool:
        return name in self.files.names

    def __iter__(self) -> Iterator[str]:
        return iter(self.files.names)

    def __len__(self) -> int:
        return len(self.files.names)


class ShardFiles:
    """The pictures of a set in shards; has what `files.ImageFiles` has. May be pickled and used after a fork.

    path: of its index.json: a path, or an address of http, https, s3 and others that fsspec knows
    shards: names of those that are taken; None: all
    sparse: few pictures will be read. Else a block is fetched from a network at once, since its other pictures are wanted next
    ranges: reads the files; None: one of its own
    Only the list of shards is kept in memory, the offsets of those that are being read, and nothing for each sample.
    """

    is_zip = False
    others = ()
    most_checked = 64  # pictures looked at before a run

    def __init__(self, path: str, shards: Sequence[str] | None = None, sparse: bool = False, ranges: Ranges | None = None):
        self.path, self.ranges = path, ranges or Ranges()
        self.remote = is_url(path)
        self.index = parse_index(self.ranges.read(path, right=_index_problem if self.remote else lambda data: None), path)
        if shards is not None:
            self.index = self.index.part(shards)
        self.names = Names(self.index)
        self.block = max(1, round(BLOCK_BYTES * len(self.names) / int(self.index.bytes.sum())))
        self.whole_blocks = self.remote and not sparse
        self._tables: OrderedDict[int, np.ndarray] = OrderedDict()
        self._bad_blocks: set[tuple[int, int]] = set()  # (shard, block) with a damaged sample, not fetched whole again

    @property
    def title(self) -> str:
        """What runs on this set are called."""
        folder = (self.path if self.remote else os.path.abspath(self.path)).split('/')[-2]
        return re.sub(r'[^\w.\-]', '_', folder) or 'shards'

    def __getstate__(self):
        return {**self.__dict__, '_tables': OrderedDict()}

    def close(self) -> None:
        """Closes the files; reading opens them again."""
        self.ranges.close()

    def conversion_command(self, resolution: int = 256) -> str:
        """The commands that make data that training can take out of what the shards were made from."""
        return f'python dataset_tool.py convert SOURCE DEST.zip --resolution={resolution}, then shard DEST.zip FOLDER'

    def least_side(self) -> int | None:
        """See `files.ImageFiles.least_side`."""
        return self.index.least_side

    def left_out(self) -> list[tuple[str, str]]:
        """Pictures that are not read: none."""
        return []

    def labels(self) -> Labels | None:
        """The labels, None without."""
        if self.index.label is None:
            return None
        counts = self.index.class_counts
        return Labels(ShardLabels(self), self.index.dim, self.index.classes, None if counts is None else np.cumsum(counts), complete=True,
                      looks=self.index.looks)

    def digest(self, labels: Labels | None = None) -> str:
        """SHA-256 (hex) over the checksums of the shards and their offsets."""
        return self.index.digest

    def place(self, name: str) -> str:
        """Where a file of the set is."""
        return beside(self.path, name)

    def table(self, shard: int) -> np.ndarray:
        """The records of a shard's samples. Raises UserError where they cannot be read, or are not what they were."""
        if (table := self._tables.get(shard)) is None:
            table = self._read_table(shard)
            while self._tables and sum(each.nbytes for each in self._tables.values()) + table.nbytes > TABLE_BYTES:
                self._tables.popitem(last=False)
            self._tables[shard] = table
        else:
            self._tables.move_to_end(shard)
        return table

    def _read_table(self, shard: int) -> np.ndarray:
        index, kind = self.index, record_type(self.index.label)
        place, size = self.place(offsets_name(index.names[shard])), int(index.samples[shard]) * kind.itemsize

        def problem(data: bytes) -> str | None:
            return None if hashlib.sha256(data).hexdigest() == index.offsets_sha256[shard].decode() else 'its SHA-256 is another'

        read = functools.partial(self.ranges.read_kept, part_right=problem) if self.remote else self.ranges.read
        try:
            data = read(place, 0, size, problem)
        except OSError as err:
            raise UserError(f'{place} cannot be read ({err.strerror}): bring it back; dataset_tool.py index makes it anew') from err
        table = np.frombuffer(data, kind)
        starts, ends = table['offset'], table['offset'] + table['size']
        if (starts > ends).any() or (starts[1:] < ends[:-1]).any() or ends[-1] > index.bytes[shard]:
            raise UserError(f'{place} names places that are not in the shard: python dataset_tool.py index makes it anew')
        if index.label == 'class' and not ((table['label'] >= 0) & (table['label'] < index.dim)).all():
            raise UserError(f'{place} has a class that {INDEX} does not know: python dataset_tool.py index makes it anew')
        return table

    def read(self, name: str) -> bytes:
        """A picture's file, whole. Raises BadImage where it is damaged, UserError where its offsets are or a network fails for long."""
        shard, row = self.names.parse(name)
        table = self.table(shard)
        try:
            block = shard, (int(self.names.first[shard]) + row) // self.block
            if self.whole_blocks and block not in self._bad_blocks:
                try:
                    return self._of_block(shard, row, table)
                except Damaged:
                    self._bad_blocks.add(block)  # some sample of the block is: is it this one?
            start, size, crc = table[row].item()[:3]
            again = 1 if block in self._bad_blocks else WRONG - 1  # a server has been asked often enough
            return self.ranges.read(self.place(self.index.names[shard]), start, size, lambda data: _crc_problem(data, crc), again)
        except (Damaged, OSError) as err:
            raise BadImage(f'cannot be read ({err})') from err

    def _of_block(self, shard: int, row: int, table: np.ndarray) -> bytes:
        """A picture out of the block that it is in, which is fetched from the network if it is not kept."""
        first = int(self.names.first[shard])
        begin = (first + row) // self.block * self.block - first
        rows = table[max(begin, 0):begin + self.block]
        start, end = int(rows['offset'][0]), int(rows['offset'][-1]) + int(rows['size'][-1])
        offset, size, crc = table[row].item()[:3]

        def problem(data: bytes) -> str | None:
            found = (_crc_problem(data[at - start:at - start + count], wanted) for at, count, wanted in
                     zip(rows['offset'].tolist(), rows['size'].tolist(), rows['crc'].tolist(), strict=True))
            return next((reason for reason in found if reason is not None), None)

        return self.ranges.read_kept(self.place(self.index.names[shard]), start, end - start, problem, offset - start, size,
                                     part_right=lambda data: _crc_problem(data, crc))

    def header(self, name: str) -> tuple[int, int, int]:
        """(width, height, channels) of a picture. Raises BadImage."""
        return read_header(io.BytesIO(self.read(name)))


def _crc_problem(data: bytes, crc: int) -> str | None:
    return None if zlib.crc32(data) == crc else 'a checksum does not fit'


def _index_problem(data: bytes) -> str | None:
    """Why a network is to be asked for an index again: it is no JSON, or not the one that was stored."""
    try:
        parse_index(data, INDEX)
    except UserError as err:
        return 'it is not whole' if 'JSON' in str(err) or 'digest' in str(err) else None
    return None
