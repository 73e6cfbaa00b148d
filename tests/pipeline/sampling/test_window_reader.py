# SPDX-License-Identifier: Apache-2.0
"""What the window reader reads, without DALI's reader; test_dali_reader.py has that."""

from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
import sys
from itertools import islice, pairwise
from pathlib import Path

import numpy as np
import pytest

import ops
from pipeline import build_loader
from pipeline.records.open import RecordSet, open_records
from pipeline.sampling.augmentation import Augmentation
from pipeline.sampling.batches import Share, grouped
from pipeline.sampling.window_order import window_order
from pipeline.sampling.window_reader import (
    AHEAD,
    MOST_GAP_BYTES,
    SOUND_RECORD_BYTES,
    Scan,
    window_plans,
)

ROOT = Path(__file__).resolve().parents[3]
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
    found = ops.loader_kernels()
    ops.use("plain")
    return found


@pytest.fixture(scope="module")
def records(make_records, tmp_path_factory):
    """Return 203 images, with identity records between them."""
    return open_records(make_records(29, 7), tmp_path_factory.mktemp("scan"))


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


@pytest.mark.parametrize("seed", [0, 1, 3, 3_000_009, 2**31 - 1])
@pytest.mark.parametrize("window", [1, 2, 40, 100_000])
def test_the_order_without_the_compiled_functions(feed, window, seed):
    for count, taken in ((0, 0), (1, 1), (3000, 3000), (3000, 2001)):
        found = window_order(count, taken, window, seed)
        assert found.dtype == np.int32
        assert (found == feed.window_order(count, taken, window, seed)).all()


GAP = MOST_GAP_BYTES + SOUND_RECORD_BYTES


@pytest.fixture
def sparse(make_records, tmp_path):
    """Return ``sparse(*gaps)`` -> a set of 60 images with so many bytes behind the first ones."""

    def make(*gaps: int) -> RecordSet:
        folder = shutil.copytree(make_records(6, 10, header=False), tmp_path / "sparse")
        rec = folder / "train.rec"
        text = (folder / "train.idx").read_text().splitlines()
        begins = [int(line.split()[1]) for line in text]
        data, lines = rec.read_bytes(), []
        with rec.open("wb") as file:
            for key, (begin, end) in enumerate(pairwise([*begins, len(data)])):
                lines.append(f"{key}\t{file.tell()}\n")
                file.write(data[begin:end])
                if key < len(gaps):
                    file.seek(gaps[key], os.SEEK_CUR)  # a hole, which takes no disk
            file.truncate()
        (folder / "train.idx").write_text("".join(lines))
        return open_records(folder, tmp_path / "scan")

    return make


def test_gaps_that_dalis_reader_would_take_into_memory(sparse, records):
    def has_gaps(found, window=100):
        return Scan(found, SEED, Share(), window).has_gaps()

    assert not has_gaps(records)  # identity records behind the last image
    few = sparse(GAP // 3, 0, GAP // 3, GAP // 2, 0)
    assert has_gaps(few)
    assert not has_gaps(few, window=1)
    assert not has_gaps(few, window=2)  # those two are below the bound
    with few.files[0].open("ab") as file:  # behind the last one
        file.truncate(file.tell() + GAP)
    assert has_gaps(few, window=1)


def test_records_left_out_in_front_are_no_gap(sparse):
    records = sparse(GAP)
    assert Scan(records, SEED, Share(), 10).has_gaps()
    rows = np.arange(1, len(records))
    columns = ("file", "keys", "offsets", "labels")
    left = dataclasses.replace(records, **{name: getattr(records, name)[rows] for name in columns})
    assert not Scan(left, SEED, Share(), 10).has_gaps()


@pytest.mark.parametrize("operators", ["plain", "native"])
def test_a_set_with_gaps_is_read_in_the_same_order_without_dalis_reader(
    sparse, tmp_path, monkeypatch, operators
):
    def batches(records):
        options = {"seed": SEED, "decode": "cpu", "reader": "window", "window": 20}
        loader = build_loader("dali", records, 7, **options, index_folder=tmp_path / "index")
        try:
            return [(b.image.asnumpy(), b.label.asnumpy()) for b in islice(loader, 20)]
        finally:
            loader.close()

    records = sparse(0, 0, 2 * GAP)
    ops.use(operators)
    by_dali = []
    monkeypatch.setattr(Scan, "has_gaps", lambda _: by_dali.append(True))
    expected = batches(records)
    monkeypatch.undo()
    assert by_dali
    monkeypatch.setattr("pipeline.decode.dali_reader.read_pipeline", None)
    for one, other in zip(batches(records), expected, strict=True):
        assert (one[0] == other[0]).all() and (one[1] == other[1]).all()
    ops.use("plain")


READ = """
import resource, sys
from itertools import islice
from pipeline import build_loader
from pipeline.records import open_records

def peak_mib():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10

records = open_records(*sys.argv[1:])
options = {"decode": "cpu", "reader": "window", "index_folder": sys.argv[2]}
loader = build_loader("dali", records, 4, window=8, **options)  # loads what there is to load
next(loader)
loader.close()
before = peak_mib()
loader = build_loader("dali", records, 4, window=1 << 20, **options)  # where DALI copies
for batch in islice(loader, 40):
    assert batch.image.asnumpy().std() > 0.1
loader.close()
print(peak_mib() - before)
"""


def test_gaps_take_no_memory(sparse, tmp_path):
    records = sparse(*[0] * 7, 1 << 30)
    done = subprocess.run(
        [sys.executable, "-c", READ, records.files[0], tmp_path],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 512
