# SPDX-License-Identifier: Apache-2.0
"""Lists: the content of good files, and file and line in the error for every kind of bad one."""

from __future__ import annotations

import os

import numpy as np
import pytest

from evaluation import text_lists
from evaluation.text_lists import ListError, read_integers, read_lines


def test_empty_lines_are_left_out_and_lines_keep_their_numbers(tmp_path):
    path = tmp_path / "list.txt"
    path.write_bytes("\ufeffone\r\n\n  two é \n".encode())
    assert list(read_lines(path)) == [(1, "one"), (3, "two é")]


@pytest.mark.parametrize(
    "content, problem",
    [
        (b"", "the list must not be empty, got 0 lines; fill it"),
        (b"\n \n", "the list must not be empty, got 0 lines; fill it"),
        (b"a\n" + b"x" * 5000, "line 2: must have at most 4096 bytes, got more; shorten the line"),
        (b"a\n\xff\n", "line 2: must be UTF-8 text, got byte 0xff; convert the file to UTF-8"),
        (b"a\0b\n", "line 1: must be text, got a zero byte; make the file again"),
    ],
)
def test_a_file_that_is_no_list_is_refused(tmp_path, content, problem):
    path = tmp_path / "list.txt"
    path.write_bytes(content)
    with pytest.raises(ListError) as error:
        list(read_lines(path))
    assert str(error.value) == f"{path}: {problem}"


def test_folders_pipes_missing_and_huge_files_are_refused_before_they_are_opened(
    tmp_path, monkeypatch
):
    os.mkfifo(tmp_path / "pipe")
    for name, problem in (
        ("", "must be a file, got a folder; name a file"),
        ("pipe", "must be a file, got a special file; name a file"),
        ("none", "the file cannot be read, got 'No such file or directory'; correct the path"),
    ):
        with pytest.raises(ListError, match=problem):
            list(read_lines(tmp_path / name))
    (tmp_path / "list").write_text("12345")
    monkeypatch.setattr(text_lists, "MAX_FILE_BYTES", 4)
    with pytest.raises(ListError, match="must have at most 4 bytes, got 5; name a shorter list"):
        read_integers(tmp_path / "list", ("a",))


def test_integers_are_read_as_a_table(tmp_path):
    path = tmp_path / "pairs.txt"
    path.write_text("1 2 0\n3\t4 1\n\n-5 6 1\n")
    found = read_integers(path, ("a", "b", "label"))
    assert found.dtype == np.int64 and found.tolist() == [[1, 2, 0], [3, 4, 1], [-5, 6, 1]]


def test_integers_after_a_byte_order_mark_are_read_line_by_line(tmp_path):
    path = tmp_path / "pairs.txt"
    path.write_bytes("\ufeff1 2\r\n3 4\r\n".encode())
    found = read_integers(path, ("a", "b"))
    assert found.dtype == np.int64 and found.tolist() == [[1, 2], [3, 4]]


@pytest.mark.parametrize(
    "line, problem",
    [
        ("3 4", "must have 3 values (a b label), got 2"),
        ("3 4 1 1", "must have 3 values (a b label), got 4"),
        ("3 x 1", "b must be an integer of at most 18 digits, got 'x'"),
        ("3 1.5 1", "b must be an integer of at most 18 digits, got '1.5'"),
        ("3 nan 1", "b must be an integer of at most 18 digits, got 'nan'"),
        ("3 9999999999999999999 1", "b must be an integer of at most 18 digits, got '9999999"),
        ("# 1 2", "a must be an integer of at most 18 digits, got '#'"),
    ],
)
def test_a_malformed_line_of_integers_is_named_with_file_and_number(tmp_path, line, problem):
    path = tmp_path / "pairs.txt"
    path.write_text(f"1 2 0\n\n{line}\n5 6 0\n")
    with pytest.raises(ListError) as error:
        read_integers(path, ("a", "b", "label"))
    assert str(error.value).startswith(f"{path}: line 3: {problem}")


def test_a_file_without_read_access_is_refused(tmp_path, monkeypatch):
    def refuse(path, mode):
        raise PermissionError(13, "Permission denied", str(path))

    path = tmp_path / "list.txt"
    path.write_text("one\n")
    monkeypatch.setattr("pathlib.Path.open", refuse)
    with pytest.raises(ListError) as error:
        list(read_lines(path))
    assert str(error.value) == (
        f"{path}: the file cannot be read, got 'Permission denied'; grant read access"
    )
