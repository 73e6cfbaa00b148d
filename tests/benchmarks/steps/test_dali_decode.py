# SPDX-License-Identifier: Apache-2.0
"""The upper bound of loaders with DALI."""

from __future__ import annotations

from itertools import islice

from benchmarks.steps.dali_decode import decode_alone
from pipeline.records import open_records
from pipeline.records.index_cache import write_image_index


def test_batches_are_read_and_decoded_without_end(tiny_records, tmp_path):
    records = open_records(tiny_records, tmp_path)
    write_image_index(records, tmp_path / "images.idx")
    batches = decode_alone(records.files[0], tmp_path / "images.idx", 50, 1)
    assert list(islice(batches, 5)) == [None] * 5  # into the third epoch
