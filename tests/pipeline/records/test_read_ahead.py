# SPDX-License-Identifier: Apache-2.0
"""Pages of mapped files."""

from __future__ import annotations

import mmap

import numpy as np

from pipeline.records.read_ahead import pages_of

PAGE = mmap.PAGESIZE


def test_pages_are_whole_together_and_inside_the_file():
    data = np.zeros(20 * PAGE + 5, dtype=np.uint8)

    def found(*pieces):
        offsets, sizes = np.array(pieces, dtype=np.int64).reshape(-1, 2).T
        return [tuple(piece) for piece in np.stack(pages_of(data, offsets, sizes), 1).tolist()]

    assert found() == []
    assert found((5, 10)) == [(0, 15)]
    assert found((PAGE + 1, PAGE), (2 * PAGE + 1, 7)) == [(PAGE, PAGE + 8)]
    assert found((9 * PAGE, 9), (3 * PAGE, 4)) == [(9 * PAGE, 9), (3 * PAGE, 4)]
    assert found((20 * PAGE + 1, 9999)) == [(20 * PAGE, 5)]
    assert found((0, 1), (50 * PAGE, 7), (4 * PAGE, 2)) == [(0, 1), (4 * PAGE, 2)]
