# SPDX-License-Identifier: Apache-2.0
"""Shuffled record sets: content, order, memory, failures."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from collections import Counter, namedtuple
from pathlib import Path

import numpy as np
import pytest

from pipeline.records.open import open_records
from pipeline.records.reader import RecordReader
from pipeline.records.writer import MAGIC, write_record_set
from tests.tools.data.sets import run
from tools.data import shuffling

ROOT = Path(__file__).resolve().parents[2]


def images(folder: Path) -> list[tuple[int, bytes]]:
    """Return (label, JPEG bytes) of a set in the order of its keys."""
    records = open_records(folder, folder)
    jpegs = RecordReader(records).read(np.arange(len(records)))
    return [(int(n), j.tobytes()) for n, j in zip(records.labels, jpegs, strict=True)]


def test_a_shuffled_set_holds_the_same_images_in_another_order(tiny_records, tmp_path):
    assert shuffling.shuffle([tiny_records], tmp_path, seed=3) == 120
    before, after = images(tiny_records), images(tmp_path)
    assert Counter(before) == Counter(after)
    assert before != after
    changes = np.count_nonzero(np.diff([label for label, _ in after]))
    assert changes > 80  # 11 if sorted, 110 on average if shuffled
    assert (tmp_path / "property").read_text().startswith("12,112,112")


@pytest.mark.parametrize(("labels", "people"), [("stacked", 15), ("shared", 12)])
def test_several_sets_are_shuffled_into_one(tiny_records, make_records, tmp_path, labels, people):
    other = make_records(3, 4)
    count = shuffling.shuffle([tiny_records, other], tmp_path, seed=3, labels=labels)
    first, second, after = images(tiny_records), images(other), images(tmp_path)
    offset = 12 if labels == "stacked" else 0
    assert count == 132
    assert Counter(after) == Counter(first) + Counter((offset + n, jpeg) for n, jpeg in second)
    assert (tmp_path / "property").read_text().startswith(f"{people},112,112")
    assert (tmp_path / "classes.json").exists() == (labels == "stacked")
    if labels == "stacked":
        classes = json.loads((tmp_path / "classes.json").read_text())
        assert classes["records"] == [str(f / "train.rec") for f in (tiny_records, other)]
        assert classes["record"] == [0] * 12 + [1] * 3
        assert classes["label"] == [*range(12), *range(3)]


def test_the_names_of_the_identities_stay(make_records, tmp_path):
    names = '["x", "y", "z"]'
    source = make_records(3, 2)
    (source / "identities.json").write_text(names)
    assert run("shuffle", source, tmp_path / "out") == 0
    assert json.loads((tmp_path / "out" / "identities.json").read_text()) == json.loads(names)


def test_notices_about_missing_images_are_printed(make_records, tmp_path, capsys):
    folder = make_records(20, 2)
    lines = (folder / "train.idx").read_text().splitlines(keepends=True)
    (folder / "train.idx").write_text("".join(lines[:5] + lines[6:]))
    notice = f"{folder}/train.idx: 1 of the 40 images that the header lists is not in the .idx\n"
    for command in ("shuffle", "split", "stats", "unpack"):
        out = [tmp_path / command] * (command != "stats")
        run(command, folder, *out)
        assert f"notice: {notice}" in capsys.readouterr().err


@pytest.fixture(scope="module")
def uneven_sets(tiny_records, make_records, make_face):
    """Return two record sets; the records of the second one differ in size and number of parts."""
    samples = []
    for shot in range(40):
        jpeg = make_face(50 + shot % 3, shot)
        # The magic number of records splits a record into parts; here it follows the JPEG.
        tail = struct.pack("<I", MAGIC) * (shot % 5) + bytes(100 * shot)
        samples.append((shot % 3, jpeg + bytes(-len(jpeg) % 4) + tail))
    return [tiny_records, make_records(3, 0, samples=samples, header=False)]


def write_permuted(sources: list[Path], folder: Path, seed: int) -> None:
    """Write the images of record sets in the order of a seed, read by random access."""
    records = open_records(sources, folder.with_name("scan"))
    order = np.random.default_rng(seed).permutation(len(records))
    jpegs = RecordReader(records).read(order)
    pairs = [(int(records.labels[r]), j.tobytes()) for r, j in zip(order, jpegs, strict=True)]
    write_record_set(folder, pairs, records.num_classes, records.image_size, header=False)


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("memory_bytes", [1 << 30, 100_000, 60_000, 1])
def test_the_memory_limit_does_not_change_the_bytes(
    uneven_sets, tmp_path, monkeypatch, memory_bytes
):
    for number, sources in enumerate((uneven_sets[:1], uneven_sets[1:], uneven_sets)):
        out, expected = tmp_path / f"out-{number}", tmp_path / f"expected-{number}"
        write_permuted(sources, expected, seed=5)
        buckets: set[str] = set()
        read_bucket = shuffling._read_bucket

        def counted(path, buffer, buckets=buckets, read_bucket=read_bucket):
            buckets.add(path.name)
            assert len(buffer) <= max(memory_bytes, 80_000)
            read_bucket(path, buffer)

        with monkeypatch.context() as patch:
            patch.setattr(shuffling, "_read_bucket", counted)
            messages = []
            shuffling.shuffle(
                sources,
                out,
                seed=5,
                memory_bytes=memory_bytes,
                progress=lambda *message, messages=messages: messages.append(message),
            )
        made = files(out)
        assert (made.pop("classes.json", None) is not None) == (len(sources) > 1)
        assert made == files(expected)
        assert len(buckets) == 0 if memory_bytes == 1 << 30 else len(buckets) > 1
        if memory_bytes == 1:
            assert len(buckets) > 5
        assert {phase for phase, _, _ in messages} == {"read", "written"}
        assert all(0 <= done <= count for _, done, count in messages)


def test_buckets_have_equally_many_rows_and_fit_into_memory():
    generator = np.random.default_rng(0)
    for count in (1, 2, 7, 1000):
        sizes = generator.integers(1, 100, count)
        for max_bytes in (400, 1000, 10**6):
            equal = shuffling._equal_bounds(sizes, max_bytes)
            rows = np.diff(equal)
            assert (rows[:-1] == rows[0]).all() and 0 < rows[-1] <= rows[0]
            for bounds in (equal, shuffling._bounds(sizes, max_bytes)):
                assert bounds[0] == 0 and bounds[-1] == count and (np.diff(bounds) > 0).all()
                assert np.add.reduceat(sizes, bounds[:-1]).max() <= max_bytes
                if max_bytes >= sizes.sum():
                    assert len(bounds) == 2


def test_no_cached_index_remains_beside_the_new_set(tiny_records, tmp_path, monkeypatch):
    monkeypatch.setattr("pipeline.records.open.MIN_CACHED_RECORDS", 10)
    shuffling.shuffle([tiny_records], tmp_path, seed=3)
    assert sorted(files(tmp_path)) == ["property", "train.idx", "train.rec"]


def test_a_failed_shuffle_leaves_no_files(make_records, tmp_path, monkeypatch):
    source, out = make_records(5, 6), tmp_path / "out"
    read_bucket = shuffling._read_bucket

    def full(path, buffer):
        if path.name == "2":
            raise OSError(28, "No space left on device")
        read_bucket(path, buffer)

    with monkeypatch.context() as patch:
        patch.setattr(shuffling, "_read_bucket", full)
        with pytest.raises(OSError, match="No space left"):
            shuffling.shuffle([source, make_records(3, 2)], out, seed=1, memory_bytes=1)
    assert files(out) == {}
    records = open_records(source, tmp_path)
    with open(source / "train.rec", "r+b") as file:
        file.seek(int(records.offsets[20]))
        file.write(b"spoilt")
    monkeypatch.setattr(
        "pipeline.records.open.check_index", lambda *_: None
    )  # it may read the damaged record
    with pytest.raises(ValueError, match="holds no complete record for key 21"):
        shuffling.shuffle([source], out, seed=1, memory_bytes=1)
    assert files(out) == {}


def test_a_shuffle_stopped_by_sigterm_leaves_no_files(tiny_records, tmp_path):
    program = """
