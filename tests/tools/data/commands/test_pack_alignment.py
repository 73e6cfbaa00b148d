# SPDX-License-Identifier: Apache-2.0
"""Command pack with photographs: aligned by points of a file, of a list or of a detector."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.alignment.test_yunet_detector import write_network
from tests.conftest import face
from tests.photographs import CLEAR, draw_photograph, encode
from tests.tools.data.sets import read_set, run, set_bytes, tree
from tools.data import pack_plan
from tools.data.packing import Packing

COUNT = 6


@pytest.fixture(autouse=True)
def _small_pieces(monkeypatch):
    monkeypatch.setattr(pack_plan, "_PIECE_IMAGES", 2)


@pytest.fixture
def folder(tmp_path) -> Path:
    """Return a folder of six photographs of two people, with their points beside it."""
    lines = []
    for number, (person, shot) in enumerate(CLEAR[:COUNT]):
        path = tmp_path / "in" / "ab"[number % 2] / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels, points = draw_photograph(person, shot)
        path.write_bytes(encode(pixels))
        lines.append(f"{path.relative_to(tmp_path / 'in')} " + " ".join(map(str, points.ravel())))
    (tmp_path / "points.txt").write_text("\n".join(lines))
    return tmp_path / "in"


@pytest.fixture
def points(folder) -> list[object]:
    """Return the options that align by the file of points."""
    return ["--align", "--landmarks", folder.parent / "points.txt"]


def report(folder: Path) -> dict:
    return json.loads((folder / "pack.json").read_text())


def list_line(number: int, aligned: int = 0, *, with_points: bool = True) -> str:
    """Return a line of InsightFace's .lst about a photograph of the folder."""
    points = draw_photograph(*CLEAR[number])[1]
    fields = [aligned, f"{'ab'[number % 2]}/{number}.jpg", number % 2]
    if with_points:
        fields += [0, 0, 9, 9, *points.T.ravel()]
    return "\t".join(map(str, fields)) + "\n"


def test_a_pack_that_aligns_gives_the_bytes_of_align_and_pack(folder, points, tmp_path, capsys):
    assert run("align", folder, tmp_path / "faces", *points[1:], "--quality", 90) == 0
    assert run("pack", tmp_path / "faces", tmp_path / "two") == 0
    capsys.readouterr()
    assert run("pack", folder, tmp_path / "one", *points, "--quality", 90) == 0
    out = capsys.readouterr().out
    assert "6 images aligned by five points of a face and encoded" in out
    assert "encoded images have JPEG quality 90" in out
    assert set_bytes(tmp_path / "one") == set_bytes(tmp_path / "two")
    found = report(tmp_path / "one")
    assert found["changes"] == {"aligned": 6} and found["alignment"]["min_face_px"] == 24


def test_a_list_with_points_needs_neither_option_nor_detector(folder, points, tmp_path):
    lines = [list_line(number) for number in range(COUNT)]
    (folder / "list.lst").write_text("".join(lines))
    assert run("pack", folder / "list.lst", tmp_path / "list") == 0
    assert run("pack", folder, tmp_path / "folder", *points) == 0
    names = ("train.rec", "train.idx", "property")
    assert [set_bytes(tmp_path / "list")[name] for name in names] == [
        set_bytes(tmp_path / "folder")[name] for name in names
    ]


def test_images_that_a_list_marks_as_aligned_keep_their_bytes(folder, points, tmp_path):
    (folder / "b" / "1.jpg").write_bytes(face(1, 1))
    lines = [list_line(0), list_line(1, 1), list_line(2, with_points=False)]
    (folder / "list.lst").write_text("".join(lines))
    assert run("pack", folder / "list.lst", tmp_path / "a") == 0
    found = report(tmp_path / "a")
    assert found["changes"] == {"aligned": 1, "stored": 1}
    assert found["rejected"] == [
        ["a/2.jpg", "is marked as not aligned and has no points in the list, got no option --align"]
    ]
    assert (1, face(1, 1)) in read_set(tmp_path / "a")
    assert run("pack", folder / "list.lst", tmp_path / "b", *points) == 0
    assert report(tmp_path / "b")["changes"] == {"aligned": 2, "stored": 1}
    assert read_set(tmp_path / "a")[0] == read_set(tmp_path / "b")[0]


