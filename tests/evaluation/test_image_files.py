# SPDX-License-Identifier: Apache-2.0
"""Finding, checking and reading image files."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from evaluation.image_files import (
    ImageFileError,
    check_sizes,
    find_images,
    read_image,
    read_images,
    read_photograph,
)

SIZE = (12, 10)


def write(path: Path, size: tuple[int, int] = SIZE, seed: int = 0) -> Path:
    """Write a random image; return its path."""
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(path.suffix.lower(), pixels)[1].tobytes())
    return path


def test_a_folder_is_searched_recursively_and_sorted(tmp_path):
    expected = [write(tmp_path / name) for name in ("a/2.PNG", "a/b/1.jpg", "a/c.bmp", "d.jpeg")]
    (tmp_path / "a" / "notes.txt").write_text("no image")
    (tmp_path / "a" / ".hidden.jpg").write_text("no image")
    write(tmp_path / "contact_sheet.png")  # of aligned faces
    assert find_images([tmp_path]) == expected
    assert find_images([expected[3], tmp_path]) == [expected[3], *expected[:3]]


def test_loops_of_symbolic_links_end(tmp_path):
    image = write(tmp_path / "a" / "1.png")
    (tmp_path / "a" / "loop").symlink_to(tmp_path)
    (tmp_path / "a" / "self.png").symlink_to("self.png")  # a file that cannot be resolved
    assert find_images([tmp_path]) == [image, tmp_path / "a" / "self.png"]
    assert read_image(tmp_path / "a" / "self.png", SIZE).reason.startswith("cannot be read, got ")


def test_entries_without_images_are_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "empty").mkdir()
    for name, problem in [
        ("nowhere.png", "must be an image file or a folder of image files, got no such file; "),
        ("pipe.png", "must be an image file or a folder of image files, got a special file; "),
        ("empty", "must contain image files, got none; "),
    ]:
        with pytest.raises(ImageFileError, match=f"^{tmp_path}/{name}: {problem}"):
            find_images([tmp_path / name])


def test_pixels_are_rgb(tmp_path):
    image = np.zeros((*SIZE, 3), np.uint8)
    image[..., 2] = 200  # red in OpenCV's order
    cv2.imwrite(str(tmp_path / "red.png"), image)
    assert read_image(tmp_path / "red.png", SIZE).pixels[3, 4].tolist() == [200, 0, 0]
    cv2.imwrite(str(tmp_path / "grey.png"), image[..., 2])
    assert read_image(tmp_path / "grey.png", SIZE).pixels[3, 4].tolist() == [200, 200, 200]


def test_unreadable_files_have_a_reason(tmp_path):
    whole = write(tmp_path / "whole.png").read_bytes()
    contents = {
        "empty.png": (b"", "is empty, got 0 bytes"),
        "text.jpg": (b"no image", "does not decode as an image, got 8 bytes"),
        "short.png": (whole[:-20], f"is truncated, got {len(whole) - 20} bytes"),
    }
    for name, (content, _) in contents.items():
        (tmp_path / name).write_bytes(content)
    os.mkfifo(tmp_path / "pipe.png")
    names = [*contents, "pipe.png", "gone.png", "whole.png"]
    found = list(read_images([tmp_path / name for name in names], SIZE))
    assert [image.path.name for image in found] == names
    assert [image.reason for image in found] == [
        *(reason for _, reason in contents.values()),
        *("is not a regular file, got a special file", "cannot be read, got No such file or "
          "directory", ""),
    ]  # fmt: skip
    assert [image.pixels is None for image in found] == [True] * 5 + [False]


def test_an_oversized_image_is_not_decoded(tmp_path, monkeypatch):
    monkeypatch.setattr("evaluation.image_files.MAX_IMAGE_PIXELS", 100)
    monkeypatch.setattr("evaluation.image_files.decode", None)
    image = read_image(write(tmp_path / "large.png"), SIZE)
    assert image.reason == "has more than 100 pixels, got 12x10 pixels"
    monkeypatch.setattr("evaluation.image_files.MAX_FILE_BYTES", 50)
    assert read_image(image.path, SIZE).reason.startswith("is longer than 50 bytes, got ")


def test_images_of_another_size_are_refused_or_resized(tmp_path):
    paths = [write(tmp_path / "a.png"), write(tmp_path / "b.png", (24, 20)), tmp_path / "c.png"]
    (tmp_path / "c.png").write_text("no image")
    check_sizes([paths[0], paths[2]], SIZE)
    problem = f"^{paths[1]}: the model takes aligned faces of 12x10 pixels .height x width., got "
    with pytest.raises(ImageFileError, match=problem + r"24x20 \(1 of 3 images\); pass --align "):
        check_sizes(paths, SIZE)
    with pytest.raises(ImageFileError, match=problem + "24x20; pass --align "):
        list(read_images(paths, SIZE))
    assert read_image(paths[1], SIZE, resize=True).pixels.shape == (*SIZE, 3)
    original = read_image(paths[0], SIZE).pixels
    np.testing.assert_array_equal(read_image(paths[0], SIZE, resize=True).pixels, original)


def test_a_photograph_keeps_its_size_and_is_fitted_by_a_function(tmp_path):
    path = write(tmp_path / "a.png", (24, 20))
    photograph = read_photograph(path)
    assert photograph.pixels.shape == (24, 20, 3)
    cut = read_image(path, SIZE, fit=lambda _, pixels: pixels[: SIZE[0], : SIZE[1]])
    np.testing.assert_array_equal(cut.pixels, photograph.pixels[: SIZE[0], : SIZE[1]])
    refused = list(read_images([path], SIZE, fit=lambda found, _: f"is odd, got {found.name}"))
    assert refused == [(path, None, "is odd, got a.png")]
    (tmp_path / "b.png").write_text("no image")
    assert read_photograph(tmp_path / "b.png").pixels is None
    assert read_image(tmp_path / "b.png", SIZE, fit=lambda *_: "never called").reason.startswith(
        "does not decode as an image"
    )


def test_the_check_for_truncated_data_is_used(tmp_path):
    path = write(tmp_path / "a.jpg")
    assert read_image(path, SIZE, cut_off=lambda data: False).reason == ""
    assert read_image(path, SIZE, cut_off=lambda data: True).reason.startswith("is truncated, got")


def test_a_folder_without_read_access_is_refused(tmp_path, monkeypatch):
    write(tmp_path / "a" / "1.png")
    scan = os.scandir

    def refuse(folder):
        if str(folder).endswith("/b"):
            raise PermissionError(13, "Permission denied", str(folder))
        return scan(folder)

    (tmp_path / "b").mkdir()
    monkeypatch.setattr("os.scandir", refuse)
    with pytest.raises(ImageFileError) as caught:
        find_images([tmp_path])
    assert str(caught.value) == (
        f"{tmp_path}/b: the folder cannot be listed, got Permission denied; grant read access"
    )


def test_files_without_a_size_are_left_to_the_reader(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    paths = [tmp_path / "pipe.png", tmp_path / "gone.png", write(tmp_path / "b.png", (24, 20))]
    check_sizes(paths[:2], SIZE)
    with pytest.raises(ImageFileError, match=r"^.*/b.png: .* got 24x20 \(1 of 3 images\); "):
        check_sizes(paths, SIZE)


def test_a_whole_image_with_damaged_pixels_does_not_decode(tmp_path):
    path = write(tmp_path / "a.png")
    data = bytearray(path.read_bytes())
    data[60] ^= 0xFF
    path.write_bytes(data)
    found = read_image(path, SIZE)
    assert found == (path, None, f"does not decode as an image, got {len(data)} bytes")
