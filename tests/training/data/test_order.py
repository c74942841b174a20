"""The keyed order of sets in shards: a permutation in each pass, the same for any number of processes, computed from the position."""

import itertools

import numpy as np
import pytest

from training.data.order import CHUNK, LANES, LISTED, OrderedSampler, TwoLevelOrder, key_of, mixed, permuted, sample


def test_the_hash_is_splitmix64():
    """The first outputs of the published generator with seed 0 and 1234567."""
    golden = 0x9E3779B97F4A7C15
    assert [int(x) for x in mixed(np.array([golden, 2 * golden & (1 << 64) - 1], np.uint64))] == [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4]
    assert int(mixed(np.array([1234567 + golden & (1 << 64) - 1], np.uint64))[0]) == 6457827717110365317


@pytest.mark.parametrize('size', [1, 2, 3, 5, 7, 10, 64, 997, 4096, 30_011])
def test_permuted_is_a_permutation_that_the_key_changes(size):
    numbers = np.arange(size, dtype=np.uint64)
    of_keys = [permuted(numbers, size, key_of(seed)) for seed in (1, 2, 2)]
    assert all((np.sort(each) == numbers).all() for each in of_keys) and (of_keys[1] == of_keys[2]).all()
    if size > 60:
        assert (of_keys[0] != of_keys[1]).mean() > 0.9 and (of_keys[0] != numbers).mean() > 0.9


@pytest.mark.parametrize('size', [3, 10, 37])
def test_every_place_is_as_likely(size):
    keys, count = key_of(7, np.arange(20_000)), 20_000
    for number in (0, size - 1):
        seen = np.bincount(permuted(np.full(count, number, np.uint64), size, keys).astype(int), minlength=size)
        chi2 = ((seen - count / size) ** 2).sum() / (count / size)
        assert chi2 < size - 1 + 5 * np.sqrt(2 * size)  # five deviations


@pytest.mark.parametrize('size, block, mirror', [
    (1, 1, False), (2, 5, True), (3 * LANES, 1, False), (1000, 7, True), (2 * LANES * 5 + 13, 5, True), (20_000, 100, False)])
def test_each_pass_has_every_item_once(size, block, mirror):
    order, items = TwoLevelOrder(size, block, 3, mirror), size * (2 if mirror else 1)
    found = order(np.arange(3 * items)).reshape(3, items)
    assert (np.sort(found, axis=1) == np.arange(items)).all()
    if mirror:
        assert (np.sort(found[0][:size] % size) == np.arange(size)).all()  # a pass has each image, in one of its two forms
        assert size < 100 or 0.3 < (found[0][:size] >= size).mean() < 0.7
    if size > 100:
        assert (found[0] != found[1]).mean() > 0.9 and (found[0] != TwoLevelOrder(size, block, 4, mirror)(np.arange(items))).mean() > 0.9


def test_a_window_reads_few_blocks_and_a_batch_many():
    order = TwoLevelOrder(10**9, 200, 5)
    start = -(10**12 % 10**9) % (LANES * 200)  # the first full window from there
    blocks = order(np.arange(LANES * 200) + 10**12 + start) // 200
    assert len(np.unique(blocks)) == LANES and len(np.unique(blocks[:LANES])) == LANES
    for lane in range(0, LANES, 7):  # so process r of P reads blocks of its own where P divides LANES
        assert len(np.unique(blocks[lane::LANES])) == 1
    assert np.ptp(blocks) > 10**6  # from all over the set


def test_the_order_is_pinned():
    """A run resumed with a later version goes on in the same order."""
    assert TwoLevelOrder(10, 3, 3)(np.arange(10)).tolist() == [2, 8, 0, 1, 6, 3, 5, 4, 9, 7]
    assert TwoLevelOrder(10**9, 209, 3, mirror=True)(np.array([0, 1, 123456789012])).tolist() == [1390860910, 865719733, 428680071]
    assert TwoLevelOrder(5 * LANES, 2, 1)(np.arange(4)).tolist() == [252, 13, 290, 284]


def take(sampler, count):
    return list(itertools.islice(sampler, count))


def test_processes_share_one_sequence_and_begin_anywhere():
    order = TwoLevelOrder(700, 3, 1, mirror=True)
    whole = take(OrderedSampler(order), 5000)
    assert whole[:3] == order(np.arange(3)).tolist() and len(whole) > 4 * CHUNK
    for start in (0, 699, 2345):
        for world in (1, 2, 3, 4):
            for rank in range(world):
                expected = whole[start + rank:start + 1200:world]
                assert take(OrderedSampler(order, rank, world, start), 1200 // world) == expected


def test_samples_are_different_numbers():
    np.testing.assert_array_equal(sample(12, 4, 3), np.sort(np.random.RandomState(3).permutation(12)[:4]))  # what runs before had
    large = sample(LISTED + 1, 1000, 3)
    assert len(np.unique(large)) == 1000 and large.max() <= LISTED and (np.diff(large) > 0).all() and 0.4 < large.mean() / LISTED < 0.6
