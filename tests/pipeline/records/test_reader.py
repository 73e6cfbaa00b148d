# SPDX-License-Identifier: Apache-2.0
"""Reader: images as lists and as one array, from records of one frame and of several."""

from __future__ import annotations

import numpy as np
import pytest

import ops
from pipeline.records.mapped import RecordError
from pipeline.records.open import open_records
from pipeline.records.reader import BufferRing, RecordReader
from pipeline.records.writer import MAGIC_BYTES


@pytest.fixture(scope="module")
def feed():
    ops.use("native")
    found = ops.loader_kernels()
    ops.use("plain")
    return found


# Start of a JPEG whose header states 112x112 pixels, 21 bytes.
START = b"\xff\xd8\xff\xc0\x00\x11\x08\x00\x70\x00\x70\x03" + bytes(9)


def patch(path, offset: int, content: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(content)


def holding_magic(*places: int, size: int = 400) -> bytes:
    """Return bytes that begin like a JPEG and contain the magic number at some offsets."""
    noise = bytearray(np.random.default_rng(len(places)).integers(0, 200, size, np.uint8))
    noise[:4] = b"\xff\xd8\xff\xe0"
    for place in places:
        noise[place : place + 4] = MAGIC_BYTES
    return bytes(noise)


def test_a_buffer_stays_valid_during_the_next_kept_calls():
    ring = BufferRing(2)
    first = ring.take(2, 3)
    assert first.shape == (2, 3) and first.dtype == np.uint8
    first[:] = 7
    for _ in range(2):
        ring.take(2, 3)[:] = 9
    assert (first == 7).all()
    ring.take(2, 3)[:] = 5
    assert (first == 5).all()  # reused
    assert ring.take(100, 9).shape == (100, 9)  # grows


@pytest.mark.parametrize("compiled", [True, False])
def test_gathered_images_equal_those_of_read(make_records, tmp_path, feed, compiled):
    records = open_records([make_records(4, 3), make_records(3, 2, header=False)], tmp_path)
    reader = RecordReader(records, feed if compiled else None)
    rows = np.array([17, 0, 12, 5])
    images = [image.tobytes() for image in reader.read(rows)]
    array = reader.gather(rows, BufferRing(0))
    assert isinstance(array, np.ndarray) == compiled
    for image, row in zip(images, array, strict=True):
        assert row.tobytes().startswith(image) and not any(row[len(image) + 2 :])
    listed = reader.gather(rows)
    assert isinstance(listed, list) and [image.tobytes() for image in listed] == images
    assert reader.check(rows) is None  # Exif turns none


def test_an_oversized_image_gives_a_list(make_records, tmp_path, feed):
    large = START + bytes(2_000_000) + b"\xff\xd9"
    images = [(0, START + bytes(100) + b"\xff\xd9")] * 30
    records = open_records(make_records(1, 31, samples=[*images, (0, large)]), tmp_path)
    reader = RecordReader(records, feed)
    assert isinstance(reader.gather(np.arange(31), BufferRing(0)), list)
    assert isinstance(reader.gather(np.arange(30), BufferRing(0)), np.ndarray)


@pytest.mark.parametrize("compiled", [True, False])
def test_the_mean_size_is_that_of_the_images_read(make_records, tmp_path, feed, compiled):
    images = [(0, START + bytes(977) + b"\xff\xd9")] * 300
    records = open_records(make_records(1, 300, samples=images), tmp_path)
    reader = RecordReader(records, feed if compiled else None)
    assert reader.mean_bytes == records.files[0].stat().st_size // 300
    for _ in range(40):
        reader.gather(np.arange(300), BufferRing(0))
    assert reader.mean_bytes == 1000


@pytest.mark.parametrize("row", [0, 3])
def test_a_truncated_image_is_refused_by_key(make_records, make_face, tmp_path, row):
    images = [(0, make_face(0, k)) for k in range(4)]
    images[row] = (0, images[row][1][:-600])
    folder = make_records(1, 4, samples=images)
    reader = RecordReader(open_records(folder, tmp_path))
    for call in (reader.gather, reader.check):
        with pytest.raises(RecordError) as caught:
            call(np.arange(4))
        assert str(caught.value) == (
            f"{folder}/train.rec: the image of key {row + 1} cannot be decoded; fix the record or "
            "leave its key out of the .idx"
        )
    assert len(reader.read(np.arange(4))) == 4


def test_a_rec_that_changes_while_it_is_read_is_refused(make_records, tmp_path):
    folder = make_records(4, 3)
    records = open_records(folder, tmp_path)
    reader = RecordReader(records)
    offset = int(records.offsets[3])
    patch(folder / "train.rec", offset, bytes(4))
    with pytest.raises(RecordError) as caught:
        reader.read(np.array([0, 3]))
    assert str(caught.value) == (
        f"{folder}/train.rec: holds no complete record for key 4, got offset {offset}; "
        "the .rec has changed or is damaged, make or copy it again"
    )


def test_a_damaged_second_frame_is_refused(make_records, tmp_path):
    folder = make_records(1, 1, samples=[(0, holding_magic(100))])
    records = open_records(folder, tmp_path)
    offset = int(records.offsets[0])
    second = offset + 8 + 24 + 100  # header of the second frame
    patch(folder / "train.rec", second, bytes(4))
    with pytest.raises(RecordError) as caught:
        RecordReader(records).read(np.array([0]))
    assert str(caught.value) == (
        f"{folder}/train.rec: holds a damaged record of several frames for key 1, "
        f"got offset {offset}; the .rec has changed or is damaged, make or copy it again"
    )


@pytest.mark.parametrize("header", [True, False])
@pytest.mark.parametrize("vector_labels", [True, False])
def test_records_of_several_frames_are_read_exactly(make_records, tmp_path, header, vector_labels):
    bodies = [
        holding_magic(100),
        holding_magic(4),
        holding_magic(101),  # not at a multiple of 4, so a single frame
        holding_magic(100, 104, 200),  # an empty frame
        holding_magic(396),  # at the very end
        holding_magic(8, 396),
        holding_magic(4, size=401),
        holding_magic(),
    ]
    samples = list(enumerate(bodies))
    folder = make_records(
        len(bodies), 1, samples=samples, header=header, vector_labels=vector_labels
    )
    records = open_records(folder, tmp_path)
    assert [a.tobytes() for a in RecordReader(records).read(np.arange(8))] == bodies
    assert records.labels.tolist() == list(range(len(bodies)))
    order = np.array([5, 0, 3])
    assert [a.tobytes() for a in RecordReader(records).read(order)] == [bodies[i] for i in order]


def test_a_truncated_record_of_several_frames_is_refused(make_records, tmp_path):
    folder = make_records(1, 1, samples=[(0, holding_magic(100))], header=False)
    records = open_records(folder, tmp_path)
    rec = folder / "train.rec"
    rec.write_bytes(rec.read_bytes()[: 8 + 24 + 100])
    with pytest.raises(RecordError, match="ends inside a record of several frames for key"):
        RecordReader(records).read(np.array([0]))


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("stated", [(13_000, 13_000), (112, 113), (0, 112)])
def test_another_stated_size_is_refused_before_decoding(
    make_records, make_face, tmp_path, feed, monkeypatch, compiled, stated
):
    monkeypatch.setattr("pipeline.records.reader.upright", lambda image: pytest.fail("decoded"))
    huge = bytearray(make_face(0, 2))
    frame = huge.index(b"\xff\xc0")
    huge[frame + 5 : frame + 9] = stated[0].to_bytes(2, "big") + stated[1].to_bytes(2, "big")
    images = [(0, make_face(0, 0)), (0, make_face(0, 1)), (0, bytes(huge))]
    folder = make_records(1, 3, samples=images)
    reader = RecordReader(open_records(folder, tmp_path), feed if compiled else None)
    fault = (
        f"is {stated[0]}x{stated[1]} pixels, not 112x112" if all(stated) else "cannot be decoded"
    )
    for call in (
        reader.check_sizes,
        reader.gather,
        lambda rows: reader.gather(rows, BufferRing(0)),
    ):
        call(np.array([0, 1]))
        with pytest.raises(RecordError) as caught:
            call(np.arange(3))
        assert str(caught.value) == (
            f"{folder}/train.rec: the image of key 3 {fault}; fix the record or leave its key out "
            "of the .idx"
        )
