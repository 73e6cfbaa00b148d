# SPDX-License-Identifier: Apache-2.0
"""Atomic writes of one file and of several."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import atomic_write as module
from atomic_write import atomic_write, atomic_write_together, sync_folder

ROOT = Path(__file__).resolve().parents[1]
KILLED = """
import os, signal, sys
from atomic_write import atomic_write
with atomic_write(sys.argv[1]) as file:
    file.write(b"half")
    file.flush()
    os.kill(os.getpid(), signal.SIGKILL)
"""


class Disk:
    """Record of the names that are synced and renamed, in order."""

    def __init__(self, monkeypatch):
        self.steps: list[tuple[str, str]] = []
        fsync, replace = os.fsync, os.replace

        def recorded_fsync(descriptor):
            name = Path(os.readlink(f"/proc/self/fd/{descriptor}")).name
            self.steps.append(("fsync", name.split(".part")[0].rpartition(".")[0] or name))
            fsync(descriptor)

        def recorded_replace(source, target):
            self.steps.append(("rename", Path(target).name))
            replace(source, target)

        monkeypatch.setattr(os, "fsync", recorded_fsync)
        monkeypatch.setattr(os, "replace", recorded_replace)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("old", [b"old", None])
def test_a_file_appears_when_the_block_ends(tmp_path, old):
    path = tmp_path / "a.bin"
    if old is not None:
        path.write_bytes(old)
    with atomic_write(str(path)) as file:
        file.write(b"new")
        file.flush()
        assert (path.read_bytes() if old else path.exists()) == (old or False)
    assert path.read_bytes() == b"new" and names(tmp_path) == ["a.bin"]


def test_text_is_utf_8(tmp_path):
    with atomic_write(tmp_path / "a.txt", "w") as file:
        file.write("größer\n")
    assert (tmp_path / "a.txt").read_bytes() == "größer\n".encode()


@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_permissions_follow_the_umask(tmp_path, umask):
    before = os.umask(umask)
    try:
        with atomic_write(tmp_path / "a") as file:
            file.write(b"new")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o666 & ~umask


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_error_leaves_the_old_file_alone(tmp_path, error):
    (tmp_path / "a").write_bytes(b"old")
    with pytest.raises(error), atomic_write(tmp_path / "a") as file:
        file.write(b"half")
        raise error
    assert (tmp_path / "a").read_bytes() == b"old" and names(tmp_path) == ["a"]


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_full_disk_leaves_the_old_file_alone(tmp_path, monkeypatch, call):
    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, call, full)
    (tmp_path / "a").write_bytes(b"old")
    with pytest.raises(OSError, match="No space left"), atomic_write(tmp_path / "a") as file:
        file.write(b"new")
    assert (tmp_path / "a").read_bytes() == b"old" and names(tmp_path) == ["a"]


def test_a_missing_folder_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError), atomic_write(tmp_path / "none" / "a"):
        raise AssertionError("never opened")


def test_the_file_is_synced_before_and_the_folder_after_the_rename(tmp_path, monkeypatch):
    disk = Disk(monkeypatch)
    with atomic_write(tmp_path / "a") as file:
        file.write(b"new")
    assert disk.steps == [("fsync", ".a"), ("rename", "a"), ("fsync", tmp_path.name)]


def test_a_killed_process_leaves_the_old_file(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"old")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", KILLED, str(path)], env=environment)
    assert done.returncode == -signal.SIGKILL
    assert path.read_bytes() == b"old"


def test_threads_do_not_share_a_temporary_file(tmp_path):
    open_together = threading.Barrier(2)

    def write(content: bytes) -> None:
        with atomic_write(tmp_path / "a") as file:
            open_together.wait(60)
            file.write(content)

    threads = [threading.Thread(target=write, args=(b"%d" % k * 9000,)) for k in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (tmp_path / "a").read_bytes() in (b"0" * 9000, b"1" * 9000)
    assert names(tmp_path) == ["a"]


def test_all_files_are_synced_before_the_first_rename(tmp_path, monkeypatch):
    disk = Disk(monkeypatch)
    with atomic_write_together([tmp_path / name for name in "abc"]) as files:
        for file, content in zip(files, (b"1", b"2", b"3"), strict=True):
            file.write(content)
    assert [(tmp_path / name).read_bytes() for name in "abc"] == [b"1", b"2", b"3"]
    steps = [("fsync", ".a"), ("fsync", ".b"), ("fsync", ".c")]
    steps += [("rename", "a"), ("rename", "b"), ("rename", "c"), ("fsync", tmp_path.name)]
    assert disk.steps == steps and names(tmp_path) == ["a", "b", "c"]


@pytest.mark.parametrize("failing", ["a", "b", "c"])
def test_the_last_file_never_exists_beside_a_mixture(tmp_path, monkeypatch, failing):
    for name in "abc":
        (tmp_path / name).write_bytes(b"old")
    replace = os.replace

    def failing_replace(source, target):
        if Path(target).name == failing:
            raise OSError(5, "Input/output error")
        replace(source, target)

    monkeypatch.setattr(module.os, "replace", failing_replace)
    with pytest.raises(OSError, match="Input/output"):
        with atomic_write_together([tmp_path / name for name in "abc"]):
            pass
    assert names(tmp_path) == ["a", "b"]


def test_an_error_leaves_all_old_files(tmp_path):
    for name in "ab":
        (tmp_path / name).write_bytes(b"old")
    with pytest.raises(ValueError), atomic_write_together([tmp_path / n for n in "ab"]):
        raise ValueError
    assert [(tmp_path / name).read_bytes() for name in names(tmp_path)] == [b"old"] * 2


def test_a_synced_folder_is_closed(tmp_path):
    before = len(os.listdir("/proc/self/fd"))
    sync_folder(tmp_path)
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_small_file_of_many_does_not_wait_for_the_disk(tmp_path, monkeypatch):
    disk = Disk(monkeypatch)
    with atomic_write(tmp_path / "a", sync=False) as file:
        file.write(b"new")
    assert disk.steps == [("rename", "a")]
    assert (tmp_path / "a").read_bytes() == b"new" and names(tmp_path) == ["a"]
