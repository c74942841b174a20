"""The pages of an lmdb: its keys and where their values lie, by plain reads. No torch, and not the lmdb library.

The library maps a file into memory and trusts what it says; one that is cut short or damaged ends the process with a signal. Here every
page number, offset and length is compared with the file. The format is that of LMDB 0.9, 64-bit little-endian: pages of a B+ tree, values
that are too long for a leaf on pages of their own, and two pages at the start that say where the tree begins, of which the later counts.
"""

import os
import struct
from pathlib import Path

HEAD = 16  # bytes before the content of a page: its number, 2 unused, flags, where free space begins and ends (or how many pages follow)
BRANCH, LEAF, OVERFLOW, META, FIXED = 0x01, 0x02, 0x04, 0x08, 0x20
ELSEWHERE, ODD = 0x01, 0x06  # flags of a node: its value is on pages of its own; it is a tree of its own
MAGIC, VERSION = 0xBEEFC0DE, 1
NO_PAGE = 2**64 - 1
DEEPEST = 32


class Damaged(ValueError):
    """A file that is no lmdb, or a damaged one. The text says why."""


class Pages:
    """An lmdb file, open for reading; may be used after a fork.

    keys:   of all entries, in order
    places: (offset, length) of each value in the file
    Raises Damaged, and OSError where the file cannot be read.
    """

    def __init__(self, path: Path):
        self._file = -1
        self._file = os.open(path, os.O_RDONLY)
        self.size = os.fstat(self._file).st_size
        self.keys: list[bytes] = []
        self.places: list[tuple[int, int]] = []
        self._seen: set[int] = set()
        root, self._page = self._start()
        if root != NO_PAGE:
            self._walk(root, 0)

    def value(self, i: int) -> bytes:
        """The value of entry i. Raises Damaged for a file that became shorter."""
        offset, length = self.places[i]
        return self._read(offset, length)

    def __del__(self):
        if self._file >= 0:
            os.close(self._file)

    def _read(self, offset: int, length: int) -> bytes:
        if offset + length > self.size:
            raise Damaged(f'it is cut short: {self.size:,} bytes, and it speaks of byte {offset + length:,}')
        content = os.pread(self._file, length, offset)
        if len(content) != length:
            raise Damaged('it became shorter while it was read')
        return content

    def _start(self) -> tuple[int, int]:
        """(page of the root, bytes of a page)."""
        first = self._meta(0)
        metas = [first, self._meta(first[3])]
        root, last, _, page = max(metas, key=lambda meta: meta[2])
        if (last + 1) * page > self.size:
            raise Damaged(f'it is cut short: {self.size:,} bytes of {(last + 1) * page:,}')
        return root, page

    def _meta(self, offset: int) -> tuple[int, int, int, int]:
        """(page of the root, last page, number of the transaction, bytes of a page)."""
        content = self._read(offset, HEAD + 136)
        magic, version = struct.unpack_from('<II', content, HEAD)
        if magic != MAGIC or version != VERSION:
            raise Damaged('not an lmdb of a format that is known')
        (page,) = struct.unpack_from('<I', content, HEAD + 24)
        (root,) = struct.unpack_from('<Q', content, HEAD + 24 + 48 + 40)
        last, transaction = struct.unpack_from('<QQ', content, HEAD + 24 + 96)
        if not 256 <= page <= 1 << 16 or page & page - 1 or last > 1 << 48:
            raise Damaged(f'pages of {page} bytes, {last} of them')
        return root, last, transaction, page

    def _walk(self, number: int, deep: int) -> None:
        """The entries below a page."""
        if deep > DEEPEST or number in self._seen:
            raise Damaged('its tree goes in circles')
        self._seen.add(number)
        if number > self.size:
            raise Damaged(f'it has no page {number}')
        content = self._read(number * self._page, self._page)
        _, _, flags, lower, _ = struct.unpack_from('<QHHHH', content)
        if flags & FIXED or not flags & (BRANCH | LEAF) or not HEAD <= lower <= self._page:
            raise Damaged(f'page {number} is none of its tree')
        used = HEAD
        for (at,) in struct.iter_unpack('<H', content[HEAD:lower - (lower - HEAD) % 2]):
            if at + 8 > self._page:
                raise Damaged(f'page {number} points beyond its end')
            low, high, more, key_length = struct.unpack_from('<HHHH', content, at)
            used += 8 + key_length
            if used > self._page:
                raise Damaged(f'page {number} holds more than it can')
            if flags & BRANCH:
                self._walk(low | high << 16 | more << 32, deep + 1)
            else:
                self._entry(number, content, at + 8, key_length, low | high << 16, more)

    def _entry(self, number: int, content: bytes, at: int, key_length: int, length: int, flags: int) -> None:
        """One entry of a leaf, whose key begins at `at`."""
        value = at + key_length
        if flags & ODD:
            raise Damaged('it holds several values for a key, which data sets do not')
        if value + (8 if flags & ELSEWHERE else length) > self._page:
            raise Damaged(f'an entry of page {number} ends beyond it')
        offset = number * self._page + value
        if flags & ELSEWHERE:
            (page,) = struct.unpack_from('<Q', content, value)
            offset = page * self._page + HEAD
            if offset + length > self.size:
                raise Damaged('a value lies beyond its end')
        self.keys.append(content[at:value])
        self.places.append((offset, length))
