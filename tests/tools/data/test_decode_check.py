# SPDX-License-Identifier: Apache-2.0
"""Decoding of all images: batches, pixels and images of other formats."""

from __future__ import annotations

import zlib

import cv2
import numpy as np
import pytest

import ops
from pipeline.records.open import open_records
from pipeline.records.reader import RecordReader
from pipeline.records.writer import write_record_set
from tests.tools.data.planted_faults import SIZE, face, jpeg
from tools.data import decode_check
from tools.data.decode_check import DecodeCheck
from tools.data.findings import Findings


@pytest.mark.parametrize("compiled", [True, False])
def test_batches_have_the_pixels_and_checksums_of_their_images(tmp_path, monkeypatch, compiled):
    monkeypatch.setattr(decode_check, "BATCH_IMAGES", 4)
    images = [jpeg(face(0, shot)) for shot in range(11)]
    write_record_set(tmp_path, [(0, image) for image in images], 1, image_size=SIZE)
    kernels = ops.compiled() if compiled else None
    reader = RecordReader(open_records(tmp_path, tmp_path), kernels)
    check = DecodeCheck(reader, kernels, 2, Findings())
    batches = [b._replace(pixels=b.pixels.copy()) for b in check(np.arange(11))]
    assert [len(batch.rows) for batch in batches] == [4, 4, 3]
    pixels = np.concatenate([batch.pixels for batch in batches])
    for image, found in zip(images, pixels, strict=True):
        wanted = cv2.imdecode(np.frombuffer(image, np.uint8), cv2.IMREAD_COLOR)
        np.testing.assert_array_equal(found[:, :, ::-1], wanted)
    assert all(batch.sound.all() for batch in batches)
    assert np.concatenate([batch.sizes for batch in batches]).tolist() == [*map(len, images)]
    assert np.concatenate([b.checksums for b in batches]).tolist() == [*map(zlib.crc32, images)]


@pytest.mark.parametrize(("levels", "is_grey"), [(3, True), (12, False)])
def test_one_coloured_pixel_decides_whether_an_image_is_grey(tmp_path, levels, is_grey):
    pixels = face(0, 0, grey=True)
    pixels[13, 11, 0] = int(pixels[13, 11, 1]) + levels if pixels[13, 11, 1] < 200 else 200 - levels
    pixels[13, 11, 1] = pixels[13, 11, 2] = pixels[13, 11, 0] - levels
    image = cv2.imencode(".png", pixels)[1].tobytes()
    write_record_set(tmp_path, [(0, jpeg(face(0, 1)))] * 2, 1, image_size=SIZE)
    reader = RecordReader(open_records(tmp_path, tmp_path))
    reader.read = lambda rows: [np.frombuffer(image, np.uint8)] * len(rows)
    findings = Findings()
    list(DecodeCheck(reader, None, 1, findings)(np.arange(1)))
    assert findings.counts["grey"] == is_grey and len(findings) == is_grey