def test_every_image_of_other_lists_is_aligned_with_the_option(folder, points, tmp_path):
    (folder / "list.csv").write_text("a/0.jpg,x\nb/1.jpg,y\n")
    assert run("pack", folder / "list.csv", tmp_path / "a", *points) == 0
    assert report(tmp_path / "a")["changes"] == {"aligned": 2}


def test_rejected_photographs_are_listed_or_give_their_centre(folder, points, tmp_path):
    (folder / "a" / "new.jpg").write_bytes(encode(draw_photograph(*CLEAR[7])[0]))
    (folder / "a" / "text.jpg").write_bytes(b"no image")
    assert run("pack", folder, tmp_path / "a", *points, "--strict") == 2
    found = report(tmp_path / "a")
    assert found["images"] == COUNT
    assert found["rejected"] == [
        [
            "a/new.jpg",
            "cannot be aligned, got a photograph without points in the file of landmarks",
        ],
        ["a/text.jpg", "is no image, got 8 bytes of another format"],
    ]
    assert run("pack", folder, tmp_path / "b", *points, "--centre") == 0
    assert report(tmp_path / "b")["changes"] == {"aligned": COUNT, "centred": 1}


def test_the_detector_finds_the_points(folder, tmp_path):
    weights = write_network(tmp_path / "yunet.onnx")
    words = ["--align", "--detector", "yunet", "--detector-weights", weights]
    assert run("pack", folder, tmp_path / "a", *words, "--min-face", 0, "--centre") == 0
    found = report(tmp_path / "a")
    assert found["images"] == COUNT and found["alignment"]["points"].startswith("yunet ")


def test_processes_and_interruptions_do_not_change_a_byte(
    folder, points, tmp_path, monkeypatch, capsys
):
    for count in (1, 3):
        assert run("pack", folder, tmp_path / str(count), *points, "--processes", count) == 0
    write = Packing._write

    def fail_late(self, number, fitted):
        if number == 2:
            raise OSError(28, "No space left on device")
        return write(self, number, fitted)

    with monkeypatch.context() as patch:
        patch.setattr(Packing, "_write", fail_late)
        assert run("pack", folder, tmp_path / "resumed", *points) == 2
    for change in (["--min-face", 30], ["--size", 96]):
        assert run("pack", folder, tmp_path / "resumed", *points, *change) == 2
        assert "holds interrupted work with other images or options" in capsys.readouterr().err
    assert run("pack", folder, tmp_path / "resumed", *points) == 0
    assert "resumed after 4 images" in capsys.readouterr().out
    assert tree(tmp_path / "1") == tree(tmp_path / "3") == tree(tmp_path / "resumed")


def test_other_points_are_other_work(folder, points, tmp_path, capsys):
    lines = [list_line(number) for number in range(COUNT)]
    (folder / "list.lst").write_text("".join(lines))
    assert run("pack", folder / "list.lst", tmp_path / "out") == 0
    fields = lines[3].split("\t")
    fields[8] = "77.5"
    (folder / "list.lst").write_text("".join([*lines[:3], "\t".join(fields), *lines[4:]]))
    assert run("pack", folder / "list.lst", tmp_path / "out") == 2
    assert "holds a set of other images or with other options" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["--landmarks", "points.txt"], "--landmarks: applies only together with --align"),
        (["--align", "--crop"], "--crop: applies only to images that are not aligned, got --align"),
        (["--align", "--min-score", "7"], "--min-score: must be from 0 to 1, got 7.0"),
        (["--align", "--detector", "yunet"], "--detector: yunet needs the file of its weights"),
        (["--align", "--landmarks", "none.txt"], "none.txt: cannot be read as points of faces"),
        (["--align", "--landmarks", "other.txt"], "--landmarks: other.txt must give points of the"),
    ],
)
def test_wrong_options_are_refused_before_anything_is_written(
    folder, tmp_path, monkeypatch, words, problem, capsys
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "other.txt").write_text("c/9.jpg 1 2 3 4 5 6 7 8 9 10\n")
    assert run("pack", folder, tmp_path / "out", *words) == 2
    assert capsys.readouterr().err.startswith(f"error: {problem}")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("end", ["\t1", "\tx" * 14, "\t0" * 13 + "\t1e9", "\t0" * 13 + "\t1e999"])
def test_a_line_with_wrong_points_is_refused(folder, tmp_path, end, capsys):
    (folder / "list.lst").write_text(list_line(0) + "0\tb/1.jpg\t1" + end + "\n")
    assert run("pack", folder / "list.lst", tmp_path / "out") == 2
    assert "a path and a label in the format InsightFace's .lst" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
