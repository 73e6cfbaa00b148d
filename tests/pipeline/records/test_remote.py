# SPDX-License-Identifier: Apache-2.0
"""Local copies of remote record sets: one copy per host, resumed, checked, renewed on a change."""

from __future__ import annotations

import base64
import fcntl
import hashlib
import json
import multiprocessing
import os
import sys
from collections import namedtuple
from pathlib import Path

import fsspec
import numpy as np
import pytest

from pipeline.records import remote, remote_files
from pipeline.records.mapped import RecordError
from pipeline.records.open import open_records
from pipeline.records.remote import copy_records


class Counting(fsspec.get_filesystem_class("memory")):
    """File system in memory that counts the bytes read, and fails when asked."""

    protocol = "counting"
    cachable = True
    read_bytes, fails_after, short, changes = 0, None, False, False
    extra: dict = {}

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(str(path).replace("counting://", "memory://"))

    def cat_file(self, path, start=None, end=None, **options):
        kind = type(self)
        if kind.fails_after is not None and kind.read_bytes >= kind.fails_after:
            raise ConnectionError("the line is dead")
        piece = super().cat_file(path, start=start, end=end, **options)
        kind.read_bytes += len(piece)
        if kind.changes:
            kind.changes = False
            super().pipe_file("/bucket/faces/train.idx", piece + b"\n")
        return piece[:-1] if kind.short else piece

    def info(self, path, **options):
        return {**super().info(path, **options), **type(self).extra}


@pytest.fixture
def bucket(tiny_records, monkeypatch):
    """Return the URL of a set in a file system in memory; its class is ``Counting``."""
    fsspec.register_implementation("counting", Counting, clobber=True)
    monkeypatch.setattr(Counting, "store", {})
    monkeypatch.setattr(Counting, "pseudo_dirs", [""])
    for name, value in (("read_bytes", 0), ("fails_after", None), ("short", False)):
        monkeypatch.setattr(Counting, name, value)
    monkeypatch.setattr(Counting, "changes", False)
    monkeypatch.setattr(Counting, "extra", {})
    monkeypatch.setattr(remote, "PIECE_BYTES", 10_000)
    system = fsspec.filesystem("counting")
    for name in ("train.rec", "train.idx", "property"):
        system.pipe(f"/bucket/faces/{name}", (tiny_records / name).read_bytes())
    return "counting://bucket/faces"


@pytest.fixture
def copy(bucket, tmp_path):
    """Return a function that copies the set, and the list of sentences that it said."""
    said: list[str] = []

    def copy(url=bucket):
        Counting.read_bytes = 0
        return copy_records(url, tmp_path / "cache", say=said.append)

    copy.said = said
    return copy


def size_of(folder: Path) -> int:
    names = ("train.rec", "train.idx", "property")
    return sum((folder / name).stat().st_size for name in names)


def refused(copy, *arguments) -> str:
    with pytest.raises(RecordError) as error:
        copy(*arguments)
    text = str(error.value)
    assert "\n" not in text and " got" in text and ";" in text
    return text


def test_a_remote_set_is_copied_once_and_equals_the_original(copy, tiny_records, tmp_path):
    first = copy()
    assert Counting.read_bytes == size_of(tiny_records) and not first.notices
    assert len(copy.said) == 1 and copy.said[0].startswith("copying counting://bucket/faces to")
    second = copy()
    assert Counting.read_bytes == 0 and second == first and len(copy.said) == 1
    for name in ("train.rec", "train.idx", "property"):
        assert (first.rec.parent / name).read_bytes() == (tiny_records / name).read_bytes()
    here, there = (open_records(path, tmp_path) for path in (first.rec, tiny_records))
    assert here.checksums() == there.checksums() and here.num_classes == there.num_classes
    manifest = json.loads((first.rec.parent / "manifest.json").read_text())
    rec = manifest["files"]["train.rec"]
    assert rec["sha256"] == hashlib.sha256((tiny_records / "train.rec").read_bytes()).hexdigest()
    assert sorted(p.name for p in first.rec.parent.iterdir()) == [
        "manifest.json",
        "property",
        "train.idx",
        "train.rec",
    ]


