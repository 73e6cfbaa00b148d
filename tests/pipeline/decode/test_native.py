# SPDX-License-Identifier: Apache-2.0
"""The compiled decoder with its fallback to DALI: pixels and planes."""

from __future__ import annotations

import cv2
import mxnet as mx
import numpy as np
import pytest

import ops
from pipeline.decode.dali import MEAN, STD
from pipeline.decode.native import JpegFallbackDecoder
from pipeline.records import RecordError, RecordReader, open_records
from pipeline.records.reader import BufferRing

COUNT = 12


@pytest.fixture(scope="module")
def records(make_records, make_face, tmp_path_factory):
    """Return a set; the compiled decoder skips the first image, two in a row and the last."""

    def made(number):
        jpeg = make_face(number, 0, (64, 48))
        if number not in (0, 4, 5, COUNT - 1):
            return jpeg
        pixels = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
        return cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[1].tobytes()

    images = [(number, made(number)) for number in range(COUNT)]
    folder = make_records(COUNT, 1, samples=images, image_size=(64, 48))
    return open_records(folder, tmp_path_factory.mktemp("scan"))


def decoder_of(records, compiled=True):
    ops.use("native")
    kernels = ops.loader_kernels()
    reader = RecordReader(records, kernels)
    return JpegFallbackDecoder(
        reader, max_images=COUNT, threads=2, kernels=kernels if compiled else None
    )


def expected_pixels(records):
    jpegs = RecordReader(records).read(np.arange(COUNT))
    return np.stack([cv2.imdecode(jpeg, cv2.IMREAD_COLOR)[:, :, ::-1] for jpeg in jpegs])


@pytest.mark.parametrize("compiled", [True, False])
def test_pixels_are_those_of_libjpeg_turbo(records, compiled):
    decoder = decoder_of(records, compiled)
    buffers, rows = BufferRing(1), np.arange(COUNT)[::-1].copy()
    out = decoder.pixels_in(buffers, COUNT)
    assert out.shape == (COUNT, 64, 48, 3)
    found = decoder.start_pixels(rows, out)()
    assert found is out and (found == expected_pixels(records)[::-1]).all()
    decoder.close()


def test_several_batches_are_decoded_at_once(records):
    decoder = decoder_of(records)
    parts = np.split(np.arange(COUNT), 3)
    buffers = BufferRing(3)
    started = [decoder.start_pixels(p, decoder.pixels_in(buffers, len(p))) for p in parts]
    assert (np.concatenate([finish() for finish in started]) == expected_pixels(records)).all()
    decoder.close()


def test_planes_are_normalised_and_mirrored(records):
    decoder = decoder_of(records)
    mirror = np.arange(COUNT) % 3 == 0
    planes = decoder.start_planes(np.arange(COUNT), mirror, mx.cpu())()
    pixels = expected_pixels(records).astype(np.float32)
    pixels[mirror] = pixels[mirror, :, ::-1]
    expected = ((pixels - MEAN) / STD).transpose(0, 3, 1, 2)
    assert planes.dtype == np.float32 and np.abs(planes.asnumpy() - expected).max() < 1e-6
    decoder.close()


@pytest.mark.parametrize("start", ["pixels", "planes"])
def test_a_cut_off_image_is_named_by_its_key(make_records, make_face, tmp_path, start):
    jpegs = [make_face(number, 0) for number in range(4)]
    at = jpegs[2].index(b"\xff\xda")
    jpegs[2] = jpegs[2][: (at + len(jpegs[2])) // 2] + b"\xff\xd9"
    records = open_records(make_records(4, 1, samples=list(enumerate(jpegs))), tmp_path)
    decoder, rows = decoder_of(records), np.arange(4)
    if start == "pixels":
        finish = decoder.start_pixels(rows, decoder.pixels_in(BufferRing(0), 4))
    else:
        finish = decoder.start_planes(rows, np.zeros(4, bool), mx.cpu())
    with pytest.raises(RecordError, match=rf"key {records.keys[2]} is cut off, got an end-of-im"):
        finish()
    decoder.close()
