# SPDX-License-Identifier: Apache-2.0
"""Photographs of a folder, and the names of their aligned images."""

from __future__ import annotations

import os

import pytest

from tools.data.photographs import count_other_files, find_photographs, output_names


def test_images_are_found_in_subfolders_and_other_files_counted(tmp_path):
    for name in ("b/ä ö.JPG", "a/1.png", "a/notes.txt", "a/.hidden.jpg", "contact_sheet.png", "c"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "a" / "loop").symlink_to(tmp_path)
    assert find_photographs(tmp_path) == ["a/1.png", "b/ä ö.JPG"]
    assert count_other_files(tmp_path) == 4


def test_a_folder_without_images_is_one_sentence(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path, problem in (
        (tmp_path, "must contain image files, got none"),
        (tmp_path / "pipe", "must be a folder of photographs, got a file"),
        (tmp_path / "nowhere", "must be a folder of photographs, got no such folder"),
    ):
        with pytest.raises(ValueError, match=problem):
            find_photographs(path)


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["a/1.jpg", "a/2.png", "b/1.JPEG"], ["a/1.jpg", "a/2.jpg", "b/1.jpg"]),
        (["1.png", "1.jpg", "1.bmp"], ["1.png.jpg", "1.jpg", "1.bmp.jpg"]),
        (["1.png", "1.png.jpg", "1.jpg"], ["1.png.2.jpg", "1.png.jpg", "1.jpg"]),
        (["x.jpg/1.png", "x.png"], ["x.jpg/1.jpg", "x.png.jpg"]),
        (["a.b/c.d.tif"], ["a.b/c.d.jpg"]),
    ],
)
def test_aligned_images_have_different_names(paths, names):
    assert output_names(paths) == names
    assert len(set(names)) == len(paths)
