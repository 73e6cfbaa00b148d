# SPDX-License-Identifier: Apache-2.0
"""Labels and notices: header record, identity records, .idx and property file may disagree."""

from __future__ import annotations

import os
import struct
import warnings
from pathlib import Path

import numpy as np
import pytest

from pipeline.records import RecordError, open_records
from pipeline.records import open as records_module
from pipeline.records.reader import RecordReader
from pipeline.records.writer import frame, payload_bytes, write_record_set

PEOPLE, IMAGES = 4, 8


@pytest.fixture(scope="module")
def jpegs(make_face):
    return [(p, make_face(p, i)) for p in range(PEOPLE) for i in range(IMAGES)]


@pytest.fixture
def folder(make_records, jpegs) -> Path:
    """Return a new set: images at keys 1..32, identity records at 33..36."""
    return make_records(PEOPLE, IMAGES, samples=jpegs)


def lines_of(folder: Path) -> list[str]:
    return (folder / "train.idx").read_text().splitlines(keepends=True)


def keep_lines(folder: Path, lines: list[str]) -> None:
    (folder / "train.idx").write_text("".join(lines))


def notices(folder: Path, kept: Path, **options) -> list[str]:
    """Open a set twice; return its notices, which must be the same both times."""
    first, second = (open_records(folder, kept, **options).notices for _ in range(2))
    assert first == second
    return list(first)


def patch_floats(folder: Path, key: int, *values: float) -> None:
    """Overwrite the two labels of the header record or of an identity record."""
    offset = int(lines_of(folder)[key].split("\t")[1])
    with (folder / "train.rec").open("r+b") as file:
        file.seek(offset + 32)
        file.write(struct.pack("<2f", *values))


def rewrite(folder: Path, bodies: list[tuple[int, object, bytes]]) -> None:
    """Write the .rec and the .idx from (key, label or labels, JPEG)."""
    at, lines = 0, []
    with (folder / "train.rec").open("wb") as rec:
        for key, label, jpeg in bodies:
            lines.append(f"{key}\t{at}\n")
            for part in frame(payload_bytes(key, label, jpeg)):
                at += rec.write(part)
    keep_lines(folder, lines)


def test_a_complete_set_has_no_notices(folder, make_records, jpegs, tmp_path):
    assert notices(folder, tmp_path) == []
    assert notices(make_records(PEOPLE, 8, samples=jpegs, header=False), tmp_path) == []


@pytest.mark.parametrize("large", [True, False])
def test_images_missing_from_the_idx_are_counted(folder, tmp_path, monkeypatch, large):
    if large:
        monkeypatch.setattr(records_module, "MIN_CACHED_RECORDS", 1)
    keep_lines(folder, lines_of(folder)[:20])
    assert len(open_records(folder, tmp_path)) == 19
    assert notices(folder, tmp_path) == [
        f"{folder}/train.idx: 13 of the 32 images that the header lists are not in the .idx"
    ]


