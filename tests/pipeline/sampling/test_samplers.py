# SPDX-License-Identifier: Apache-2.0
"""Samplers: rows from any position on, and rows to read ahead, each once and early enough."""

from __future__ import annotations

import dataclasses
from itertools import islice

import numpy as np
import pytest

import ops
from pipeline.records import open_records
from pipeline.sampling.batches import Share
from pipeline.sampling.epoch_orders import Position, block_order, epoch_order, rank_rows
from pipeline.sampling.samplers import (
    MAX_GAP_BYTES,
    NORMAL_RECORD_BYTES,
    READ_AHEAD_IMAGES,
    BlockSampler,
    PersonSampler,
    RandomSampler,
    WindowSampler,
    make_sampler,
)
from tests.pipeline.sampling.sets import made_set, people_set, sparse_set

COUNT, BLOCK, WINDOW, BATCH, SEED = 500, 16, 64, 10, 3


def random_sampler(records, batch_size=BATCH, **options):
    return RandomSampler(records, batch_size, seed=SEED, **options)


def block_sampler(records, batch_size=BATCH, **options):
    return BlockSampler(records, batch_size, block=BLOCK, window=WINDOW, seed=SEED, **options)


@pytest.fixture(scope="module")
def kernels():
    ops.use("native")
    found = ops.loader_kernels()
    ops.use("plain")
    return found


def read(sampler, position, steps):
    """Return [(rows of a batch, position after it, all rows read ahead so far)]."""
    start = sampler.start(position)
    upcoming, asked, found = sampler.upcoming(start), [], []
    for rows, after in islice(sampler.batches(start), steps):
        asked.append(upcoming(rows, after))
        found.append((rows, after, np.concatenate(asked)))
    return found


@pytest.mark.parametrize("make", [random_sampler, block_sampler])
@pytest.mark.parametrize("size", [1, 3])
def test_batches_are_slices_of_the_order_of_their_epoch(make, size):
    records = made_set(np.arange(COUNT) * 100)
    per_epoch = COUNT // (BATCH * size)
    for rank in range(size):
        sampler = make(records, share=Share(rank, size))
        assert (sampler.batch_size, sampler.images_per_epoch) == (BATCH, COUNT)
        found = read(sampler, Position(1, 0), per_epoch + 2)
        for step, (rows, after, _) in enumerate(found):
            epoch, step = 1 + step // per_epoch, step % per_epoch
            order = (
                epoch_order(COUNT, SEED, epoch)
                if make is random_sampler
                else block_order(COUNT, SEED, epoch, BLOCK, WINDOW)
            )
            assert rows.dtype == np.int64
            expected = rank_rows(order, step * BATCH * size, BATCH, rank, size)
            assert (rows == expected).all()
            assert after == Position(epoch, (step + 1) * BATCH * size)


@pytest.mark.parametrize("make", [random_sampler, block_sampler])
def test_a_run_resumes_at_any_position_and_skips_the_tail(make):
    sampler = make(made_set(np.arange(COUNT) * 100), 60)
    whole = read(sampler, Position(), 12)
    assert sampler.start(Position(0, 480)) == Position(1, 0)
    for skipped in (3, 8, 11):
        tail = read(sampler, whole[skipped - 1][1], 12 - skipped)
        for one, other in zip(tail, whole[skipped:], strict=True):
            assert (one[0] == other[0]).all() and one[1] == other[1]


def test_random_access_reads_ahead_the_rows_of_the_batches():
    for rows, _, asked in read(random_sampler(made_set(np.arange(COUNT))), Position(), 3):
        assert (asked[-BATCH:] == rows).all()


