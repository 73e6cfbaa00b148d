# SPDX-License-Identifier: Apache-2.0
"""Images with the same bytes: equal checksums alone do not suffice."""

from __future__ import annotations

import numpy as np

from tools.data.exact_duplicates import find_exact_duplicates


def test_equal_bytes_are_found_and_equal_checksums_of_other_bytes_are_not():
    images = [b"aa", b"bb", b"aa", b"cc", b"bb", b"aa", None, None]
    checksums = np.array([1, 1, 1, 2, 1, 1, 0, 0])
    sizes = np.array([2, 2, 2, 2, 2, 2, 0, 0])
    rows, firsts = find_exact_duplicates(checksums, sizes, lambda row: images[row])
    assert rows.tolist() == [2, 4, 5] and firsts.tolist() == [0, 1, 0]


def test_a_set_without_duplicates_reads_no_image():
    def read(row):
        raise AssertionError

    rows, _ = find_exact_duplicates(np.array([3, 1, 2]), np.array([5, 5, 5]), read)
    assert rows.tolist() == []
