# SPDX-License-Identifier: Apache-2.0
"""Opening files of every kind without waiting."""

from __future__ import annotations

import os
import socket

import pytest

from regular_file import open_regular


def test_a_regular_file_is_read_also_through_a_link(tmp_path):
    (tmp_path / "file").write_bytes(b"content")
    (tmp_path / "link").symlink_to("file")
    for name in ("file", "link"):
        with open_regular(tmp_path / name) as file:
            assert file.read() == b"content"


def test_other_kinds_are_refused_at_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the name of a socket must be short
    os.mkfifo("pipe")
    (tmp_path / "zero").symlink_to("/dev/zero")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "folder").mkdir()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket")
        for name, reason in (
            ("pipe", "A special file (pipe, socket or device)"),
            ("zero", "A special file (pipe, socket or device)"),
            ("socket", "A special file (pipe, socket or device)"),
            ("folder", "Is a directory"),
            ("loop", "Too many levels of symbolic links"),
            ("nowhere", "No such file or directory"),
        ):
            with pytest.raises(OSError) as error:
                open_regular(name)
            assert error.value.strerror == reason
