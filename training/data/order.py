"""The order in which a set in shards is drawn: a keyed permutation in two levels, computed from the position alone. No torch.

A pass over the set (an epoch) goes through blocks of neighbouring images, which lie side by side in a shard. Blocks are permuted; LANES of
them are open at a time and give one image each in turn, in an order of their own. So a batch mixes LANES places of the set, what is read in
a while is a few contiguous pieces, and of P processes that take every P-th position each reads blocks of its own where P divides LANES.
No list of the set's size is kept: memory and time are the same for 10^3 and 10^9 images, and a resumed run is in its place at once.

Permutations are Feistel networks over a x b >= size (Black and Rogaway 2002): each half round adds to one digit a hash of the other, which
can be undone whatever the hash, and numbers past the end walk on until they are inside. The hash is the finalizer of SplitMix64.
The numbers are pinned by a test: a resumed run depends on them.
"""

import math
from collections.abc import Iterator

import numpy as np

LANES = 64   # blocks open at a time
ROUNDS = 6
CHUNK = 1024  # positions that a sampler computes at a time
GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # 2^64 over the golden ratio
SALTS = np.arange(1, ROUNDS + 1, dtype=np.uint64) * GOLDEN
LISTED = 1 << 24  # up to so many numbers a sample is drawn by numpy's permutation, as it always was


def mixed(x: np.ndarray) -> np.ndarray:
    """A bijection of 64-bit numbers in which every bit of the input changes half of the output's. x: uint64"""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def key_of(*parts: int | np.ndarray) -> np.ndarray:
    """A 64-bit key out of several whole numbers, or arrays of them that broadcast; any that differs gives another, unrelated one."""
    key = np.zeros(1, np.uint64)
    for part in parts:
        key = mixed(key * np.uint64(3) + np.asarray(part).astype(np.uint64) + GOLDEN)
    return key


def permuted(numbers: np.ndarray, size: int, key: np.ndarray) -> np.ndarray:
    """Where a keyed permutation of range(size) takes some numbers.

    numbers: uint64 [N], below size;  key: uint64 [N], or [1] for one permutation of all
    Returns uint64 [N].
    """
    a = math.isqrt(size - 1) + 1 if size > 1 else 1
    b = -(-size // a)
    a, b = np.uint64(a), np.uint64(b)
    result, key = numbers.copy(), np.broadcast_to(key, numbers.shape)
    walking = np.arange(len(numbers))  # those that are not inside yet
    while len(walking):
        high, low = np.divmod(result[walking], b)
        for turn in range(ROUNDS):
            salt = key[walking] + SALTS[turn]
            if turn % 2 == 0:
                high = (high + mixed(salt ^ mixed(low))) % a
            else:
                low = (low + mixed(salt ^ mixed(high))) % b
        result[walking] = high * b + low
        walking = walking[result[walking] >= size]
    return result


def sample(size: int, count: int, seed: int) -> np.ndarray:
    """`count` different numbers of range(size) by chance, sorted: int64 [count]."""
    if size <= LISTED:
        return np.sort(np.random.RandomState(seed).permutation(size)[:count])
    return np.sort(permuted(np.arange(count, dtype=np.uint64), size, key_of(seed, 0x5A)).astype(np.int64))


class TwoLevelOrder:
    """Which item comes at which position, endlessly.

    size:   images of the set
    block:  neighbouring images that are read together
    seed:   another seed gives another order
    mirror: items are the images and, from `size` on, the same flipped; each image comes once in a pass, in one of two in a row flipped
    """

    def __init__(self, size: int, block: int, seed: int = 0, mirror: bool = False):
        assert size > 0 and block > 0, (size, block)
        self.size, self.block, self.seed, self.mirror = size, block, seed, mirror

    def __call__(self, positions: np.ndarray) -> np.ndarray:
        """int64 [N]: the items at some positions (whole numbers from 0)."""
        passes, place = np.divmod(np.asarray(positions, np.uint64), np.uint64(self.size))
        window = LANES * self.block
        last = self.size // window * window  # what comes after full windows is permuted as one
        item, inside = np.empty_like(place), place < last
        item[inside] = self._of_full_windows(passes[inside], place[inside])
        rest = ~inside
        if rest.any():
            tail = permuted(place[rest] - np.uint64(last), self.size - last, key_of(self.seed, passes[rest], 3))
            item[rest] = self._of_blocks(passes[rest], np.uint64(last) + tail)
        if self.mirror:
            side = (key_of(self.seed, passes // np.uint64(2), 4, item) ^ passes) & np.uint64(1)
            item = item + side * np.uint64(self.size)
        return item.astype(np.int64)

    def _of_full_windows(self, passes: np.ndarray, place: np.ndarray) -> np.ndarray:
        """Images at places of full windows: lane after lane, each in the order of its block."""
        number, within = np.divmod(place, np.uint64(LANES * self.block))
        turn, lane = np.divmod(within, np.uint64(LANES))
        slot = number * np.uint64(LANES) + lane
        turn = permuted(turn, self.block, key_of(self.seed, passes, 2, slot))
        return self._of_blocks(passes, slot * np.uint64(self.block) + turn)

    def _of_blocks(self, passes: np.ndarray, place: np.ndarray) -> np.ndarray:
        """Images at places of a pass whose full blocks are permuted; the incomplete block at the end stays where it is."""
        blocks = self.size // self.block
        slot, within = np.divmod(place, np.uint64(self.block))
        full = slot < blocks
        slot[full] = permuted(slot[full], blocks, key_of(self.seed, passes[full], 1))
        return slot * np.uint64(self.block) + within


class OrderedSampler:
    """Endless items for one process, in an order.

    rank, world_size: process r of w takes the positions start + r, start + r + w, ...
    start: first position, for example the number of images that all processes together have seen
    """

    def __init__(self, order: TwoLevelOrder, rank: int = 0, world_size: int = 1, start: int = 0):
        assert start >= 0 and 0 <= rank < world_size, (start, rank, world_size)
        self.order, self.rank, self.world_size, self.start = order, rank, world_size, start

    def __iter__(self) -> Iterator[int]:
        first, step = self.start + self.rank, self.world_size
        while True:
            yield from self.order(np.arange(CHUNK, dtype=np.uint64) * np.uint64(step) + np.uint64(first)).tolist()
            first += CHUNK * step
