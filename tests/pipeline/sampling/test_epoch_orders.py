# SPDX-License-Identifier: Apache-2.0
"""Orders of epochs: no image is lost or repeated, for any number of ranks."""

from __future__ import annotations

import tracemalloc
import zlib

import numpy as np
import pytest

from pipeline.sampling import epoch_orders
from pipeline.sampling.epoch_orders import (
    Position,
    block_order,
    epoch_order,
    people_order,
    rank_rows,
    shuffled_blocks,
    skip_tail,
    uniform,
)


def read(position: Position, num_images: int, batch_size: int, size: int, steps: int, seed=1):
    """Return (epoch, row) of the images that ``size`` ranks read, and the position after them."""
    seen, whole = [], batch_size * size
    for _ in range(steps):
        position = skip_tail(position, num_images, whole)
        order = epoch_order(num_images, seed, position.epoch)
        for rank in range(size):
            rows = rank_rows(order, position.consumed, batch_size, rank, size)
            assert len(rows) == batch_size
            seen += [(position.epoch, int(row)) for row in rows]
        position = Position(position.epoch, position.consumed + whole)
    return seen, position


def test_order_is_a_permutation_of_seed_and_epoch():
    order = epoch_order(1000, seed=3, epoch=2)
    assert sorted(order) == list(range(1000))
    assert (order == epoch_order(1000, seed=3, epoch=2)).all()
    assert not (order == np.arange(1000)).all()
    for seed, epoch in ((3, 3), (4, 2), (2, 3)):
        assert (order == epoch_order(1000, seed, epoch)).mean() < 0.05


def test_order_never_changes_between_versions(monkeypatch):
    # Checkpoints hold positions in this order: after a change, a resumed run would repeat images.
    assert epoch_order(8, seed=1, epoch=0).tolist() == ORDER_OF_8
    assert block_order(8, seed=1, epoch=0, block=2, window=4).tolist() == BLOCKS_OF_8
    monkeypatch.setattr(epoch_orders, "CELL_IMAGES", 4)
    assert epoch_order(8, seed=1, epoch=0).tolist() == CELLS_OF_8
    monkeypatch.setattr(epoch_orders, "CELL_IMAGES", 64)  # 469 cells need uint16
    assert sum_of(epoch_order(30_000, seed=2, epoch=3)) == SUM_OF_MANY_CELLS


@pytest.mark.parametrize("num_images", [65_536, 300_000, 5_822_653])
def test_large_orders_never_change_between_versions(num_images):
    orders = (epoch_order(num_images, 1, 0), epoch_order(num_images, 7, 2))
    blocks = block_order(num_images, 1, 2, 128, 16384)
    assert [sum_of(order) for order in (*orders, blocks)] == SUMS[num_images]


@pytest.mark.parametrize(("chunk", "cells"), [(7, 5), (64, 300), (1000, 2), (4096, 300)])
def test_dealing_is_a_stable_argsort(monkeypatch, chunk, cells):
    monkeypatch.setattr(epoch_orders, "CHUNK_IMAGES", chunk)
    cell = np.random.default_rng(chunk).integers(0, cells, 1000, dtype=np.uint16)
    order = np.empty(1000, np.int32)
    ends = epoch_orders._deal(cell, cells, order)
    assert (order == np.argsort(cell, kind="stable")).all()
    assert (ends == np.cumsum(np.bincount(cell, minlength=cells))).all()


@pytest.mark.parametrize(
    "order_of", [epoch_order, lambda *which: block_order(*which, block=128, window=16384)]
)
def test_making_an_order_needs_little_memory(order_of):
    # In a run malloc keeps freed memory, so the peak matters.
    count = 2_000_000
    tracemalloc.start()
    order = order_of(count, 1, 0)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert order.dtype == np.int32 and order.nbytes == 4 * count
    assert peak < order.nbytes + count + 8 * 2**20  # plus one byte per image for its cell


