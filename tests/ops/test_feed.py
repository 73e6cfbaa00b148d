# SPDX-License-Identifier: Apache-2.0
"""Compiled functions for loaders, compared with NumPy."""

from __future__ import annotations

import ctypes
from pathlib import Path

import mxnet as mx
import numpy as np
import pytest

import ops
from ops.build import LEVELS
from pipeline.decode.to_mxnet import Normalizer
from pipeline.records.open import RecordError, open_records
from pipeline.records.reader import BufferRing, RecordReader
from pipeline.records.recordio import map_rec
from tests.ops.levels import check_at

ROOT = Path(__file__).resolve().parents[2]
SIZES = [(1, 1), (3, 15), (2, 16), (5, 17), (112, 112), (7, 40)]
MEAN, STD = 127.5, 128.0


@pytest.fixture
def feed():
    ops.use("native")
    found = ops.loader_kernels()
    assert found is not None
    return found


def normalised(feed, images, rows, mirror, shift=0):
    """Return normalised images (N, H, W, 3); ``shift`` moves the result off its alignment."""
    size = images.shape[1:3]
    shape = (len(rows), 3, *size)
    memory = np.full(np.prod(shape) + 32, np.nan, dtype=np.float32)
    begin = -memory.ctypes.data // 4 % 16 + shift  # `shift` floats above a multiple of 64 bytes
    out = memory[begin : begin + np.prod(shape)]
    address = images.ctypes.data
    feed.normalise(address, rows, mirror, size, MEAN, STD, out.ctypes.data)
    rest = np.delete(memory, np.arange(begin, begin + np.prod(shape)))
    assert np.isnan(rest).all()  # nothing is written outside the result
    return out.reshape(shape)


def expected(images, rows, mirror):
    chosen = images[rows].astype(np.float64)
    chosen[mirror] = chosen[mirror][:, :, ::-1]
    return ((chosen - MEAN) / STD).transpose(0, 3, 1, 2).astype(np.float32)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("shift", [0, 1, 8])
def test_planes_are_the_pixels_mirrored_and_normalised(feed, size, shift):
    random = np.random.default_rng(size)
    images = random.integers(0, 256, (9, *size, 3), dtype=np.uint8)
    rows, mirror = random.integers(0, 9, 13), random.random(13) < 0.5
    found = normalised(feed, images, rows, mirror, shift)
    assert (found == expected(images, rows, mirror)).all()


LEVEL = """
import sys
import numpy as np
import ops
from tests.ops.test_feed import SIZES, expected, normalised
print(ops.use("native"))
random = np.random.default_rng(0)
for size in SIZES:
    images = random.integers(0, 256, (5, *size, 3), dtype=np.uint8)
    rows, mirror = random.integers(0, 5, 8), random.random(8) < 0.5
    found = normalised(ops.loader_kernels(), images, rows, mirror)
    assert (found == expected(images, rows, mirror)).all()
"""


@pytest.mark.parametrize("level", LEVELS)
def test_every_instruction_set_gives_the_same_results(level):
    check_at(level, LEVEL)


def test_gathered_images_end_with_a_marker_and_zeros(feed, make_records, tmp_path):
    folders = [make_records(4, 3, vector_labels=True), make_records(3, 2, header=False)]
    records = open_records(folders, tmp_path)
    reader, plain = RecordReader(records, feed), RecordReader(records)
    rows = np.random.default_rng(0).permutation(len(records))
    memory = BufferRing(1)
    memory.take(20, 3000)[:] = 0xAB  # contents of an earlier batch
    memory.take(20, 3000)[:] = 0xAB
    gathered, read = reader.gather(rows, memory), plain.read(rows)
    assert gathered.shape == (len(rows), max(map(len, read)) + 2)
    for row, image in zip(gathered, read, strict=True):
        assert (row[: len(image)] == image).all()
        assert row[len(image) :].tolist() == [0xFF, 0xD9] + [0] * (len(row) - len(image) - 2)


def test_a_missing_record_is_named_and_no_byte_after_the_file_is_read(feed, make_records, tmp_path):
    records = open_records(make_records(3, 2), tmp_path)
    data = map_rec(records.files[0])
    offsets = np.array([records.offsets[0], 4, -1, len(data) - 4, 10 * len(data)])
    addresses, sizes = feed.find_images(data, offsets)
    (image,) = RecordReader(records).read(np.arange(1))
    assert ctypes.string_at(int(addresses[0]), int(sizes[0])) == image.tobytes()
    assert sizes[1:].tolist() == [-1] * 4 and not addresses[1:].any()
    records.offsets[2] += 4
    reader = RecordReader(records, feed)
    with pytest.raises(RecordError, match=r"holds no complete record for key 3"):
        reader.gather(np.arange(4), BufferRing(1))
    assert (reader.find(np.arange(4))[1] > 0).tolist() == [True, True, False, True]


