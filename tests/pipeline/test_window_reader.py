# SPDX-License-Identifier: Apache-2.0
"""The window reader: DALI's own, and its order without it."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import numpy as np
import pytest

import ops
from pipeline.augmentation import Augmentation
from pipeline.plans import Share, grouped
from pipeline.records import RecordSet, open_records
from pipeline.window_reader import AHEAD, Scan, window_groups, window_plans

SEED, BATCH = 3, 5


def made(offsets: np.ndarray) -> RecordSet:
    count = len(offsets)
    return RecordSet(
        files=(Path("a.rec"),),
        file=np.zeros(count, np.int16),
        keys=np.arange(1, count + 1),
        offsets=offsets,
        labels=np.zeros(count, np.int32),
        num_classes=1,
        image_size=(112, 112),
    )


@pytest.fixture(scope="module")
def feed():
    ops.use("native")
    found = ops.feed()
    ops.use("plain")
    return found


@pytest.fixture(scope="module")
def records(make_records, tmp_path_factory):
    """Return 203 images, with identity records between them."""
    return open_records(make_records(29, 7), tmp_path_factory.mktemp("scan"))


@pytest.mark.parametrize("window", [1, 2, 40, 1000])
@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize("together", [1, 4])
def test_the_order_is_that_of_dalis_reader(records, feed, tmp_path, window, size, together):
    steps = 2 * (len(records) // (BATCH * size))  # two epochs
    for rank in range(size):
        scan = Scan(records, SEED, Share(rank, size), window)
        groups = window_groups(scan, 4, BATCH, Augmentation(), tmp_path, together, 2)
        theirs = []
        while len(theirs) < steps:
            group = next(groups)
            theirs += group.plans
            group.release()
        ours = list(islice(window_plans(scan, 4, BATCH, Augmentation(), feed), steps))
        for one, other in zip(ours, theirs, strict=True):
            assert one.rows.tolist() == other.rows.tolist()
            assert (one.choices.mirror == other.choices.mirror).all()
            assert one.after == other.after


def test_the_order_of_a_file_that_is_not_the_sets(feed):
    offsets = np.random.default_rng(0).permutation(60) * 100
    scan = Scan(made(offsets), SEED, Share(1, 2), 1)
    plans = islice(window_plans(scan, 0, BATCH, Augmentation(), feed), 6)
    assert (offsets[np.concatenate([p.rows for p in plans])] == np.arange(30, 60) * 100).all()


@pytest.mark.parametrize("size", [1, 2])
@pytest.mark.parametrize("window", [1, 700, 20_000])
def test_records_are_asked_for_once_as_the_file_lies_and_before_they_are_due(feed, size, window):
    count, batch = 12_000, 100
    scan = Scan(made(np.arange(count) * 100), SEED, Share(0, size), window)
    asked: list[np.ndarray] = []
    plans = window_plans(scan, 0, batch, Augmentation(), feed)
    groups = grouped(plans, 1, lambda rows: None, scan.ahead(0, asked.append))
    shard = count // size
    per_epoch = shard // batch
    for number, group in enumerate(islice(groups, per_epoch), 1):
        every = np.concatenate(asked)
        of_this = every[every < shard] if size == 2 else every[:shard]
        assert set(group.rows) <= set(of_this)
        ahead = number * batch + window + AHEAD + 3 * batch
        assert len(of_this) <= min(ahead, shard)
        assert (of_this == np.arange(len(of_this))).all()
    next(groups)
    beyond = np.concatenate(asked)[shard:]  # the next epoch's shard, from its start
    assert len(beyond) and (beyond == np.arange(len(beyond)) + (shard if size == 2 else 0)).all()


@pytest.mark.parametrize("arguments", [(5, 6, 1, 0), (5, 5, 0, 0), (5, -1, 1, 0)])
def test_orders_that_cannot_be(feed, arguments):
    with pytest.raises(ValueError, match=r"^feed\.window_order: got "):
        feed.window_order(*arguments)


@pytest.mark.parametrize("shuffled", [False, True])
def test_window_reader_finds_the_rows_of_its_offsets_in_one_index_for_all(
    tmp_path, monkeypatch, shuffled
):
    random, indices = np.random.default_rng(0), []
    offsets = np.arange(40) * 100
    records = made(random.permutation(offsets) if shuffled else offsets)

    class Reader:
        def __init__(self, rec, index, batch_size, shard_id, num_shards, window, **options):
            indices.append(index)
            self._shard = offsets.reshape(num_shards, -1)[shard_id]

        def take(self):
            taken, self._shard = self._shard[:5], self._shard[5:]
            return None, taken

        def release(self):
            pass

    monkeypatch.setattr("pipeline.dali.WindowReader", Reader)
    seen = []
    for rank in range(2):
        scan = Scan(records, SEED, Share(rank, 2), 1)
        groups = window_groups(scan, 0, 5, Augmentation(), tmp_path / "index", 1, 2)
        seen += [group.plans[0].rows for group in islice(groups, 4)]
    assert (records.offsets[np.concatenate(seen)] == offsets).all()
    (index,) = set(indices)
    lines = [f"{k}\t{o}" for k, o in zip(records.keys, records.offsets)]
    assert index.read_text().splitlines() == lines
