# SPDX-License-Identifier: Apache-2.0
"""Encoded images of a verification set."""

from __future__ import annotations

import os

import pytest

from tools.data.decoder_warnings import DecoderWarnings
from tools.data.image_fitting import ImageFormat
from tools.data.set_images import SetImages


def test_a_file_is_read_once_and_counted_once(tmp_path, make_face):
    path = tmp_path / "a.jpg"
    path.write_bytes(make_face(0, 0))
    with DecoderWarnings() as warnings:
        images = SetImages(ImageFormat(112, 112), False, warnings)
        first = images.read(path)
        path.unlink()
        assert images.read(path) is first
    assert images.describe() == ["1 images stored byte for byte"]


def test_files_that_are_no_images_are_one_sentence(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "text.jpg").write_text("text")
    with DecoderWarnings() as warnings:
        images = SetImages(ImageFormat(112, 112), True, warnings)
        for name, problem in (
            ("pipe.jpg", "is not a regular file, got a special file"),
            ("text.jpg", "is no image, got 4 bytes"),
            ("none.jpg", "cannot be read, got No such file or directory"),
        ):
            with pytest.raises(ValueError, match=f"{name}: {problem}"):
                images.read(tmp_path / name)
