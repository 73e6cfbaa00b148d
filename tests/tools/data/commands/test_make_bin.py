# SPDX-License-Identifier: Apache-2.0
"""The command make-bin: sets, their people, and what it refuses."""

from __future__ import annotations

import pickle
from pathlib import Path

import cv2
import numpy as np
import pytest

from evaluation.pairs import decode_image, read_pairs
from evaluation.people import find_people
from tools.data import __main__ as data
from tools.data.commands import make_bin


@pytest.fixture
def images(tmp_path, make_face) -> Path:
    """Return a folder with three images of each of four people."""
    for person in range(4):
        for shot in range(1, 4):
            path = tmp_path / "faces" / f"P_{person}" / f"P_{person}_{shot:04d}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(make_face(person, shot))
    return tmp_path / "faces"


def make(images: Path, text: str, *words: object) -> int:
    """Run the command with pairs of this text; return its exit code."""
    pairs = images.parent / "pairs.txt"
    pairs.write_text(text)
    arguments = ["make-bin", pairs, images, images.parent / "set.bin", *words]
    return data.main(list(map(str, arguments)))


LFW = "2\t2\n" + "".join(f"P_{p}\t1\t2\nP_{p}\t3\tP_{(p + 1) % 4}\t1\n" for p in range(4))


def test_a_set_has_the_bytes_of_the_files_in_the_order_of_the_pairs(images, capsys):
    assert make(images, LFW) == 0
    out = images.parent / "set.bin"
    with out.open("rb") as file:
        stored, same = pickle.load(file)
    assert same == [True, False] * 4
    assert stored[:4] == [
        (images / "P_0" / f"P_0_000{shot}.jpg").read_bytes() for shot in (1, 2, 3)
    ] + [(images / "P_1" / "P_1_0001.jpg").read_bytes()]
    people = find_people(read_pairs(out))
    assert people.kind == "people" and people.numbers[:4].tolist() == [0, 0, 0, 1]
    said = capsys.readouterr().out
    assert said.startswith(f"{out}: 8 pairs, 4 of one person, 112x112 pixels, 0.0 MB\n")
    assert "12 images stored byte for byte\nset.people.txt: 4 people\n" in said


def test_mxnet_decodes_the_images_as_ours(images):
    import mxnet as mx

    assert make(images, LFW) == 0
    for image in read_pairs(images.parent / "set.bin").images:
        ours = decode_image(image, (112, 112))
        np.testing.assert_array_equal(mx.image.imdecode(image).asnumpy(), ours)


def test_pngs_are_kept_and_other_formats_become_jpeg(images, capsys):
    pixels = cv2.imread(str(images / "P_0" / "P_0_0001.jpg"))
    for name in ("a.png", "b.bmp"):
        cv2.imwrite(str(images / name), pixels)
    assert make(images, "a.png b.bmp 1\na.png P_1/P_1_0001.jpg 0\n") == 0
    stored = read_pairs(images.parent / "set.bin").images
    assert stored[0] == (images / "a.png").read_bytes() and stored[1][:2] == b"\xff\xd8"
    assert "1 images converted from another format and encoded" in capsys.readouterr().out


def test_without_known_people_there_is_no_file_of_people(images, capsys):
    for number in range(3):
        (images / f"{number}.jpg").write_bytes((images / "P_0" / "P_0_0001.jpg").read_bytes())
    assert make(images, "0.jpg 1.jpg 1\n0.jpg 2.jpg 0\n") == 0
    assert not (images.parent / "set.people.txt").exists()
    assert "no people file is written: the pairs and the paths do not" in capsys.readouterr().out


def test_a_stale_file_of_people_is_refused(images, capsys):
    (images.parent / "set.people.txt").write_text("x\n" * 4)
    for number in range(3):
        (images / f"{number}.jpg").write_bytes((images / "P_0" / "P_0_0001.jpg").read_bytes())
    assert make(images, "0.jpg 1.jpg 1\n0.jpg 2.jpg 0\n") == 2
    assert "set.people.txt: must not exist, got an older file" in capsys.readouterr().err
    assert not (images.parent / "set.bin").exists()


