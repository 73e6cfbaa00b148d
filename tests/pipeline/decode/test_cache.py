# SPDX-License-Identifier: Apache-2.0
"""The decoded cache: shared by processes, and removed by the last one that closes it."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from pipeline.decode import cache as cache_module
from pipeline.decode.cache import CacheError, DecodedCache, remove_stale_caches
from pipeline.records.open import open_records

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def records(make_records, tmp_path_factory):
    return open_records(make_records(5, 4), tmp_path_factory.mktemp("scan"))


def caches(folder):
    return sorted(path.name for path in folder.glob("face-decoded-*"))


def test_images_are_shared_and_the_last_close_removes_them(records, tmp_path):
    first, second = (DecodedCache(records, 10, tmp_path) for _ in range(2))
    assert first.missing(np.array([3, 1, 3])).tolist() == [1, 3]
    image = np.random.default_rng(0).integers(0, 256, (1, 112, 112, 3), dtype=np.uint8)
    first.store(np.array([3]), image)
    assert second.missing(np.array([3, 1])).tolist() == [1]
    assert (second.images[3] == image[0]).all()
    for cache in (first, second):
        assert len(caches(tmp_path)) == 1
        cache.close()
    assert caches(tmp_path) == []
    first.close()  # a second close has no effect


KILLED = """
import os, signal, sys
from pathlib import Path
import numpy as np
from pipeline.decode.cache import DecodedCache
from pipeline.records import open_records
cache = DecodedCache(open_records(sys.argv[1], sys.argv[2]), 10, Path(sys.argv[2]))
cache.store(np.array([2]), np.full((1, 112, 112, 3), 7, np.uint8))
os.kill(os.getpid(), signal.SIGKILL)
"""
CACHE_BYTES = 20 * (112 * 112 * 3 + 1)


@pytest.fixture(scope="module")
def stale_cache(records, tmp_path_factory):
    """Kill a process that uses a cache of the set; return the name and the bytes of the cache."""
    folder = tmp_path_factory.mktemp("killed")
    command = [sys.executable, "-c", KILLED, str(records.files[0]), str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == -9, done.stderr
    (name,) = caches(folder)
    return name, (folder / name).read_bytes()


def write(stale_cache, folder):
    """Write the stale cache to a folder; return the names of the caches there."""
    name, content = stale_cache
    (folder / name).write_bytes(content)
    assert caches(folder) == [name]
    return [name]


def test_the_cache_of_a_killed_process_is_reused_or_removed(
    records, make_records, tmp_path, stale_cache
):
    stale = write(stale_cache, tmp_path)
    again = DecodedCache(records, 10, tmp_path)
    assert again.missing(np.arange(4)).tolist() == [0, 1, 3] and (again.images[2] == 7).all()
    other = open_records(make_records(5, 4), tmp_path / "scan")
    held = DecodedCache(other, 10, tmp_path)
    assert len(caches(tmp_path)) == 2  # both are in use
    again.close()
    held.close()
    assert write(stale_cache, tmp_path) == stale
    DecodedCache(other, 10, tmp_path).close()
    assert caches(tmp_path) == []


def test_stale_caches_are_removed_unless_they_are_wanted_or_in_use(
    records, make_records, tmp_path, stale_cache
):
    stale = write(stale_cache, tmp_path)
    other = open_records(make_records(5, 4), tmp_path / "scan")
    assert remove_stale_caches(records, 10, tmp_path) == 0 and caches(tmp_path) == stale
    held = DecodedCache(records, 10, tmp_path)
    for nobody in (None, records, other):
        assert remove_stale_caches(nobody, 0, tmp_path) == 0 and caches(tmp_path) == stale
    held.close()
    for wanted, mib in ((None, 0), (None, 10), (records, 0), (other, 10)):
        write(stale_cache, tmp_path)
        assert remove_stale_caches(wanted, mib, tmp_path) == CACHE_BYTES
        assert caches(tmp_path) == []
        assert remove_stale_caches(wanted, mib, tmp_path) == 0
    write(stale_cache, tmp_path)
    with pytest.raises(CacheError, match="got 0; raise the value"):
        DecodedCache(records, 0, tmp_path)
    assert caches(tmp_path) == []


def test_of_concurrent_removals_one_counts_the_bytes(records, tmp_path, stale_cache):
    write(stale_cache, tmp_path)
    with ThreadPoolExecutor(8) as pool:
        freed = pool.map(lambda _: remove_stale_caches(None, 0, tmp_path), range(8))
    assert sum(freed) == CACHE_BYTES and caches(tmp_path) == []


def test_files_that_are_no_caches_are_ignored(records, tmp_path, stale_cache):
    write(stale_cache, tmp_path)
    here = tmp_path / caches(tmp_path)[0]
    (tmp_path / "elsewhere").write_text("mine")
    here.with_name(f"{here.name}-link").symlink_to(tmp_path / "elsewhere")
    here.with_name(f"{here.name}-folder").mkdir()
    assert remove_stale_caches(None, 0, tmp_path) == CACHE_BYTES
    assert (tmp_path / "elsewhere").read_text() == "mine"
    assert remove_stale_caches(None, 0, tmp_path / "nowhere") == 0


def test_another_version_of_dali_has_another_cache(records, tmp_path, monkeypatch):
    assert [name for name, _ in cache_module._dali_packages()] == ["nvidia-dali-cuda110"]
    first = DecodedCache(records, 10, tmp_path)
    monkeypatch.setattr(cache_module, "_dali_packages", lambda: [("nvidia-dali-cuda110", "1.35.0")])
    second = DecodedCache(records, 10, tmp_path)
    assert len(caches(tmp_path)) == 2
    first.close()
    second.close()


def test_a_process_that_ends_without_close_removes_the_cache(records, tmp_path):
    program = """