@pytest.mark.parametrize("url", ["file://{}", "file://{}/train.rec", "memory://set/"])
def test_folders_and_files_of_the_file_systems_of_fsspec_are_copied(tiny_records, tmp_path, url):
    memory = fsspec.filesystem("memory")
    for name in ("train.rec", "train.idx"):
        memory.pipe(f"/set/{name}", (tiny_records / name).read_bytes())
    rec = copy_records(url.format(tiny_records), tmp_path / "cache", say=print).rec
    assert rec.read_bytes() == (tiny_records / "train.rec").read_bytes()
    assert (rec.parent / "property").exists() == url.startswith("file")


def test_an_interrupted_copy_resumes_where_it_ended(copy, tiny_records):
    Counting.fails_after = 60_000
    text = refused(copy)
    assert "ConnectionError the line is dead" in text and "resumes the copy" in text
    done = Counting.read_bytes
    Counting.fails_after = None
    rec = copy().rec
    assert Counting.read_bytes < size_of(tiny_records) - 20_000 and done >= 60_000
    assert rec.read_bytes() == (tiny_records / "train.rec").read_bytes()
    assert "already copied)" in copy.said[-1]


def test_a_copy_that_was_killed_between_its_renames_resumes(copy, tiny_records, monkeypatch):
    def killed(*arguments):
        raise SystemExit

    with monkeypatch.context() as patch:
        patch.setattr(remote, "sync_folder", killed)
        with pytest.raises(SystemExit):
            copy()
    rec = copy().rec
    assert Counting.read_bytes == 0
    assert rec.read_bytes() == (tiny_records / "train.rec").read_bytes()


def test_bytes_of_another_version_are_not_continued(copy, tiny_records):
    Counting.fails_after = 60_000
    refused(copy)
    Counting.fails_after = None
    changed = bytes(reversed((tiny_records / "train.rec").read_bytes()))
    fsspec.filesystem("counting").pipe("/bucket/faces/train.rec", changed)
    assert copy().rec.read_bytes() == changed


def test_a_changed_remote_set_is_noticed_and_copied_again(copy, make_records):
    first = copy()
    other = make_records(3, 4)
    system = fsspec.filesystem("counting")
    for name in ("train.rec", "train.idx", "property"):
        system.pipe(f"/bucket/faces/{name}", (other / name).read_bytes())
    second = copy()
    assert second.rec == first.rec
    assert second.rec.read_bytes() == (other / "train.rec").read_bytes()
    (notice,) = second.notices
    assert "counting://bucket/faces: the files have changed since 20" in notice
    assert copy().notices == ()


def test_a_set_that_changes_during_the_copy_is_refused(copy):
    Counting.changes = True
    assert "changed during the copy" in refused(copy)
    assert copy().rec.with_name("train.idx").read_bytes().endswith(b"\n\n")


def test_a_damaged_local_copy_is_noticed_and_copied_again(copy, tiny_records):
    rec = copy().rec
    content = bytearray(rec.read_bytes())
    content[5000] ^= 1
    rec.write_bytes(content)
    os.utime(rec, ns=(1, 1))
    found = copy()
    assert "the local copies of train.rec have changed" in found.notices[0]
    assert rec.read_bytes() == (tiny_records / "train.rec").read_bytes()
    os.utime(rec, ns=(2, 2))  # the same bytes with another time are no damage
    assert copy().notices == () and Counting.read_bytes == 0
    (rec.parent / "train.idx").write_bytes(b"0\t0\n")
    assert "train.idx" in copy().notices[0]


def test_without_a_connection_the_complete_copy_is_used_with_a_notice(copy, monkeypatch):
    def dead(*arguments, **options):
        raise PermissionError("token is too old")

    first = copy()
    monkeypatch.setattr(Counting, "info", dead)
    (notice,) = copy().notices
    assert "PermissionError token is too old; the local copy of 20" in notice
    first.rec.write_bytes(b"")
    assert "token is too old" in refused(copy)