@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize("position", [Position(), Position(2, 250), Position(0, 495)])
def test_blocks_are_read_ahead_once_and_before_their_images(position, size):
    sampler = block_sampler(made_set(np.arange(COUNT) * 100), share=Share(0, size))
    per_epoch = COUNT // (BATCH * size)
    batches = read(sampler, position, 3 * per_epoch)
    for rows, _, asked in batches:
        assert set(rows) <= set(asked)
    every = batches[-1][2]
    if position == Position():
        assert (np.bincount(every[:COUNT], minlength=COUNT) == 1).all()
        assert (np.bincount(every[COUNT : 2 * COUNT], minlength=COUNT) == 1).all()
    # Read-ahead is at most two windows early.
    behind = position.consumed // WINDOW * WINDOW if position != Position(0, 495) else 0
    for number, (_, _, asked) in enumerate(batches[: per_epoch // 2], 1):
        due = (position.consumed - behind if behind else 0) + number * BATCH * size
        assert len(asked) <= due + WINDOW + 2 * BATCH * size + BLOCK


def test_blocks_are_contiguous_in_the_file():
    random = np.random.default_rng(0)
    file = (np.arange(COUNT) >= 300).astype(np.int16)
    offsets = random.permutation(COUNT) * 100
    asked = read(block_sampler(made_set(offsets, file)), Position(), 1)[-1][2]
    places = np.lexsort((offsets, file)).argsort()[asked]  # in file order
    assert (np.diff(places) == 1).mean() > 0.9


def batches_of_people(records, position, steps, batch_size=4, size=1):
    """Return (rows of each rank, position after) for each step; groups have two images."""
    ranks = []
    for rank in range(size):
        sampler = PersonSampler(
            records, batch_size, images_per_person=2, seed=SEED, share=Share(rank, size)
        )
        assert sampler.images_per_epoch == 60
        ranks.append(read(sampler, position, steps))
    return [
        (np.stack([rows for rows, _, _ in step]), step[0][1]) for step in zip(*ranks, strict=True)
    ]


def test_ranks_get_complete_groups_and_an_epoch_has_every_person_once():
    records = people_set()
    epoch = batches_of_people(records, Position(), 5, size=3)
    for rows, _ in epoch:
        whose = records.labels[rows].reshape(3, 2, 2)
        assert (whose[..., 0] == whose[..., 1]).all()
    after = epoch[-1][1]
    assert after == Position(0, 60)
    people = np.concatenate([records.labels[rows].reshape(-1) for rows, _ in epoch])
    assert sorted(people) == sorted([*set(records.labels.tolist())] * 2)
    (rows, after), *_ = batches_of_people(records, after, 1, size=3)
    assert after == Position(1, 12)
    # One rank gives the same order; 60 images are seven steps of 8 and a dropped tail.
    one = batches_of_people(records, Position(), 8, batch_size=8)
    assert [after for _, after in one[-2:]] == [Position(0, 56), Position(1, 8)]
    flat = [np.concatenate([r.reshape(-1) for r, _ in steps])[:56] for steps in (epoch, one)]
    assert (flat[0] == flat[1]).all()


@pytest.mark.parametrize("size", [1, 2, 3])
def test_groups_resume_with_any_number_of_ranks(size):
    records = people_set()
    first = batches_of_people(records, Position(2, 0), 2, batch_size=6, size=2)
    after = first[-1][1]
    assert after == Position(2, 24)
    rest = batches_of_people(records, after, 36 // (6 * size) + 1, batch_size=6, size=size)
    used = np.concatenate([r.reshape(-1) for r, _ in [*first, *rest[:-1]]])
    people = np.bincount(records.labels[used], minlength=33)
    assert set(people.tolist()) == {0, 2} and people.sum() == 60
    assert rest[-1][1] == Position(3, 6 * size)


def window_sampler(records, window, batch_size=5, size=1, rank=0, **options):
    share = Share(rank, size)
    return WindowSampler(records, batch_size, window=window, seed=SEED, share=share, **options)


def test_the_window_follows_the_file_order():
    offsets = np.random.default_rng(0).permutation(60) * 100
    sampler = window_sampler(made_set(offsets), 1, size=2, rank=1)
    rows = np.concatenate([rows for rows, _, _ in read(sampler, Position(), 6)])
    assert (offsets[rows] == np.arange(30, 60) * 100).all()


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("window", [1, 40, 1000])
def test_shards_of_an_epoch_are_read_once_and_rotate_over_the_ranks(kernels, size, window):
    records = made_set(np.arange(130) * 100)
    steps = 130 // (4 * size)
    for epoch in (0, 1):
        rows = []
        for rank in range(size):
            options = {"batch_size": 4, "size": size, "rank": rank}
            sampler = window_sampler(records, window, **options)
            found = read(sampler, Position(epoch, 0), steps + 1)
            assert [after for _, after, _ in found[:-1]] == [
                Position(epoch, (step + 1) * 4 * size) for step in range(steps)
            ]
            assert found[-1][1] == Position(epoch + 1, 4 * size)
            places = np.concatenate([rows for rows, _, _ in found[:-1]])
            assert sampler.shard(epoch) == (rank + epoch) % size
            assert set(places) <= set(sampler.places(epoch))
            assert window > 1 or (np.diff(places) == 1).all()
            rows += places.tolist()
            compiled = window_sampler(records, window, **options, order_of=kernels.window_order)
            assert (compiled.order(epoch) == sampler.order(epoch)).all()
        assert len(set(rows)) == len(rows)


def test_the_window_reader_starts_at_the_beginning_of_an_epoch():
    sampler = window_sampler(made_set(np.arange(130) * 100), 40, batch_size=4)
    assert sampler.start(Position(2, 60)) == sampler.start(Position(2, 0)) == Position(2, 0)
    assert sampler.start(Position(2, 128)) == Position(3, 0)  # the remaining 2 images fill no batch


@pytest.mark.parametrize("size", [1, 2])
@pytest.mark.parametrize("window", [1, 700, 20_000])
def test_windows_are_read_ahead_once_in_file_order_and_early_enough(kernels, size, window):
    count, batch = 12_000, 100
    sampler = window_sampler(
        made_set(np.arange(count) * 100), window, batch, size, order_of=kernels.window_order
    )
    shard = count // size
    per_epoch = shard // batch
    batches = read(sampler, Position(), per_epoch + 1)
    for number, (rows, _, every) in enumerate(batches[:per_epoch], 1):
        assert set(rows) <= set(every)
        assert len(every) <= min(number * batch + window + READ_AHEAD_IMAGES + batch, shard)
        assert (every == np.arange(len(every))).all()
    beyond = batches[-1][2][shard:]  # the start of the next epoch's shard
    assert len(beyond) and (beyond == np.arange(len(beyond)) + (shard if size == 2 else 0)).all()


GAP = MAX_GAP_BYTES + NORMAL_RECORD_BYTES


@pytest.fixture
def sparse(make_records, tmp_path):
    """Return ``sparse(*gaps)`` -> a set of 60 images, with gaps in bytes after the first ones."""
    folder = make_records(6, 10, header=False)
    return lambda *gaps: sparse_set(folder, tmp_path, gaps)


def has_gaps(records, window=100):
    return window_sampler(records, window).has_gaps()


def test_gaps_that_need_too_much_memory_are_found(make_records, sparse, tmp_path):
    assert not has_gaps(open_records(make_records(29, 7), tmp_path / "other"))
    few = sparse(GAP // 3, 0, GAP // 3, GAP // 2, 0)
    assert has_gaps(few)
    assert not has_gaps(few, window=1)
    assert not has_gaps(few, window=2)  # the largest two are below the limit
    with few.files[0].open("ab") as file:  # after the last record
        file.truncate(file.tell() + GAP)
    assert has_gaps(few, window=1)


def test_records_left_out_at_the_start_are_no_gap(sparse):
    records = sparse(GAP)
    assert has_gaps(records, 10)
    rows = np.arange(1, len(records))
    columns = ("file", "keys", "offsets", "labels")
    left = dataclasses.replace(records, **{name: getattr(records, name)[rows] for name in columns})
    assert not has_gaps(left, 10)


def test_every_reader_has_its_sampler():
    options = {"seed": SEED, "share": Share(), "block": 8, "window": 40}
    records = people_set()
    for reader, each, kind in (
        ("random", 0, RandomSampler),
        ("random", 2, PersonSampler),
        ("blocks", 0, BlockSampler),
        ("window", 0, WindowSampler),
    ):
        assert type(make_sampler(reader, records, 4, images_per_person=each, **options)) is kind
    with pytest.raises(ValueError, match=r"^data\.reader: must be one of random, .*, got 'disk'$"):
        make_sampler("disk", records, 4, images_per_person=0, **options)
    two = made_set(np.arange(9), np.zeros(9, np.int16))
    with pytest.raises(ValueError) as refused:
        make_sampler("window", two, 4, images_per_person=0, **options)
    assert str(refused.value) == (
        "data.reader: 'window' reads one record set, got 2; merge them with "
        "`python -m tools.data shuffle`, or use data.reader=random"
    )


@pytest.mark.parametrize("reader", ["blocks", "window"])
def test_a_block_or_window_beyond_the_set_costs_no_memory(make_records, tmp_path, reader):
    records = open_records(make_records(2, 6), tmp_path)
    options = {"images_per_person": 0, "seed": 1}
    orders = []
    for size in (2**31 - 1, 16_384, 12):
        sampler = make_sampler(reader, records, 4, block=size, window=size, **options)
        upcoming, batches = sampler.upcoming(Position(0, 0)), sampler.batches(Position(0, 0))
        rows, after = next(batches)
        orders.append(rows.tolist())
        assert len(upcoming(rows, after)) <= 3 * 12
    assert orders[0] == orders[1] == orders[2]
