# SPDX-License-Identifier: Apache-2.0
"""Files of a remote record set: their versions, and a .rec of another name."""

from __future__ import annotations

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from pipeline.records.mapped import RecordError
from pipeline.records.remote import copy_records
from pipeline.records.remote_files import RemoteSet, Unreachable, hide_password


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


class WholeFiles(MemoryFileSystem):
    """File system like a web server that ignores the range of a request."""

    protocol = ("whole", "http")

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(path.replace("whole://", "memory://"))

    def cat_file(self, path, start=None, end=None, **options):
        raise AssertionError("a request for a part of a file")

    def info(self, path, **options):
        return {**super().info(path), "created": None, "Last-Modified": "Sun, 29 Nov 2026"}


def test_a_server_that_sends_whole_files_only_is_read_in_one_stream(tmp_path):
    fsspec.register_implementation("whole", WholeFiles, clobber=True)
    files = {"train.rec": bytes(range(250)) * 40, "train.idx": b"1\t0\n"}
    for name, content in files.items():
        fsspec.filesystem("whole").pipe(f"/whole/{name}", content)
    remote = RemoteSet("whole://whole")
    file = remote.find()["train.rec"]
    assert not file.has_parts and file.version == "Last-Modified=Sun, 29 Nov 2026"
    for start in (0, 1, 999, 1000, 9_999, 10_000):
        pieces = list(remote.stream(file, start, 1000))
        assert b"".join(pieces) == files["train.rec"][start:]
        assert max(map(len, pieces), default=0) <= 1000
    copied = copy_records("whole://whole", tmp_path, say=lambda _: None)
    assert copied.rec.read_bytes() == files["train.rec"]


def test_a_stream_that_fails_is_one_sentence(monkeypatch):
    fsspec.register_implementation("whole", WholeFiles, clobber=True)
    remote = RemoteSet("whole://gone")
    monkeypatch.setattr(WholeFiles, "open", lambda *_, **__: 1 / 0)
    file = RemoteSet(write("here", "train.rec", "train.idx")).find()["train.rec"]
    with pytest.raises(Unreachable, match="whole://gone: cannot be read, got: ZeroDivisionError"):
        list(remote.stream(file, 0, 10))


@pytest.mark.parametrize(
    ("message", "command"),
    [
        ('HTTPFileSystem requires "requests" and "aiohttp" to be installed', "requests aiohttp"),
        ("Install s3fs to access S3", "s3fs"),
        ("Please install gcsfs to access Google Storage", "gcsfs"),
        ("No module named x", "the package that it names"),
    ],
)
def test_the_packages_of_a_file_system_are_named(monkeypatch, message, command):
    def fail(_):
        raise ImportError(message)

    monkeypatch.setattr(fsspec.core, "url_to_fs", fail)
    with pytest.raises(RecordError) as error:
        RemoteSet("http://host/set")
    assert str(error.value).endswith(f"install it: python -m pip install {command}")
