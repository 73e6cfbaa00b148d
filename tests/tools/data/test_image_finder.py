# SPDX-License-Identifier: Apache-2.0
"""Image files by the names of protocols."""

from __future__ import annotations

import pytest

from tools.data.image_finder import ImageFinder

FILES = (
    *("Al_B/Al_B_0001.jpg", "Al_B/Al_B_0002.png", "St._Jo/St._Jo_0001.jpg", "flat/x.jpg"),
    *("001/frontal/01.jpg", "001/profile/01.jpg", "Jo/5/a.1.jpg", "Jo/5/a.2.jpg", "Jo/5/a.3.jpg"),
)


@pytest.fixture
def finder(tmp_path) -> ImageFinder:
    for name in FILES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    return ImageFinder(tmp_path)


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("Al_B/Al_B_0001", "Al_B/Al_B_0001.jpg"),
        ("Al_B/Al_B_0002.jpg", "Al_B/Al_B_0002.png"),
        ("St._Jo/St._Jo_0001", "St._Jo/St._Jo_0001.jpg"),
        ("../Data/Images/001/profile/01.jpg", "001/profile/01.jpg"),
        ("/data/x/001/frontal/01.bmp", "001/frontal/01.jpg"),
        ("data\\001\\frontal\\01.jpg", "001/frontal/01.jpg"),
        ("Jo/5", "Jo/5/a.2.jpg"),
        ("x.jpg", "flat/x.jpg"),
        ("Al_B_0001", "Al_B/Al_B_0001.jpg"),
        ("01.jpg", None),  # several files have this name
        ("002/frontal/01.jpg", None),
        ("Al_B/Al_B_0003", None),
        ("/", None),
        ("", None),
        ("..", None),
    ],
)
def test_names_find_files_whatever_their_suffix_and_leading_folders(finder, name, file):
    assert finder.find(name) == (None if file is None else finder.folder / file)


def test_no_file_outside_the_folder_is_found(finder, tmp_path):
    (tmp_path.parent / "outside.jpg").write_bytes(b"")
    assert finder.find("../outside.jpg") is None
    assert finder.find(str(tmp_path.parent / "outside.jpg")) is None