def test_missing_images_are_an_error_or_left_out(images, capsys):
    (images / "P_1" / "P_1_0001.jpg").unlink()
    assert make(images, LFW) == 2
    assert capsys.readouterr().err.startswith(
        f"error: {images}: must contain the images of the pairs, got 1 missing, such as "
        "P_1/P_1_0001; add the images, or pass --skip-missing"
    )
    assert make(images, LFW, "--skip-missing") == 0
    assert len(read_pairs(images.parent / "set.bin")) == 6
    assert find_people(read_pairs(images.parent / "set.bin")).kind == "people"
    said = capsys.readouterr().out
    assert "missing: P_1/P_1_0001\n" in said and "2 of 8 pairs left out" in said


def test_images_of_another_size_need_resize(images, capsys, make_face):
    (images / "P_0" / "P_0_0001.jpg").write_bytes(make_face(0, 1, (160, 160)))
    assert make(images, LFW) == 2
    assert capsys.readouterr().err == (
        f"error: {images}/P_0/P_0_0001.jpg: must have 112x112 pixels (height x width), got "
        "160x160; align the photographs first, or pass --size or --resize\n"
    )
    assert make(images, LFW, "--resize") == 0
    assert "1 images resized and encoded" in capsys.readouterr().out
    first = read_pairs(images.parent / "set.bin").images[0]
    assert decode_image(first, (112, 112)).shape == (112, 112, 3)


def test_damaged_images_are_an_error(images, capsys):
    file = images / "P_0" / "P_0_0001.jpg"
    content = file.read_bytes()
    file.write_bytes(content[: 2 * len(content) // 3] + b"\xff\xd9")
    assert make(images, LFW, "--size", "96", "--resize") == 2
    assert f"error: {file}: is damaged, got" in capsys.readouterr().err
    file.write_bytes(b"")
    assert make(images, LFW) == 2
    assert f"error: {file}: is no image, got 0 bytes" in capsys.readouterr().err
    assert not (images.parent / "set.bin").exists()


def test_a_dry_run_writes_nothing(images, capsys):
    before = {*images.parent.rglob("*")}
    assert make(images, LFW, "--dry-run") == 0
    assert {*images.parent.rglob("*")} - before == {images.parent / "pairs.txt"}
    assert capsys.readouterr().out.startswith("dry run: nothing is written\n")


def test_folds_of_one_kind_get_a_warning(images, capsys):
    same = "".join(
        f"P_{p % 4}/P_{p % 4}_0001.jpg P_{p % 4}/P_{p % 4}_0002.jpg 1\n" for p in range(20)
    )
    different = "".join("P_0/P_0_0001.jpg P_1/P_1_0001.jpg 0\n" for _ in range(20))
    assert make(images, same + different) == 0
    assert "warning: 10 of 10 consecutive folds lack pairs of one person" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("out", "problem"),
    [
        ("set.txt", "NAME.bin: must be a file name that ends in .bin"),
        ("old.bin", "old.bin: must be a new file, got a name that exists"),
        ("nowhere/set.bin", "NAME.bin: must lie in a folder with write access"),
    ],
)
def test_wrong_outputs_are_refused(images, out, problem, capsys):
    (images.parent / "old.bin").write_text("old")
    (images.parent / "pairs.txt").write_text(LFW)
    words = ["make-bin", images.parent / "pairs.txt", images, images.parent / out]
    assert data.main(list(map(str, words))) == 2
    assert problem in capsys.readouterr().err
    assert (images.parent / "old.bin").read_text() == "old"


def test_a_set_that_cannot_be_written_leaves_no_file(images, monkeypatch, capsys):
    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(make_bin, "write_pairs", fail)
    assert make(images, LFW) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {images.parent}/set.bin: cannot be written, got No space left")
    assert {path.name for path in images.parent.iterdir()} == {"faces", "pairs.txt"}