import sys
from pathlib import Path
from pipeline.decode.cache import DecodedCache
from pipeline.records import open_records
cache = DecodedCache(open_records(sys.argv[1], sys.argv[2]), 10, Path(sys.argv[2]))
"""
    command = [sys.executable, "-c", program, str(records.files[0]), str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert caches(tmp_path) == []


def test_a_set_above_the_budget_is_refused(records, tmp_path):
    with pytest.raises(CacheError) as caught:
        DecodedCache(records, 0, tmp_path)
    assert str(caught.value) == (
        f"data.decoded_cache_mib: the decoded images of {records.name} need 1 MiB, got 0; raise "
        "the value, or set 0 to run without a cache"
    )
    assert caches(tmp_path) == []


def test_a_full_file_system_is_refused(records, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.posix_fallocate", full)
    with pytest.raises(CacheError, match=r"cannot hold the 1 MiB of .*, got No space left .*shm-"):
        DecodedCache(records, 10, tmp_path)
    assert caches(tmp_path) == []


def test_a_path_that_is_no_regular_file_is_refused(records, tmp_path):
    cache = DecodedCache(records, 10, tmp_path)
    (name,) = caches(tmp_path)
    cache.close()
    os.mkfifo(tmp_path / name)
    with pytest.raises(CacheError, match=r"must be a file of this user, got .* special file; "):
        DecodedCache(records, 10, tmp_path)
    assert caches(tmp_path) == [name]


def test_a_cache_that_another_process_removes_while_it_is_opened_is_made_again(
    records, tmp_path, monkeypatch
):
    flock, removed = fcntl.flock, []

    def flock_after_removal(file, operation):
        if operation == fcntl.LOCK_SH and not removed:
            removed.extend(caches(tmp_path))
            (tmp_path / removed[0]).unlink()
        flock(file, operation)

    monkeypatch.setattr(cache_module.fcntl, "flock", flock_after_removal)
    first, second = (DecodedCache(records, 10, tmp_path) for _ in range(2))
    assert caches(tmp_path) == removed
    first.store(np.array([1]), np.full((1, 112, 112, 3), 5, np.uint8))
    assert (second.images[1] == 5).all()
    first.close()
    second.close()
    assert caches(tmp_path) == []


def test_a_cache_whose_file_was_removed_leaves_the_next_one(records, tmp_path):
    first = DecodedCache(records, 10, tmp_path)
    (name,) = caches(tmp_path)
    (tmp_path / name).unlink()
    second = DecodedCache(records, 10, tmp_path)
    first.close()
    assert caches(tmp_path) == [name]
    second.close()
    assert caches(tmp_path) == []