@pytest.mark.parametrize("num_images", [65_535, 65_536, 300_000])
def test_large_sets_are_shuffled_completely(num_images):
    order = epoch_order(num_images, seed=3, epoch=2)
    assert order.shape == (num_images,) and (np.bincount(order) == 1).all()
    again = epoch_order(num_images, 3, 2)
    assert (order == again).all() and order is not again
    # Each seventh of the order is spread over the whole set: chi-squared, 99 degrees of freedom.
    for part in np.array_split(order, 7):
        expected = len(part) / 100
        counts = np.bincount(part * 100 // num_images, minlength=100)
        assert ((counts - expected) ** 2 / expected).sum() < 190
    assert abs(np.corrcoef(order[1:], order[:-1])[0, 1]) < 0.02


def test_dealing_into_cells_gives_every_permutation_equally_often(monkeypatch):
    monkeypatch.setattr(epoch_orders, "CELL_IMAGES", 2)
    orders = [tuple(epoch_order(4, seed, 0).tolist()) for seed in range(4800)]
    counts = np.array([orders.count(order) for order in set(orders)])
    assert len(counts) == 24
    assert ((counts - 200) ** 2 / 200).sum() < 58  # chi-squared, 23 degrees: mean 23


@pytest.mark.parametrize(("num_images", "block", "window"), [(1000, 8, 100), (1003, 10, 64)])
def test_blocks_are_shuffled_within_the_window_alone(num_images, block, window):
    order = block_order(num_images, 3, 2, block, window)
    assert sorted(order) == list(range(num_images))
    assert (order == block_order(num_images, 3, 2, block, window)).all()
    firsts, sizes = shuffled_blocks(num_images, 3, 2, block)
    scan = np.concatenate([np.arange(f, f + s) for f, s in zip(firsts, sizes)])
    for begin in range(0, num_images, window):
        part = slice(begin, begin + window)
        assert set(order[part]) == set(scan[part])
        assert (order[part] != scan[part]).mean() > 0.9
    assert (np.diff(firsts) != block).mean() > 0.9
    assert (order == block_order(num_images, 3, 3, block, window)).mean() < 0.05


def test_a_window_of_the_whole_set_removes_all_traces_of_blocks():
    places = [block_order(64, seed, 0, 16, 64).tolist().index(1) for seed in range(1, 3000)]
    after_its_neighbour = [
        block_order(64, seed, 0, 16, 64).tolist().index(2) - place
        for seed, place in zip(range(1, 3000), places)
    ]
    assert abs(np.mean(np.array(after_its_neighbour) == 1) - 1 / 64) < 0.01


COUNTS = np.array([1, 2, 3, 4, 5, 6, 7, 8, 12, 40, 3, 4])  # images of each person


@pytest.mark.parametrize("each", [2, 3, 4, 5])
def test_groups_have_every_person_once_and_use_images_evenly(each):
    person = np.repeat(np.arange(len(COUNTS)), COUNTS)
    used = np.zeros(len(person), int)
    orders = set()
    for epoch in range(60):
        groups = people_order(COUNTS, 3, epoch, each).reshape(-1, each)
        assert (groups.reshape(-1) == people_order(COUNTS, 3, epoch, each)).all()
        whose = person[groups]
        assert (whose == whose[:, :1]).all()
        assert sorted(whose[:, 0]) == list(range(len(COUNTS)))
        orders.add(tuple(whose[:, 0]))
        different = [len(set(group)) for group in groups]
        assert different == np.minimum(COUNTS[whose[:, 0]], each).tolist()
        np.add.at(used, groups.reshape(-1), 1)
        for p in range(len(COUNTS)):
            assert np.ptp(used[person == p]) <= 1
    assert len(orders) == 60 and used[person == 9].min() == 60 * each // 40
    assert (people_order(COUNTS, 3, 0, each) != people_order(COUNTS, 4, 0, each)).any()


def test_any_two_images_of_a_person_share_a_group_at_some_time():
    # Without the repeated shuffles, an image would share groups with its neighbours alone.
    counts = np.array([8])
    met = {
        frozenset((int(a), int(b)))
        for epoch in range(200)
        for group in [people_order(counts, 1, epoch, 4)]
        for a in group
        for b in group
        if a < b
    }
    assert len(met) == 8 * 7 // 2


def test_groups_never_change_between_versions():
    # Checkpoints hold positions in this order.
    counts = np.array([3, 1, 4])
    assert people_order(counts, 1, 0, 2).tolist() == PEOPLE_OF_3
    assert people_order(counts, 1, 5, 2).tolist() == PEOPLE_OF_3_LATER


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("num_images", [48, 50, 53])
def test_an_epoch_covers_each_image_once_up_to_the_tail(num_images, size):
    batch_size = 4
    whole = batch_size * size
    seen, position = read(Position(), num_images, batch_size, size, num_images // whole)
    assert {epoch for epoch, _ in seen} == {0}
    rows = [row for _, row in seen]
    assert len(set(rows)) == len(rows) == num_images - num_images % whole
    assert skip_tail(position, num_images, whole) == (Position(1, 0))


def test_all_rank_counts_read_the_same_global_batches():
    for steps in (1, 5):
        one, _ = read(Position(), 100, 12, 1, steps)
        assert one == read(Position(), 100, 6, 2, steps)[0] == read(Position(), 100, 4, 3, steps)[0]


@pytest.mark.parametrize("ranks", [(1, 2), (2, 1), (3, 2), (2, 3)])
def test_another_number_of_ranks_loses_and_repeats_no_image(ranks):
    before, after = ranks
    num_images, batch_size = 96, 4
    first, position = read(Position(), num_images, batch_size, before, 3)
    left = (num_images - position.consumed) // (batch_size * after)
    second, position = read(position, num_images, batch_size, after, left)
    seen = first + second
    assert len(set(seen)) == len(seen)
    assert {epoch for epoch, _ in seen} == {0}
    assert num_images - len(seen) < batch_size * after
    assert skip_tail(position, num_images, batch_size * after).epoch == 1


def test_the_tail_of_an_epoch_is_skipped():
    assert skip_tail(Position(2, 90), 100, 10) == Position(2, 90)
    assert skip_tail(Position(2, 91), 100, 10) == Position(3, 0)
    assert skip_tail(Position(2, 100), 100, 10) == Position(3, 0)


def test_random_numbers_depend_on_seed_epoch_id_and_stream_alone():
    ids = np.arange(1, 20001, dtype=np.int64)
    numbers = uniform(ids, 5, 7, 2)
    assert numbers.dtype == np.float64 and numbers.shape == ids.shape
    assert (numbers == uniform(ids, 5, 7, 2)).all()
    shuffled = np.random.default_rng(0).permutation(len(ids))
    assert (uniform(ids[shuffled], 5, 7, 2) == numbers[shuffled]).all()
    assert [uniform(ids[i : i + 1], 5, 7, 2)[0] for i in range(50)] == numbers[:50].tolist()


@pytest.mark.parametrize(("seed", "epoch"), [(0, 0), (1, 0), (1, 1), (2**31 - 1, 300)])
@pytest.mark.parametrize("stream", [0, 3])
def test_random_numbers_are_uniform_and_uncorrelated(seed, epoch, stream):
    ids = np.arange(20000, dtype=np.int64)
    numbers = uniform(ids, seed, epoch, stream)
    assert 0 <= numbers.min() and numbers.max() < 1
    counts = np.bincount((numbers * 20).astype(int), minlength=20)
    assert ((counts - 1000) ** 2 / 1000).sum() < 60  # chi-squared, 19 degrees: mean 19
    second_file = ids + (1 << 40)
    for other in (
        np.roll(numbers, 1),
        uniform(ids, seed, epoch + 1, stream),
        uniform(ids, seed + 1, epoch, stream),
        uniform(ids, seed, epoch, stream + 1),
        uniform(second_file, seed, epoch, stream),
    ):
        assert abs(np.corrcoef(numbers, other)[0, 1]) < 0.04  # more than five standard deviations


def test_random_numbers_never_change_between_versions():
    flags = uniform(np.arange(1, 33, dtype=np.int64), 1, 0, 0) >= 0.5
    assert "".join("01"[int(flag)] for flag in flags) == MIRROR_OF_32


def sum_of(order: np.ndarray) -> int:
    return zlib.crc32(order.astype(np.int32))


# Results of the first version.
BLOCKS_OF_8 = [1, 2, 0, 3, 4, 5, 6, 7]
CELLS_OF_8 = [7, 5, 1, 2, 3, 4, 0, 6]
ORDER_OF_8 = [0, 5, 4, 1, 2, 6, 3, 7]
MIRROR_OF_32 = "10001100000100000000100111000110"
PEOPLE_OF_3 = [0, 1, 3, 3, 7, 6]
PEOPLE_OF_3_LATER = [3, 3, 5, 7, 0, 2]
SUM_OF_MANY_CELLS = 3783246326
# Checksums of the orders of (seed, epoch) = (1, 0) and (7, 2), and of a block order.
SUMS = {
    65_536: [2532887283, 1875562571, 2472793141],
    300_000: [506405697, 1403566225, 1009169048],
    5_822_653: [827238153, 771882719, 2252919589],
}
