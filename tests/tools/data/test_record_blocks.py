# SPDX-License-Identifier: Apache-2.0
"""Blocks of records: the bytes of the record writer, with keys and labels filled in later."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.records.writer import MAGIC_BYTES
from tools.data.record_blocks import frame_images, number_records, record_bytes


@pytest.mark.parametrize("special", [b"", MAGIC_BYTES, b"ab" + MAGIC_BYTES, 3 * MAGIC_BYTES])
def test_a_block_has_the_bytes_of_the_record_writer(special):
    jpegs = [bytes(range(n)) for n in range(9)] + [b"12345678" + special + b"9"]
    block = frame_images(jpegs)
    number_records(block, 70_000, np.arange(len(jpegs)))
    expected = [record_bytes(70_000 + i, float(i), jpeg) for i, jpeg in enumerate(jpegs)]
    assert block.data.tobytes() == b"".join(expected)
    assert block.sizes.tolist() == [len(record) for record in expected]


def test_a_block_without_images_is_empty():
    block = frame_images([])
    number_records(block, 1, np.zeros(0, np.int64))
    assert block.data.size == 0 and block.starts().size == 0