def test_a_wrong_number_of_bytes_or_a_wrong_hash_is_refused(copy, tiny_records):
    Counting.short = True
    assert "cannot be read in pieces, got" in refused(copy)
    Counting.short = False
    digest = hashlib.md5((tiny_records / "property").read_bytes()).digest()
    Counting.extra = {"md5Hash": base64.b64encode(digest).decode()}  # wrong for the other files
    assert "the copy of train.idx is damaged" in refused(copy)
    Counting.extra = {"size": None}
    assert "states no size" in refused(copy)


def test_a_full_disk_is_refused_before_the_copy(copy, monkeypatch):
    usage = namedtuple("usage", "free")
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage(100_000))
    assert "needs 0.0 GB more, got 0.0 GB of free disk space" in refused(copy)
    assert Counting.read_bytes == 0 and not copy.said


def test_a_folder_that_cannot_be_written_is_refused(bucket, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RecordError, match=r"cannot be written, got .*data\.remote_cache"):
        copy_records(bucket, tmp_path / "file", say=print)


def _rank(tiny_records: str, cache: str, results) -> None:
    said: list[str] = []
    found = copy_records(f"file://{tiny_records}", Path(cache), say=said.append)
    copied = any("copying" in line for line in said)
    results.put((str(found.rec), copied, found.rec.read_bytes()))


def test_of_several_ranks_one_copies_and_the_others_wait(tiny_records, tmp_path):
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    arguments = (str(tiny_records), str(tmp_path), results)
    ranks = [context.Process(target=_rank, args=arguments) for _ in range(4)]
    for rank in ranks:
        rank.start()
    found = [results.get(timeout=300) for _ in ranks]
    for rank in ranks:
        rank.join()
    assert [copied for _, copied, _ in found].count(True) == 1
    assert {content for _, _, content in found} == {(tiny_records / "train.rec").read_bytes()}


def test_a_process_that_waits_says_so(copy, monkeypatch):
    folder, flock, calls = copy().rec.parent, fcntl.flock, []

    def busy(descriptor, flags):
        calls.append(flags)
        if flags & fcntl.LOCK_NB:
            raise BlockingIOError
        flock(descriptor, flags)

    monkeypatch.setattr(fcntl, "flock", busy)
    assert copy().rec.parent == folder
    assert copy.said[-1] == "waiting for another process that copies counting://bucket/faces"
    assert calls == [fcntl.LOCK_EX | fcntl.LOCK_NB, fcntl.LOCK_EX]


def test_progress_is_said_for_long_copies(copy, monkeypatch):
    monkeypatch.setattr(remote, "SECONDS_PER_LINE", 0.0)
    copy()
    assert any(line.endswith("train.rec 100%") for line in copy.said)


def test_a_missing_package_is_named_with_the_command_that_installs_it(copy, monkeypatch):
    text = refused(copy, "s3://bucket/faces")
    assert "Install s3fs" in text and text.endswith("python -m pip install s3fs")
    monkeypatch.setitem(sys.modules, "fsspec", None)
    assert refused(copy).endswith(remote_files.INSTALL)


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("counting://bucket/none", "has no train.rec, got .rec files: none"),
        ("counting://bucket/faces/other.rec", "has no file other.idx"),
        ("nope://bucket/faces", "is no URL of a file system, got: ValueError"),
        ("counting://me:secret@bucket/none", r"counting://\*\*\*@bucket/none: has no train.rec"),
    ],
)
def test_a_url_without_a_record_set_is_refused(copy, url, says):
    import re

    assert re.search(says, refused(copy, url))


def test_a_damaged_manifest_counts_as_no_copy(copy):
    rec = copy().rec
    nested = "[" * 100_000
    for text in ("", "{", "[]", nested, '{"format": 1, "files": {"train.rec": 3}, "copied": "x"}'):
        rec.with_name("manifest.json").write_text(text)
        assert copy().rec == rec and Counting.read_bytes > 0


def test_two_urls_have_two_folders(copy, tiny_records):
    folders = {copy().rec.parent, copy(f"file://{tiny_records}").rec.parent}
    assert len(folders) == 2 and np.all([f.name.startswith(("faces-", "records")) for f in folders])
