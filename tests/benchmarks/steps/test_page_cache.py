# SPDX-License-Identifier: Apache-2.0
"""A dropped file is not in the page cache; what is read from disk is counted."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.steps import page_cache


def dropped(rec: Path) -> None:
    """Drop a file's pages, or skip the test."""
    try:
        page_cache.drop(rec)
    except RuntimeError:
        pytest.skip("this file system keeps its files in memory")


def test_what_is_dropped_is_not_in_memory(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(bytes(1 << 20))
    assert page_cache.cached_fraction(path) == 1
    dropped(path)
    assert page_cache.cached_fraction(path) <= page_cache.MAX_CACHED_FRACTION
