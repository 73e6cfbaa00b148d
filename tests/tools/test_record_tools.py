# SPDX-License-Identifier: Apache-2.0
"""Shuffled record sets, held-out people, and the count of people per batch."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from collections import Counter, namedtuple
from pathlib import Path

import numpy as np
import pytest

from evaluation.pairs import read_pairs
from evaluation.people import find_people
from pipeline.records.open import open_records
from pipeline.records.reader import RecordReader
from pipeline.records.writer import MAGIC, write_record_set
from tools import batch_mixing, hold_out_people, shuffle_records

ROOT = Path(__file__).resolve().parents[2]


def images(folder: Path) -> list[tuple[int, bytes]]:
    """Return (label, JPEG bytes) of a set in the order of its keys."""
    records = open_records(folder, folder)
    jpegs = RecordReader(records).read(np.arange(len(records)))
    return [(int(n), j.tobytes()) for n, j in zip(records.labels, jpegs, strict=True)]


def test_a_shuffled_set_holds_the_same_images_in_another_order(tiny_records, tmp_path):
    assert shuffle_records.shuffle([tiny_records], tmp_path, seed=3) == 120
    before, after = images(tiny_records), images(tmp_path)
    assert Counter(before) == Counter(after)
    assert before != after
    changes = np.count_nonzero(np.diff([label for label, _ in after]))
    assert changes > 80  # 11 if sorted, 110 on average if shuffled
    assert (tmp_path / "property").read_text().startswith("12,112,112")


@pytest.mark.parametrize(("labels", "people"), [("stacked", 15), ("shared", 12)])
def test_several_sets_are_shuffled_into_one(tiny_records, make_records, tmp_path, labels, people):
    other = make_records(3, 4)
    count = shuffle_records.shuffle([tiny_records, other], tmp_path, seed=3, labels=labels)
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


def test_notices_about_missing_images_are_printed(make_records, tmp_path, capsys):
    folder = make_records(20, 2)
    lines = (folder / "train.idx").read_text().splitlines(keepends=True)
    (folder / "train.idx").write_text("".join(lines[:5] + lines[6:]))
    shuffle_records.shuffle([folder], tmp_path / "shuffled", seed=1)
    notice = f"{folder}/train.idx: 1 of the 40 images that the header lists is not in the .idx\n"
    assert capsys.readouterr().err == f"shuffle_records: {notice}"
    with pytest.raises(ValueError, match="at least 20 people must be held out"):
        hold_out_people.hold_out(folder, tmp_path / "held", 2, 20)
    assert capsys.readouterr().err == f"hold_out_people: {notice}"


def test_the_folder_of_a_source_is_refused_as_output(tiny_records):
    with pytest.raises(ValueError, match="must not be the folder of a source set"):
        shuffle_records.shuffle([tiny_records], tiny_records, seed=1)


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
        read_bucket = shuffle_records._read_bucket

        def counted(path, buffer, buckets=buckets, read_bucket=read_bucket):
            buckets.add(path.name)
            assert len(buffer) <= max(memory_bytes, 80_000)
            read_bucket(path, buffer)

        with monkeypatch.context() as patch:
            patch.setattr(shuffle_records, "_read_bucket", counted)
            messages = []
            shuffle_records.shuffle(
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
            equal = shuffle_records._equal_bounds(sizes, max_bytes)
            rows = np.diff(equal)
            assert (rows[:-1] == rows[0]).all() and 0 < rows[-1] <= rows[0]
            for bounds in (equal, shuffle_records._bounds(sizes, max_bytes)):
                assert bounds[0] == 0 and bounds[-1] == count and (np.diff(bounds) > 0).all()
                assert np.add.reduceat(sizes, bounds[:-1]).max() <= max_bytes
                if max_bytes >= sizes.sum():
                    assert len(bounds) == 2


def test_no_cached_index_remains_beside_the_new_set(tiny_records, tmp_path, monkeypatch):
    monkeypatch.setattr("pipeline.records.open.MIN_CACHED_RECORDS", 10)
    shuffle_records.shuffle([tiny_records], tmp_path, seed=3)
    assert sorted(files(tmp_path)) == ["property", "train.idx", "train.rec"]


def test_the_class_map_of_an_older_set_is_removed(tiny_records, tmp_path):
    (tmp_path / "classes.json").write_text("{}")
    shuffle_records.shuffle([tiny_records], tmp_path, seed=3)
    assert not (tmp_path / "classes.json").exists()


def test_a_failed_shuffle_leaves_no_files(make_records, tmp_path, monkeypatch):
    source, out = make_records(5, 6), tmp_path / "out"
    read_bucket = shuffle_records._read_bucket

    def full(path, buffer):
        if path.name == "2":
            raise OSError(28, "No space left on device")
        read_bucket(path, buffer)

    with monkeypatch.context() as patch:
        patch.setattr(shuffle_records, "_read_bucket", full)
        with pytest.raises(OSError, match="No space left"):
            shuffle_records.shuffle([source, make_records(3, 2)], out, seed=1, memory_bytes=1)
    assert files(out) == {}
    records = open_records(source, tmp_path)
    with open(source / "train.rec", "r+b") as file:
        file.seek(int(records.offsets[20]))
        file.write(b"spoilt")
    monkeypatch.setattr(
        "pipeline.records.open.check_index", lambda *_: None
    )  # it may read the damaged record
    with pytest.raises(ValueError, match="holds no complete record for key 21"):
        shuffle_records.shuffle([source], out, seed=1, memory_bytes=1)
    assert files(out) == {}


def test_a_shuffle_stopped_by_sigterm_leaves_no_files(tiny_records, tmp_path):
    program = """