import os, signal, sys
from tools.data import shuffling
from tools.data.__main__ import main
from tools.data.commands import shuffle
def stopped(path, buffer):
    os.kill(os.getpid(), signal.SIGTERM)
shuffling._read_bucket, shuffle.MIB = stopped, 20_000
sys.exit(main())
"""
    arguments = ["shuffle", str(tiny_records), str(tmp_path), "--memory-mib", "1"]
    command = [sys.executable, "-c", program, *arguments]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 143 and not ended.stderr, ended.stderr
    assert files(tmp_path) == {}


def test_a_full_disk_is_refused_before_writing(tiny_records, tmp_path, monkeypatch, capsys):
    usage = namedtuple("usage", "free")
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage(100_000))
    monkeypatch.setattr("signal.signal", lambda *_: None)
    assert run("shuffle", tiny_records, tmp_path) == 2
    assert capsys.readouterr().err == (
        f"error: {tmp_path}: the shuffled set needs 1 MiB of disk, got 0 MiB free; free "
        "disk space or choose another OUT\n"
    )
    assert files(tmp_path) == {}


def test_a_memory_limit_of_zero_is_refused(tiny_records, tmp_path):
    with pytest.raises(ValueError, match="--memory-mib: must be at least 1, got 0"):
        shuffling.shuffle([tiny_records], tmp_path, seed=1, memory_bytes=0)
