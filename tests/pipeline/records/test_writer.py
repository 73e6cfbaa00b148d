# SPDX-License-Identifier: Apache-2.0
"""Written record sets have the layout that MXNet's reader and InsightFace expect."""

from __future__ import annotations

import struct
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
from mxnet import recordio

from pipeline.records import writer
from pipeline.records.writer import MAGIC_BYTES, frame, write_record_set

JPEG = b"\xff\xd8"
IMAGES = [(0, JPEG + b"one"), (0, JPEG + b"two2"), (2, JPEG + b"three")]


def read(folder: Path, name: str = "train") -> dict[int, tuple[recordio.IRHeader, bytes]]:
    reader = recordio.MXIndexedRecordIO(
        str(folder / f"{name}.idx"), str(folder / f"{name}.rec"), "r"
    )
    return {key: recordio.unpack(reader.read_idx(key)) for key in reader.keys}


def test_header_identities_and_images_have_the_keys_of_insightface(tmp_path):
    assert write_record_set(tmp_path, IMAGES, num_classes=3) == 3
    records = read(tmp_path)
    assert list(records) == list(range(7))
    header, body = records[0]
    assert (header.flag, list(header.label), body) == (2, [4.0, 7.0], b"")
    for key, (label, jpeg) in enumerate(IMAGES, 1):
        image, body = records[key]
        assert (image.flag, image.label, image.id, body) == (0, float(label), key, jpeg)
    ranges = [list(records[key][0].label) for key in (4, 5, 6)]
    assert ranges[0] == [1.0, 3.0]
    assert ranges[1][0] == ranges[1][1]  # nobody has label 1
    assert ranges[2] == [3.0, 4.0]
    assert (tmp_path / "property").read_text() == "3,112,112\n"


def test_vector_labels_are_stored(tmp_path):
    write_record_set(tmp_path, IMAGES, 3, vector_labels=True)
    header, body = read(tmp_path)[3]
    assert (header.flag, list(header.label), body) == (2, [2.0, 1.0], IMAGES[2][1])


def test_without_header_keys_begin_at_zero_and_labels_may_be_unsorted(tmp_path):
    write_record_set(tmp_path, IMAGES[::-1], 3, (96, 80), name="val", header=False)
    records = read(tmp_path, "val")
    assert {key: (h.label, body) for key, (h, body) in records.items()} == dict(
        enumerate((float(label), jpeg) for label, jpeg in IMAGES[::-1])
    )
    assert (tmp_path / "property").read_text() == "3,96,80\n"


@pytest.mark.parametrize(
    "body",
    [
        JPEG + b"..",
        JPEG + b".." + MAGIC_BYTES,
        JPEG + b".." + MAGIC_BYTES + b"tail",
        JPEG + b".." + MAGIC_BYTES * 3 + b"x" + MAGIC_BYTES,
        JPEG + MAGIC_BYTES + b"..." + MAGIC_BYTES,
    ],
    ids=["none", "at the end", "inside", "repeated", "not aligned"],
)
def test_the_magic_number_inside_an_image_survives(tmp_path, body):
    write_record_set(tmp_path, [(0, body), (1, JPEG)], 2)
    assert [body for _, body in read(tmp_path).values()] == [b"", body, JPEG, b"", b""]
    data = (tmp_path / "train.rec").read_bytes()
    writer = recordio.MXRecordIO(str(tmp_path / "theirs.rec"), "w")
    for key in range(5):
        writer.write(_payload_of(tmp_path, key))
    writer.close()
    assert data == (tmp_path / "theirs.rec").read_bytes()


def _payload_of(folder: Path, key: int) -> bytes:
    reader = recordio.MXIndexedRecordIO(str(folder / "train.idx"), str(folder / "train.rec"), "r")
    return reader.read_idx(key)


def test_the_magic_number_may_begin_an_image():
    parts = b"".join(frame(MAGIC_BYTES + b"abcd"))
    first, last = struct.unpack_from("<II", parts), struct.unpack_from("<II", parts, 8)
    assert (first[1] >> 29, last[1] >> 29, parts[16:]) == (1, 3, b"abcd")


@pytest.mark.parametrize(
    ("images", "says"),
    [
        ([(1, JPEG), (0, JPEG)], "got 0 after 1; sort the images"),
        ([(3, JPEG)], "the label must be in 0 .. 2, got 3"),
        ([(-1, JPEG)], "the label must be in 0 .. 2, got -1"),
        ([(0, b"PNG")], "must be a JPEG"),
        ([], "at least one"),
    ],
)
def test_invalid_images_are_refused_and_no_file_remains(tmp_path, images, says):
    with pytest.raises(ValueError, match=says):
        write_record_set(tmp_path, images, 3)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("label", [0.5, 1.25, (1 << 24) + 1])
@pytest.mark.parametrize("vector_labels", [True, False])
def test_labels_that_float32_cannot_hold_are_refused(tmp_path, label, vector_labels):
    images = [(0, JPEG), (label, JPEG)]
    with pytest.raises(ValueError) as caught:
        write_record_set(tmp_path, images, 1 << 25, header=False, vector_labels=vector_labels)
    assert str(caught.value) == (
        f"image 1: the label must be a whole number that float32 represents exactly, got {label}; "
        "number the identities 0, 1, 2, ... without gaps"
    )
    assert not list(tmp_path.iterdir())


def test_a_failure_leaves_the_old_set(tmp_path):
    write_record_set(tmp_path, IMAGES, 3)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def failing_images() -> Iterator[tuple[int, bytes]]:
        yield IMAGES[0]
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_record_set(tmp_path, failing_images(), 3)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_images_are_streamed(tmp_path):
    megabyte = 1 << 20

    def images() -> Iterator[tuple[int, bytes]]:
        for number in range(40):
            yield 0, JPEG + bytes([number]) * megabyte

    tracemalloc.start()
    try:
        write_record_set(tmp_path, images(), 1)
        assert tracemalloc.get_traced_memory()[1] < 10 * megabyte
    finally:
        tracemalloc.stop()


def test_a_set_without_people_is_refused(tmp_path):
    with pytest.raises(ValueError, match="^num_classes: must be at least 1, got 0; give the num"):
        write_record_set(tmp_path / "set", IMAGES, 0)
    assert not (tmp_path / "set").exists()


def test_keys_that_float32_cannot_hold_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(writer, "MAX_KEYS", 7)
    write_record_set(tmp_path / "fits", IMAGES, 3)
    monkeypatch.setattr(writer, "MAX_KEYS", 6)
    with pytest.raises(ValueError) as caught:
        write_record_set(tmp_path / "set", IMAGES, 3)
    assert str(caught.value) == (
        f"{tmp_path}/set: a set with a header record has at most 6 keys, got 7; write the set with "
        "header=False"
    )
    assert not list((tmp_path / "set").iterdir())
    assert write_record_set(tmp_path / "set", IMAGES, 3, header=False) == 3


def test_an_image_that_is_too_long_for_a_record_is_refused(monkeypatch):
    monkeypatch.setattr(writer.recordio, "MAX_LENGTH", 8)
    assert b"".join(frame(bytes(8)))[8:] == bytes(8)
    with pytest.raises(ValueError) as caught:
        list(frame(bytes(9)))
    assert str(caught.value) == "record: at most 8 bytes are possible, got 9; shrink the image"