import os, signal, sys
from tools import shuffle_records
def stopped(path, buffer):
    os.kill(os.getpid(), signal.SIGTERM)
shuffle_records._read_bucket, shuffle_records.MIB = stopped, 20_000
sys.exit(shuffle_records.main())
"""
    command = [sys.executable, "-c", program, str(tiny_records), str(tmp_path), "--memory-mib", "1"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 143 and not ended.stderr, ended.stderr
    assert files(tmp_path) == {}


def test_a_full_disk_is_refused_before_writing(tiny_records, tmp_path, monkeypatch, capsys):
    usage = namedtuple("usage", "free")
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage(100_000))
    monkeypatch.setattr(sys, "argv", ["x", str(tiny_records), str(tmp_path)])
    monkeypatch.setattr("signal.signal", lambda *_: None)
    assert shuffle_records.main() == 2
    assert capsys.readouterr().err == (
        f"shuffle_records: {tmp_path}: the shuffled set needs 1 MiB of disk, got 0 MiB free; free "
        "disk space or choose another OUT\n"
    )
    assert files(tmp_path) == {}


def test_a_memory_limit_of_zero_is_refused(tiny_records, tmp_path):
    with pytest.raises(ValueError, match="--memory-mib: must be at least 1, got 0"):
        shuffle_records.shuffle([tiny_records], tmp_path, seed=1, memory_bytes=0)


@pytest.mark.parametrize("terminal", [True, False])
def test_progress_is_one_line_on_a_terminal_and_else_one_per_minute(terminal, monkeypatch, capsys):
    clock = iter(range(0, 10_000, 30))
    monkeypatch.setattr("sys.stderr.isatty", lambda: terminal, raising=False)
    monkeypatch.setattr("time.monotonic", lambda: next(clock))
    progress = shuffle_records._Progress()
    for done in (1000, 2000):
        progress("read", done, 2000)
    progress.clear()
    printed = capsys.readouterr().err
    lines = ["read 1,000 of 2,000 images", "read 2,000 of 2,000 images", ""]
    clear = "\r\x1b[K"
    assert printed == (clear + clear.join(lines) if terminal else lines[1] + "\n")


def test_held_out_people_are_not_in_the_training_set(make_records, tmp_path):
    source = make_records(60, 6)
    hold_out_people.hold_out(source, tmp_path, every=3, pairs=60)
    person = {jpeg: label for label, jpeg in images(source)}
    kept = {person[jpeg] for _, jpeg in images(tmp_path)}
    labels = [label for label, _ in images(tmp_path)]
    assert sorted(set(labels)) == list(range(40))
    pairs = read_pairs(tmp_path / "held_out.bin")
    shown = [person[bytes(jpeg)] for jpeg in pairs.images]
    assert kept | set(shown) <= set(range(60)) and not kept & set(shown)
    same = [a == b for a, b in zip(shown[::2], shown[1::2], strict=True)]
    assert same == list(pairs.issame) and sum(same) == 30
    people = find_people(pairs)
    assert people.kind == "people"
    assert (
        len({*zip(people.numbers, shown, strict=True)}) == len({*shown}) == len({*people.numbers})
    )
    folds = [set(shown[i : i + 12]) for i in range(0, 120, 12)]
    assert sum(len(fold) for fold in folds) == len(set().union(*folds))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["tools/hold_out_people.py", "nowhere", "out"], "hold_out_people: nowhere: no such file"),
        (["tools/shuffle_records.py", "nowhere", "out"], "shuffle_records: nowhere: no such file"),
    ],
)
def test_a_missing_folder_is_refused_in_one_sentence(tmp_path, arguments, says):
    command = [sys.executable, str(ROOT / arguments[0]), *arguments[1:]]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert ended.stderr.count("\n") == 1 and ended.stderr.startswith(says)


def test_the_expected_count_is_the_mean_of_many_draws(tiny_records):
    records = open_records(tiny_records, tiny_records)
    generator = np.random.default_rng(0)
    draws = [
        len(np.unique(generator.choice(records.labels, 16, replace=False))) for _ in range(4000)
    ]
    assert batch_mixing._expected_people(records, 16) == pytest.approx(np.mean(draws), abs=0.1)


def test_random_access_mixes_like_a_permutation(tiny_records, tmp_path, monkeypatch, capsys):
    report = tmp_path / "rows.json"
    arguments = ["--records", str(tiny_records), "--batch-size", "16", "--epochs", "20"]
    monkeypatch.setattr(
        sys, "argv", ["x", *arguments, "--windows", "2", "60", "--json", str(report)]
    )
    batch_mixing.main()
    rows = {row["name"]: row["of_uniform"] for row in json.loads(report.read_text())["rows"]}
    assert rows["ours random-access"] > 0.97  # the mean of 140 batches varies
    for reader in ("blocks", "window"):
        assert rows[f"ours {reader} of 2"] < rows[f"ours {reader} of 60"] < 1.02
    assert len(capsys.readouterr().out.splitlines()) == 7
