# SPDX-License-Identifier: Apache-2.0
"""Files of a remote record set: their versions, and a .rec of another name."""

from __future__ import annotations

import fsspec
import pytest

from pipeline.records.mapped import RecordError
from pipeline.records.remote_files import RemoteSet, hide_password


def write(folder: str, *names: str) -> str:
    for name in names:
        fsspec.filesystem("memory").pipe(f"/{folder}/{name}", name.encode())
    return f"memory://{folder}"


def test_a_folder_with_one_rec_of_another_name_is_found():
    found = RemoteSet(write("one", "faces.rec", "faces.idx", "notes.txt")).find()
    assert list(found) == ["faces.idx", "faces.rec"]
    assert found["faces.rec"].size == 9


def test_a_folder_with_several_sets_is_refused_with_their_names():
    url = write("two", "a.rec", "a.idx", "b.rec", "b.idx")
    with pytest.raises(RecordError, match=r"got .rec files: a\.rec, b\.rec; name the .rec itself"):
        RemoteSet(url).find()
    assert list(RemoteSet(f"{url}/b.rec").find()) == ["b.idx", "b.rec"]


def test_the_version_of_a_file_changes_if_the_file_changes(tmp_path):
    (tmp_path / "train.rec").write_bytes(b"1")
    (tmp_path / "train.idx").write_bytes(b"1")
    before = RemoteSet(f"file://{tmp_path}").find()
    assert RemoteSet(f"file://{tmp_path}").find() == before
    (tmp_path / "train.rec").write_bytes(b"2")
    import os

    os.utime(tmp_path / "train.rec", ns=(5, 5))
    after = RemoteSet(f"file://{tmp_path}").find()
    assert after["train.rec"].version != before["train.rec"].version
    assert after["train.idx"] == before["train.idx"]


def test_a_piece_of_a_file_is_read():
    remote = RemoteSet(write("piece", "train.rec", "train.idx"))
    assert remote.read(remote.find()["train.rec"], 2, 5) == b"ain"


def test_passwords_are_hidden_in_messages():
    assert hide_password("ftp://me:secret@host/a@b") == "ftp://***@host/a@b"
    assert hide_password("s3://bucket/a@b") == "s3://bucket/a@b"