def test_notices_are_cached_without_a_scan(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(records_module, "MIN_CACHED_RECORDS", 1)
    # The identity records are consistent: person 3 has no images.
    patch_floats(folder, 36, 25, 25)
    lines = lines_of(folder)
    keep_lines(folder, lines[:25] + lines[33:])
    monkeypatch.setattr(records_module, "labels_from_scan", None)
    assert notices(folder, tmp_path) == [
        f"{folder}/train.idx: 8 of the 32 images that the header lists are not in the .idx"
    ]
    assert len(list(tmp_path.glob("index-*.npy"))) == 1


def test_one_missing_image_is_counted(folder, tmp_path):
    lines = lines_of(folder)
    keep_lines(folder, lines[:5] + lines[6:])
    assert notices(folder, tmp_path) == [
        f"{folder}/train.idx: 1 of the 32 images that the header lists is not in the .idx"
    ]


def test_identity_records_missing_from_the_idx_are_counted(folder, tmp_path):
    keep_lines(folder, lines_of(folder)[:33])
    assert notices(folder, tmp_path) == [
        f"{folder}/train.idx: 4 of the 4 identity records that the header lists are not in the .idx"
    ]


def test_a_truncated_idx_without_header_is_noticed(make_records, jpegs, tmp_path):
    folder = make_records(PEOPLE, IMAGES, samples=jpegs, header=False)
    lines = lines_of(folder)
    after = (folder / "train.rec").stat().st_size - int(lines[19].split("\t")[1])
    keep_lines(folder, lines[:19])
    assert notices(folder, tmp_path) == [
        f"{folder}/train.idx: key 18 is the last record in the .idx, but {after} more bytes of "
        "train.rec follow this record"
    ]


def test_all_frames_of_the_last_record_belong_to_it(make_records, make_face, tmp_path):
    body = make_face(0, 0) + bytes(-len(make_face(0, 0)) % 4) + b"\x0a\x23\xd7\xce" * 40
    folder = make_records(1, 1, samples=[(0, body)], header=False)
    assert notices(folder, tmp_path) == []


def test_records_beyond_the_header_are_counted(folder, make_face, tmp_path):
    rec = folder / "train.rec"
    lines = lines_of(folder)
    with rec.open("ab") as file:
        for key in (37, 38):
            lines.append(f"{key}\t{file.tell()}\n")
            file.writelines(frame(payload_bytes(key, 3, make_face(3, 50 + key))))
    keep_lines(folder, lines)
    assert notices(folder, tmp_path) == [
        f"{folder}/train.idx: 2 records of the .idx are not listed in the header, the first "
        "with key 37; the loader does not read them"
    ]


def test_a_number_of_people_that_differs_from_the_header_is_noticed(folder, tmp_path):
    (folder / "property").write_text("20,112,112\n")
    assert notices(folder, tmp_path) == [
        f"{folder}/property: states 20 classes, but the header of train.rec lists 4 identities"
    ]
    assert notices(folder, tmp_path, num_classes=30) == []


def test_joined_sets_have_the_notices_of_each_set(folder, make_records, jpegs, tmp_path):
    other = make_records(PEOPLE, IMAGES, samples=jpegs)
    for cut, one in ((20, folder), (30, other)):
        keep_lines(one, lines_of(one)[:cut])
    expected = [
        f"{folder}/train.idx: 13 of the 32 images that the header lists are not in the .idx",
        f"{other}/train.idx: 3 of the 32 images that the header lists are not in the .idx",
    ]
    for labels in ("stacked", "shared"):
        assert notices([folder, other], tmp_path, labels=labels) == expected
    assert notices([folder, other], tmp_path, images_filter=1) == expected


@pytest.mark.parametrize(
    ("key", "values"),
    [
        (key, values)
        for key in (0, 33, 36)
        for values in (
            (float("nan"), float("nan")),
            (float("nan"), 37.0),
            (33.0, float("nan")),
            (float("inf"), float("inf")),
            (-float("inf"), 9.0),
            (1.0, float("inf")),
            (1e30, 3e38),
            (-5.0, 9.0),
            (1.5, 9.5),
            (9.0, 1.0),
            (0.0, 0.0),
        )
    ],
)
def test_header_and_identity_records_without_valid_keys_are_ignored(
    folder, jpegs, tmp_path, key, values
):
    patch_floats(folder, key, *values)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        records = open_records(folder, tmp_path)
    assert records.keys.tolist() == list(range(1, 33))
    assert records.labels.tolist() == [label for label, _ in jpegs]


def test_a_header_that_counts_images_as_identity_records_is_ignored(folder, jpegs, tmp_path):
    patch_floats(folder, 0, 9, 37)
    records = open_records(folder, tmp_path)
    assert records.labels.tolist() == [label for label, _ in jpegs]


def test_identity_records_without_a_header_are_no_images(folder, jpegs, tmp_path):
    keep_lines(folder, lines_of(folder)[1:])
    records = open_records(folder, tmp_path)
    assert records.labels.tolist() == [label for label, _ in jpegs]


EMPTY_AT = [0, 13, 31]


def with_empty(
    folder: Path, jpegs, at: int, header: bool, vector_labels: bool, middle: bytes = b""
):
    """Rewrite a set so that one image record holds no image; return its key."""
    bodies: list[tuple[int, object, bytes]] = []
    for row, (label, jpeg) in enumerate(jpegs):
        kept = [float(label), 1.0] if vector_labels else label
        bodies.append((row + header, kept, middle if row == at else jpeg))
    if header:
        ranges = [[1.0 + IMAGES * p, 1.0 + IMAGES * (p + 1)] for p in range(PEOPLE)]
        bodies = [
            (0, [33.0, 37.0], b""),
            *bodies,
            *((33 + p, ends, b"") for p, ends in enumerate(ranges)),
        ]
    rewrite(folder, bodies)
    return at + header


@pytest.mark.parametrize("images_filter", [0, 1, 9])
@pytest.mark.parametrize("at", EMPTY_AT)
@pytest.mark.parametrize("vector_labels", [True, False])
@pytest.mark.parametrize("header", [True, False])
def test_an_image_record_without_an_image_is_refused_by_key(
    folder, jpegs, tmp_path, header, vector_labels, at, images_filter
):
    key = with_empty(folder, jpegs, at, header, vector_labels)
    size = 32 if vector_labels else 24
    for _ in range(2):
        with pytest.raises(RecordError) as caught:
            open_records(folder, tmp_path, images_filter=images_filter)
        assert str(caught.value) == (
            f"{folder}/train.rec: the record of key {key} holds no image, got {size} bytes of "
            f"which header and labels take {size}; fix the record or leave its key out of the .idx"
        )


def test_the_empty_record_with_the_smallest_key_is_named(folder, jpegs, tmp_path):
    bodies = [(32 - row, 0, b"" if row in (7, 9) else jpeg) for row, (_, jpeg) in enumerate(jpegs)]
    rewrite(folder, [(0, [33.0, 34.0], b""), *bodies, (33, [1.0, 33.0], b"")])
    with pytest.raises(RecordError, match="the record of key 23 holds no image, got 24 bytes"):
        open_records(folder, tmp_path)


@pytest.mark.parametrize("header", [True, False])
def test_the_reader_refuses_an_empty_record_with_the_same_message(
    make_records, jpegs, tmp_path, header
):
    folder = make_records(PEOPLE, IMAGES, samples=jpegs, header=header)
    records = open_records(folder, tmp_path)
    stat = (folder / "train.rec").stat()
    with (folder / "train.rec").open("r+b") as file:
        file.seek(int(records.offsets[5]) + 4)
        file.write(struct.pack("<I", 24))
    os.utime(folder / "train.rec", ns=(stat.st_atime_ns, stat.st_mtime_ns))
    # The next record has not moved, so without a scan only the reader finds the empty one.
    with pytest.raises(RecordError) as caught:
        RecordReader(open_records(folder, tmp_path)).read(np.arange(32))
    assert str(caught.value) == (
        f"{folder}/train.rec: the record of key {5 + header} holds no image, got 24 bytes of which "
        "header and labels take 24; fix the record or leave its key out of the .idx"
    )


def write_labels(folder: Path, make_face, labels: list[int], people: int) -> None:
    """Write a set with one image per label."""
    write_record_set(folder, [(0, make_face(0, i)) for i in range(len(labels))], 1, header=False)
    with (folder / "train.rec").open("r+b") as file:
        for line, label in zip(lines_of(folder), labels):
            file.seek(int(line.split("\t")[1]) + 12)
            file.write(struct.pack("<f", label))
    (folder / "property").write_text(f"{people},112,112\n")


def hint(folder: Path, present: int, people: int) -> str:
    return (
        f"{folder}/train.rec: {present} of {people} classes have images; set "
        "data.images_filter=1 to drop the classes without images and to renumber the remaining "
        f"ones 0 to {present - 1}"
    )


@pytest.mark.parametrize("with_property", [True, False])
def test_labels_with_large_gaps_get_a_hint(make_face, tmp_path, with_property):
    folder = tmp_path / "set"
    write_labels(folder, make_face, [1, 900, 4_500_000], 4_500_001)
    if not with_property:
        (folder / "property").unlink()
    assert notices(folder, tmp_path) == [hint(folder, 3, 4_500_001)]
    records = open_records(folder, tmp_path, images_filter=1)
    assert records.notices == () and records.num_classes == 3
    assert records.labels.tolist() == [0, 1, 2]
    assert records.origins.tolist() == [[0, 1], [0, 900], [0, 4_500_000]]


@pytest.mark.parametrize(("people", "hinted"), [(1002, False), (1003, True), (3, False)])
def test_only_many_classes_without_images_get_a_hint(make_face, tmp_path, people, hinted):
    folder = tmp_path / "set"
    write_labels(folder, make_face, [0, 1, 2], people)
    assert notices(folder, tmp_path) == ([hint(folder, 3, people)] if hinted else [])


def test_joined_sets_with_large_gaps_get_one_hint(make_face, tmp_path):
    for name, labels in (("a", [0, 2000]), ("b", [0, 1, 1500])):
        write_labels(tmp_path / name, make_face, labels, 2001)
    both = [tmp_path / "a", tmp_path / "b"]
    names = f"{both[0]}/train.rec, {both[1]}/train.rec"
    expected = (
        "classes have images; set data.images_filter=1 to drop the classes without images and to "
        "renumber the remaining ones"
    )
    assert notices(both, tmp_path) == [f"{names}: 5 of 4002 {expected} 0 to 4"]
    assert notices(both, tmp_path, labels="shared") == [f"{names}: 4 of 2001 {expected} 0 to 3"]


def test_too_many_classes_for_float32_are_refused(make_face, tmp_path):
    folder = tmp_path / "set"
    write_labels(folder, make_face, [1, 900, 2_000_000_000], 2**31 - 1)
    with pytest.raises(RecordError) as caught:
        open_records(folder, tmp_path)
    assert str(caught.value) == (
        f"{folder}/train.rec: has too many classes for labels in float32, which are exact up to "
        "16777216, got 2147483647, 3 of them with images; set data.images_filter=1 to drop "
        "the classes without images"
    )
    assert open_records(folder, tmp_path, images_filter=1).labels.tolist() == [0, 1, 2]
    with pytest.raises(RecordError, match="the sets have more than 134217728 classes together"):
        write_labels(tmp_path / "b", make_face, [0], 1)
        open_records([folder, tmp_path / "b"], tmp_path)


@pytest.mark.parametrize(
    ("label", "fault"),
    [
        (float("inf"), "label inf in the record of key 2 is out of range"),
        (float("nan"), "label nan in the record of key 2 is out of range"),
        (-1.0, "label -1 in the record of key 2 is out of range"),
        (0.5, "the label in the record of key 2 is not a whole number, got 0.5"),
    ],
)
@pytest.mark.parametrize("header", [True, False])
def test_labels_that_are_no_class_are_refused(
    make_records, make_face, tmp_path, label, fault, header
):
    folder = make_records(2, 2, header=False)
    content = bytearray((folder / "train.rec").read_bytes())
    offsets = [int(line.split("\t")[1]) for line in (folder / "train.idx").open()]
    keys = [int(line.split("\t")[0]) for line in (folder / "train.idx").open()]
    at = offsets[keys.index(2)] + 12
    content[at : at + 4] = np.array(label, "<f4").tobytes()
    (folder / "train.rec").write_bytes(content)
    if not header:
        (folder / "property").unlink()
    with pytest.raises(RecordError) as caught:
        open_records(folder, tmp_path)
    assert fault in str(caught.value) and str(folder) in str(caught.value)


def test_a_label_of_a_billion_without_property_is_refused(make_records, tmp_path):
    folder = make_records(2, 2, header=False)
    (folder / "property").unlink()
    content = bytearray((folder / "train.rec").read_bytes())
    content[12:16] = np.array(1e9, "<f4").tobytes()
    (folder / "train.rec").write_bytes(content)
    with pytest.raises(RecordError, match=r"train\.rec: has too many classes .*, got 1000000001"):
        open_records(folder, tmp_path)
