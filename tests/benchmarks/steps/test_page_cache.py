# SPDX-License-Identifier: Apache-2.0
"""A dropped file is not in the page cache."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.steps import page_cache


def dropped(rec: Path) -> None:
    """Drop a file from the page cache, or skip the test on a file system in memory."""
    try:
        page_cache.drop(rec)
    except RuntimeError:
        pytest.skip("this file system keeps its files in memory")


def test_a_dropped_file_is_not_in_the_page_cache(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(bytes(1 << 20))
    assert page_cache.cached_fraction(path) == 1
    dropped(path)
    assert page_cache.cached_fraction(path) <= page_cache.MAX_CACHED_FRACTION
