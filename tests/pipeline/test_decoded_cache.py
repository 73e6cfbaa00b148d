# SPDX-License-Identifier: Apache-2.0
"""The decoded cache: decoded once, shared by processes, gone when the last one leaves."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pipeline.decoded_cache import CacheError, DecodedCache
from pipeline.records import open_records

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def records(make_records, tmp_path_factory):
    return open_records(make_records(5, 4), tmp_path_factory.mktemp("scan"))


def caches(folder):
    return sorted(path.name for path in folder.glob("face-decoded-*"))


def test_pictures_are_there_for_whoever_opens_the_set(records, tmp_path):
    first, second = (DecodedCache(records, 10, tmp_path) for _ in range(2))
    assert first.missing(np.array([3, 1, 3])).tolist() == [1, 3]
    picture = np.random.default_rng(0).integers(0, 256, (1, 112, 112, 3), dtype=np.uint8)
    first.store(np.array([3]), picture)
    assert second.missing(np.array([3, 1])).tolist() == [1]
    assert (second.pictures[3] == picture[0]).all()
    for cache in (first, second):
        assert len(caches(tmp_path)) == 1
        cache.close()
    assert caches(tmp_path) == []
    first.close()  # once more does no harm


def test_what_a_killed_process_has_left_is_used_or_removed(records, make_records, tmp_path):
    program = """
import os, signal, sys
from pathlib import Path
import numpy as np
from pipeline.decoded_cache import DecodedCache
from pipeline.records import open_records
cache = DecodedCache(open_records(sys.argv[1], sys.argv[2]), 10, Path(sys.argv[2]))
cache.store(np.array([2]), np.full((1, 112, 112, 3), 7, np.uint8))
os.kill(os.getpid(), signal.SIGKILL)
"""
    command = [sys.executable, "-c", program, str(records.files[0]), str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == -9, done.stderr
    left = caches(tmp_path)
    assert len(left) == 1
    again = DecodedCache(records, 10, tmp_path)
    assert again.missing(np.arange(4)).tolist() == [0, 1, 3] and (again.pictures[2] == 7).all()
    other = open_records(make_records(5, 4), tmp_path / "scan")
    held = DecodedCache(other, 10, tmp_path)
    assert len(caches(tmp_path)) == 2  # in use: it stays
    again.close()
    held.close()
    subprocess.run(command, cwd=ROOT, capture_output=True)
    assert caches(tmp_path) == left
    DecodedCache(other, 10, tmp_path).close()
    assert caches(tmp_path) == []


def test_a_process_that_ends_without_closing_removes_it(records, tmp_path):
    program = """
import sys
from pathlib import Path
from pipeline.decoded_cache import DecodedCache
from pipeline.records import open_records
cache = DecodedCache(open_records(sys.argv[1], sys.argv[2]), 10, Path(sys.argv[2]))
"""
    command = [sys.executable, "-c", program, str(records.files[0]), str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert caches(tmp_path) == []


def test_a_set_that_does_not_fit_is_refused(records, tmp_path):
    with pytest.raises(CacheError) as caught:
        DecodedCache(records, 0, tmp_path)
    assert str(caught.value) == (
        f"data.decoded_cache_mib: the pictures of {records.name} need 1 MiB decoded, got 0; raise "
        "it, or set it to 0"
    )
    assert caches(tmp_path) == []


def test_memory_that_is_not_there_is_refused(records, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.posix_fallocate", full)
    with pytest.raises(CacheError, match=r"cannot take the 1 MiB of .*, got No space left .*shm-"):
        DecodedCache(records, 10, tmp_path)
    assert caches(tmp_path) == []