def test_records_in_parts_and_oversized_images_are_read_one_by_one(
    feed, make_records, make_face, tmp_path
):
    magic = (0xCED7230A).to_bytes(4, "little")
    whole = make_face(0, 0)
    parted = whole[:400] + magic * 2 + whole[400:]
    oversized = whole + bytes(2_000_000)
    for odd in (parted, oversized):
        images = [(0, whole), (0, odd), (0, whole)] + [(0, whole)] * 30
        records = open_records(make_records(1, 3, samples=images), tmp_path)
        rows = np.arange(len(records))
        found = RecordReader(records, feed).gather(rows, BufferRing(1))
        assert isinstance(found, list)
        assert [image.tobytes() for image in found] == [jpeg for _, jpeg in images]


def decoded(jpegs):
    from pipeline.decode.dali import DecodeGraph
    from pipeline.sampling.augmentation import NO_AUGMENTATION

    graph = DecodeGraph(len(jpegs), "cpu", 1, 1, None, NO_AUGMENTATION, finish="bytes")
    graph.feed(jpegs, None)
    return np.array(graph.take().as_tensor())


def test_bytes_after_an_image_change_no_pixel(feed, make_records, make_face, tmp_path):
    face = make_face(1, 1)
    kinds = [face, face + bytes(3), face + b"\xff" * 5, face + b"a comment\n", make_face(0, 0)]
    images = [(0, jpeg) for jpeg in kinds]
    records = open_records(make_records(1, 5, samples=images), tmp_path)
    reader, rows = RecordReader(records, feed), np.arange(5)
    array, each = reader.gather(rows, BufferRing(1)), reader.gather(rows)
    assert isinstance(array, np.ndarray) and isinstance(each, list)
    found = decoded(array)
    assert (found == decoded(each)).all()
    assert (found[:4] == found[0]).all()


@pytest.mark.parametrize("part", [1, 0.6, 0.1])
@pytest.mark.parametrize("behind", [b"", bytes(500), b"\xff\xd8 trailing"])
@pytest.mark.parametrize("compiled", [True, False])
def test_cut_off_images_are_refused(
    feed, make_records, make_face, tmp_path, part, behind, compiled
):
    face = make_face(1, 1)
    cut = face[: int((len(face) - 2) * part)] + behind
    images = [(0, jpeg) for jpeg in (face, face, cut, face)]
    records = open_records(make_records(1, 4, samples=images), tmp_path)
    reader = RecordReader(records, feed if compiled else None)
    with pytest.raises(RecordError) as caught:
        reader.gather(np.arange(3, -1, -1), BufferRing(1))
    assert str(caught.value) == (
        f"{records.name}: the image of key 3 cannot be decoded; fix the record or leave its key "
        "out of the .idx"
    )
    assert len(reader.gather(np.array([0, 1, 3]), BufferRing(1))) == 3
    assert reader.read(np.array([2]))[0].tobytes() == cut  # unchanged


def test_memory_is_reused_after_the_last_reference_to_its_array(feed):
    normalise = Normalizer(feed, (32, 32), mx.cpu(), threads=2)
    images = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3), dtype=np.uint8)

    def batch(first):
        rows = (first + np.arange(4)) % 8
        return normalise(images.ctypes.data, rows, np.zeros(4, dtype=bool))

    def address(array):
        pointer = ctypes.c_void_p()
        mx.base.check_call(mx.base._LIB.MXNDArrayGetData(array.handle, ctypes.byref(pointer)))
        return pointer.value

    weight = mx.nd.ones((4, 3, 32, 32))
    weight.attach_grad()
    array = batch(0)
    place, values = address(array), array.asnumpy()
    with mx.autograd.record():
        product = (weight * array).sum()
    del array  # the graph still refers to it, for backward
    others = [batch(n) for n in range(1, 5)]
    assert place not in [address(other) for other in others]
    product.backward()
    assert (weight.grad.asnumpy() == values).all()
    del product
    mx.nd.waitall()
    assert place in [address(other) for other in [batch(n) for n in range(8)]]
    for n, other in enumerate(others, start=1):
        assert (
            other.asnumpy() == expected(images, (n + np.arange(4)) % 8, np.zeros(4, bool))
        ).all()
