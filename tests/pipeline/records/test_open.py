# SPDX-License-Identifier: Apache-2.0
"""Record sets of every layout give the same images and labels; errors name the damage."""

from __future__ import annotations

import os
import shutil
import struct
import warnings
from pathlib import Path

import mxnet as mx
import numpy as np
import pytest

from pipeline.records import RecordError, open_records
from pipeline.records.index_cache import save_columns
from pipeline.records.reader import RecordReader

PEOPLE, IMAGES = 4, 3


@pytest.fixture
def scans(tmp_path) -> Path:
    """Return a folder, not created yet, for cached indexes."""
    return tmp_path / "scans"


@pytest.fixture(scope="module")
def samples(make_face):
    return [(p, make_face(p, i)) for p in range(PEOPLE) for i in range(IMAGES)]


@pytest.fixture
def folder(make_records, samples) -> Path:
    """Return a new set, which a test may damage: images at keys 1..12, identities at 13..16."""
    return make_records(PEOPLE, IMAGES, samples=samples)


def index_of(folder: Path) -> dict[int, int]:
    """Return {key: offset}."""
    lines = (folder / "train.idx").read_text().splitlines()
    return {int(k): int(o) for k, o in (line.split("\t") for line in lines)}


def patch(path: Path, offset: int, content: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(content)


def columns_of(kept: Path) -> list[np.ndarray]:
    with kept.open("rb") as file:
        return [np.load(file) for _ in range(4)]


def disk_is_full(*arguments):
    raise OSError(28, "No space left on device")


def read_all(records) -> list[bytes]:
    return [a.tobytes() for a in RecordReader(records).read(np.arange(len(records)))]


def refusal(path: Path, scans: Path, **options) -> str:
    with pytest.raises(RecordError) as caught:
        open_records(path, scans, **options)
    return str(caught.value)


def same_set(records, samples, first_key: int) -> None:
    assert records.keys.tolist() == list(range(first_key, first_key + len(samples)))
    assert records.labels.dtype == np.int32
    assert records.labels.tolist() == [label for label, _ in samples]
    assert read_all(records) == [jpeg for _, jpeg in samples]
    assert (records.num_classes, records.image_size) == (PEOPLE, (112, 112))


@pytest.mark.parametrize("vector_labels", [False, True])
def test_a_set_with_header_needs_no_scan(make_records, samples, scans, vector_labels):
    folder = make_records(PEOPLE, IMAGES, samples=samples, vector_labels=vector_labels)
    same_set(open_records(folder, scans), samples, first_key=1)
    assert not scans.exists()


@pytest.mark.parametrize("vector_labels", [False, True])
def test_a_set_of_im2rec_needs_one_scan(make_records, samples, scans, vector_labels):
    options = {"header": False, "vector_labels": vector_labels}
    folder = make_records(PEOPLE, IMAGES, samples=samples, **options)
    same_set(open_records(folder, scans), samples, first_key=0)
    assert len(list(scans.iterdir())) == 1


def test_mxnet_reads_the_same_images(folder, scans):
    records = open_records(folder, scans)
    theirs = mx.recordio.MXIndexedRecordIO(
        str(folder / "train.idx"), str(folder / "train.rec"), "r"
    )
    for key, label, jpeg in zip(records.keys, records.labels, read_all(records)):
        header, body = mx.recordio.unpack(theirs.read_idx(int(key)))
        assert (header.label, body) == (label, jpeg)


def test_a_single_rec_may_have_another_name(make_records, samples, scans):
    folder = make_records(PEOPLE, IMAGES, samples=samples, name="faces")
    same_set(open_records(folder, scans), samples, first_key=1)
    same_set(open_records(folder / "faces.rec", scans), samples, first_key=1)
    for end in (".rec", ".idx"):
        shutil.copy(folder / f"faces{end}", folder / f"more{end}")
    assert refusal(folder, scans) == (
        f"{folder}: has no train.rec, got .rec files: faces.rec, more.rec; name the .rec "
        "itself in data.records"
    )


def test_more_lines_of_property_are_ignored(folder, samples, scans):
    (folder / "property").write_text("4,112,112\nname=tiny\nlicence unknown\n")
    same_set(open_records(folder, scans), samples, first_key=1)


def test_without_property_the_labels_and_the_first_image_are_used(make_records, scans):
    folder = make_records(PEOPLE, IMAGES, image_size=(96, 80))
    (folder / "property").unlink()
    records = open_records(folder, scans)
    assert (records.num_classes, records.image_size) == (PEOPLE, (96, 80))


def test_num_classes_overrides_property(folder, scans):
    assert open_records(folder, scans, num_classes=20).num_classes == 20
    assert refusal(folder, scans, num_classes=2) == (
        f"{folder / 'train.rec'}: label 2 in the record of key 7 is out of range, got "
        "num_classes=2; labels must be whole numbers in 0..1"
    )


def test_scanned_labels_are_cached_by_size_and_time(make_records, samples, scans):
    folder = make_records(PEOPLE, IMAGES, samples=samples, header=False)
    rec = folder / "train.rec"
    true = open_records(folder, scans).labels.tolist()
    (kept,) = scans.iterdir()
    offsets, keys, labels, facts = columns_of(kept)
    assert (offsets.dtype, keys.dtype, labels.dtype) == (np.int64, np.int32, np.int32)
    labels[0] = 3
    kept.unlink()
    save_columns(kept, offsets, keys, labels, facts)
    assert open_records(folder, scans).labels.tolist() == [3, *true[1:]]  # not scanned again

    stat = rec.stat()
    os.utime(rec, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1_000_000_000))
    assert open_records(folder, scans).labels.tolist() == true
    assert len(list(scans.iterdir())) == 2

    with rec.open("ab") as file:
        file.write(bytes(4))
    os.utime(rec, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert open_records(folder, scans).labels.tolist() == true
    assert len(list(scans.iterdir())) == 3


def test_an_incomplete_cached_index_is_replaced(make_records, samples, scans):
    folder = make_records(PEOPLE, IMAGES, samples=samples, header=False)
    open_records(folder, scans)
    (kept,) = scans.iterdir()
    whole = kept.read_bytes()
    kept.write_bytes(whole[: len(whole) // 2])
    same_set(open_records(folder, scans), samples, first_key=0)
    assert kept.read_bytes() == whole


def test_every_changed_bit_of_the_cached_index_is_noticed(make_records, samples, scans):
    folder = make_records(PEOPLE, IMAGES, samples=samples, header=False)
    open_records(folder, scans)
    (kept,) = scans.iterdir()
    whole = kept.read_bytes()
    for place in np.random.default_rng(0).integers(0, 8 * len(whole), 60).tolist():
        damaged = bytearray(whole)
        damaged[place // 8] ^= 1 << place % 8
        kept.write_bytes(damaged)
        same_set(open_records(folder, scans), samples, first_key=0)
        assert kept.read_bytes() == whole
    for size in (0, 1, 3, 4, 100):
        kept.write_bytes(whole[:size])
        same_set(open_records(folder, scans), samples, first_key=0)
        assert kept.read_bytes() == whole


def test_a_scan_folder_that_cannot_be_written_is_named(make_records, samples, tmp_path):
    folder = make_records(PEOPLE, IMAGES, samples=samples, header=False)
    (tmp_path / "file").write_text("")
    scans = tmp_path / "file" / "scans"
    assert refusal(folder, scans) == (
        f"{scans}: cannot be written, got Not a directory; free disk space or choose another "
        "run.dir"
    )


def test_a_full_disk_leaves_no_cached_index(make_records, samples, scans, monkeypatch):
    folder = make_records(PEOPLE, IMAGES, samples=samples, header=False)
    monkeypatch.setattr(os, "fsync", disk_is_full)
    assert refusal(folder, scans) == (
        f"{scans}: cannot be written, got No space left on device; free disk space or choose "
        "another run.dir"
    )
    assert not list(scans.iterdir())


def test_cached_columns_are_mapped_and_int32_if_possible(make_records, samples, scans):
    folder = make_records(PEOPLE, IMAGES, samples=samples, header=False)
    records = open_records(folder, scans)
    for column in (records.keys, records.offsets, records.labels):
        assert not column.flags.owndata and not column.flags.writeable
        assert type(column) is np.ndarray and column.flags.c_contiguous
    assert records.keys.dtype == np.int32
    assert records.ids(np.arange(3)).dtype == np.int64
    # Keys that do not fit into int32.
    index = index_of(folder)
    far = {key + 2**35: offset for key, offset in index.items()}
    (folder / "train.idx").write_text("".join(f"{k}\t{o}\n" for k, o in far.items()))
    for records in (open_records(folder, scans), open_records(folder, scans)):
        assert records.keys.dtype == np.int64 and records.keys.tolist() == sorted(far)
        assert records.labels.tolist() == [label for label, _ in samples]


@pytest.mark.parametrize(
    ("key", "labels"),
    [
        (13, (1.0, 5.0)),  # overlaps the next range
        (13, (2.0, 4.0)),  # leaves the first image out
        (16, (10.0, 12.0)),  # leaves the last image out
        (14, (3.0, 7.0)),  # overlaps the range before
        (13, (500.0, 900.0)),  # belongs to another set
    ],
)
def test_identity_ranges_that_do_not_cover_the_images_are_ignored(
    folder, samples, scans, key, labels
):
    patch(folder / "train.rec", index_of(folder)[key] + 32, struct.pack("<2f", *labels))
    same_set(open_records(folder, scans), samples, first_key=1)
    assert len(list(scans.iterdir())) == 1


def test_identity_ranges_with_different_labels_are_ignored(folder, samples, scans):
    # The ranges cover all images, but the border between the first two people has moved.
    index = index_of(folder)
    patch(folder / "train.rec", index[13] + 32, struct.pack("<2f", 1, 5))
    patch(folder / "train.rec", index[14] + 32, struct.pack("<2f", 5, 7))
    same_set(open_records(folder, scans), samples, first_key=1)
    assert len(list(scans.iterdir())) == 1


def test_people_may_have_no_images(make_records, samples, scans):
    gaps = [(2 * label, jpeg) for label, jpeg in samples]
    folder = make_records(2 * PEOPLE + 1, IMAGES, samples=gaps)
    records = open_records(folder, scans)
    assert records.labels.tolist() == [label for label, _ in gaps]
    assert records.num_classes == 9 and not scans.exists()


def test_missing_files_are_named(folder, scans):
    assert refusal(folder / "other.rec", scans) == (
        f"{folder}/other.rec: no such file (data.records), got '{folder}/other.rec'; "
        "check data.records"
    )
    (folder / "train.idx").unlink()
    assert refusal(folder, scans) == (
        f"{folder}/train.idx: no such file (needed beside train.rec), got '{folder}'; "
        "check data.records"
    )
    (folder / "train.rec").unlink()
    assert refusal(folder, scans) == (
        f"{folder}: has no train.rec, got .rec files: none; name the .rec itself in " "data.records"
    )


def test_an_empty_rec_is_refused(folder, scans):
    (folder / "train.rec").write_bytes(b"")
    assert refusal(folder, scans) == (
        f"{folder}/train.rec: is empty, got 0 bytes; make or copy it again"
    )


@pytest.mark.parametrize("cut", [4, 30, 1000])
def test_a_truncated_rec_is_refused(folder, scans, cut):
    rec = folder / "train.rec"
    size = rec.stat().st_size
    os.truncate(rec, size - cut)
    index = index_of(folder)
    if cut == 4:
        expected = (
            f"{rec}: ends inside the record of key 16, got {size - 4} bytes where {size} are "
            "needed; the .rec is truncated, copy it again"
        )
    else:
        key = min(k for k, offset in index.items() if offset + 32 > size - cut)
        expected = (
            f"{rec}: ends before the record of key {key} (offset {index[key]}), got "
            f"{size - cut} bytes; the .rec is truncated or train.idx belongs to another .rec"
        )
    assert refusal(folder, scans) == expected


def test_a_rec_truncated_inside_its_last_image_is_refused(make_records, samples, scans):
    folder = make_records(PEOPLE, IMAGES, samples=samples, header=False)
    rec = folder / "train.rec"
    size = rec.stat().st_size
    os.truncate(rec, size - 100)
    assert refusal(folder, scans).startswith(
        f"{rec}: ends inside the record of key 11, got {size - 100} bytes where "
    )


def test_the_idx_of_another_rec_is_refused(folder, make_records, scans):
    larger = make_records(PEOPLE, IMAGES, vector_labels=True)
    shutil.copy(folder / "train.idx", larger / "train.idx")
    at = index_of(folder)[2]
    found = int.from_bytes((larger / "train.rec").read_bytes()[at : at + 4], "little")
    assert refusal(larger, scans) == (
        f"{larger}/train.idx: no record starts at offset {index_of(folder)[2]} of train.rec, "
        f"where key 2 should be, got {found:#010x} in place of 0xced7230a; the .idx belongs to "
        "another .rec"
    )


def test_the_idx_of_a_larger_rec_is_refused(folder, make_records, scans):
    other = make_records(PEOPLE, 2 * IMAGES)
    shutil.copy(other / "train.idx", folder / "train.idx")
    assert refusal(folder, scans).endswith(
        "; the .rec is truncated or train.idx belongs to another .rec"
    )


def test_a_duplicate_key_is_refused(folder, scans):
    with (folder / "train.idx").open("a") as file:
        file.write(f"5\t{index_of(folder)[5]}\n")
    assert refusal(folder, scans) == (f"{folder}/train.idx: duplicate key 5; rebuild the index")


@pytest.mark.parametrize("label", [-1.0, 4.0])
def test_the_first_label_out_of_range_is_refused(folder, scans, label):
    patch(folder / "train.rec", index_of(folder)[2] + 12, struct.pack("<f", label))
    patch(folder / "train.rec", index_of(folder)[1] + 12, struct.pack("<f", label))
    patch(folder / "train.rec", index_of(folder)[3] + 12, struct.pack("<f", label))
    assert refusal(folder, scans) == (
        f"{folder}/train.rec: label {label:g} in the record of key 1 is out of range, got "
        "num_classes=4; labels must be whole numbers in 0..3"
    )


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 1e30, 3e9])
@pytest.mark.parametrize("with_property", [True, False])
@pytest.mark.parametrize("vector_labels", [True, False])
def test_a_label_that_is_not_finite_or_huge_is_refused(
    make_records, samples, scans, value, with_property, vector_labels
):
    # Valid labels are 0 to 3; without property, a huge finite label sets the number of classes.
    options = {"header": False, "vector_labels": vector_labels}
    folder = make_records(PEOPLE, IMAGES, samples=samples, **options)
    place = index_of(folder)[2] + (32 if vector_labels else 12)
    patch(folder / "train.rec", place, struct.pack("<f", value))
    if not with_property:
        (folder / "property").unlink()
    classes = PEOPLE if with_property or not 0 < value < float("inf") else 2**31 - 1
    shown = {1e30: "1e+30", 3e9: "3000000000"}.get(value, str(value))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(2):
            assert refusal(folder, scans) == (
                f"{folder}/train.rec: label {shown} in the record of key 2 is out of range, got "
                f"num_classes={classes}; labels must be whole numbers in 0..{classes - 1}"
            )


@pytest.mark.parametrize("value", [0.5, 2.25, 1e-30])
@pytest.mark.parametrize("with_property", [True, False])
@pytest.mark.parametrize("header", [True, False])
@pytest.mark.parametrize("vector_labels", [True, False])
def test_a_fractional_label_is_refused(
    make_records, scans, value, with_property, header, vector_labels
):
    options = {"header": header, "vector_labels": vector_labels}
    folder = make_records(PEOPLE, 1, **options)
    key = 1 + header  # its person has one image, so the identity records stay consistent
    place = index_of(folder)[key] + (32 if vector_labels else 12)
    patch(folder / "train.rec", place, struct.pack("<f", value))
    if not with_property:
        (folder / "property").unlink()
    assert refusal(folder, scans) == (
        f"{folder}/train.rec: the label in the record of key {key} is not a whole number, got "
        f"{value}; labels must be whole numbers in 0..3"
    )


def test_fractional_labels_alone_are_refused(make_records, scans):
    folder = make_records(2, 1, header=False)
    for key, value in ((0, 0.5), (1, 1.5)):
        patch(folder / "train.rec", index_of(folder)[key] + 12, struct.pack("<f", value))
    for name in ("property", "nothing"):
        assert refusal(folder, scans) == (
            f"{folder}/train.rec: the label in the record of key 0 is not a whole number, got 0.5; "
            "labels must be whole numbers in 0..1"
        )
        if name == "property":
            (folder / name).unlink()


def test_a_set_without_images_is_refused(folder, scans):
    lines = (folder / "train.idx").read_text().splitlines(keepends=True)
    (folder / "train.idx").write_text("".join(lines[13:]))
    assert refusal(folder, scans) == (
        f"{folder}/train.rec: holds no image, got 4 records without image; use another "
        "record set"
    )


def test_the_idx_may_leave_images_out(folder, samples, scans):
    lines = (folder / "train.idx").read_text().splitlines(keepends=True)
    (folder / "train.idx").write_text("".join(lines[:3] + lines[4:]))  # without key 3
    records = open_records(folder, scans)
    assert records.keys.tolist() == [1, 2, *range(4, 13)]
    assert records.labels.tolist() == [label for i, (label, _) in enumerate(samples) if i != 2]
