# SPDX-License-Identifier: Apache-2.0
"""The command align: what it writes, lists, refuses and resumes."""

from __future__ import annotations

import csv
import os
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from alignment.similarity import fit_similarity, warp
from alignment.template import target_points
from tests.photographs import CLEAR, draw_photograph, encode, render_face
from tools.data import __main__ as data
from tools.data.alignment_journal import FILE_NAME


@pytest.fixture
def folder(tmp_path) -> Path:
    """Return a folder of four photographs, with their points in points.txt beside it."""
    folder, lines = tmp_path / "photographs", []
    for number, (person, shot) in enumerate(CLEAR[:4]):
        path = folder / f"person {person}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels, points = draw_photograph(person, shot)
        path.write_bytes(encode(pixels, ".png"))
        lines.append(f"{path.relative_to(folder)} " + " ".join(map(str, points.ravel())))
    (tmp_path / "points.txt").write_text("\n".join(lines))
    return folder


def align(folder: Path, *words: object, points: bool = True) -> int:
    """Run the command with the output folder beside the photographs; return its exit code."""
    given = ["--landmarks", folder.parent / "points.txt"] if points else []
    arguments = ["align", folder, folder.parent / "out", *given, *words]
    return data.main(list(map(str, arguments)))


def tree(folder: Path) -> dict[str, bytes]:
    """Return the content of all files of a folder by their paths."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def rows(out: Path) -> dict[str, dict[str, str]]:
    with (out / "alignment.csv").open(newline="") as file:
        return {row["path"]: row for row in csv.DictReader(file)}


def test_the_images_are_the_warped_photographs(folder, capsys):
    before = tree(folder)
    (folder / "notes.txt").write_text("no image")
    assert align(folder, "--quality", 100, "--sampling", "4:4:4") == 0
    out = folder.parent / "out"
    for number, (person, shot) in enumerate(CLEAR[:4]):
        found = cv2.imread(str(out / f"person {person}" / f"{number}.jpg"))
        pixels, points = draw_photograph(person, shot)
        expected = warp(pixels, fit_similarity(points, target_points(112, 112)), (112, 112))
        assert found.shape == (112, 112, 3)
        assert np.abs(found.astype(int) - expected).max() <= 12
    listed = rows(out)[f"person {CLEAR[0][0]}/0.png"]
    assert listed["status"] == "aligned" and listed["image"] == f"person {CLEAR[0][0]}/0.jpg"
    assert float(listed["x1"]) == pytest.approx(points_of(0)[0, 0], abs=0.01)
    assert cv2.imread(str(out / "contact_sheet.png")) is not None
    assert capsys.readouterr().out.splitlines() == [
        f"{out}: 4 of 4 photographs yield images of 112x112 pixels, JPEG quality 100, chroma "
        "sampling 4:4:4",
        "passed over: 1 files without a suffix of an image format",
        "list of all photographs: alignment.csv; contact sheet: contact_sheet.png",
    ]
    (folder / "notes.txt").unlink()
    assert tree(folder) == before


def points_of(number: int) -> np.ndarray:
    return draw_photograph(*CLEAR[number])[1]


def test_the_detector_finds_the_faces_and_the_result_is_independent_of_processes(folder):
    results = []
    for processes in (1, 3):
        assert align(folder, "--processes", processes, "--size", "64x48", points=False) == 0
        results.append(tree(folder.parent / "out"))
        (folder.parent / "out").rename(folder.parent / f"out{processes}")
    journals = [set(result.pop(FILE_NAME).splitlines()) for result in results]
    assert results[0] == results[1] and journals[0] == journals[1]
    pixels = cv2.imread(str(folder.parent / "out1" / f"person {CLEAR[0][0]}" / "0.jpg"))
    assert pixels.shape == (64, 48, 3)


def test_exif_orientation_is_followed_before_the_points_count(folder, tmp_path):
    pixels, points = draw_photograph(*CLEAR[0])
    turned = cv2.rotate(pixels, cv2.ROTATE_90_COUNTERCLOCKWISE)
    exif = b"Exif\0\0MM\0*" + struct.pack(">IHHHIHHI", 8, 1, 0x0112, 3, 1, 6, 0, 0)
    for jfif in (b"", encode(turned)[2:20]):
        jpeg = encode(turned)
        jpeg = jpeg[:2] + jfif + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + jpeg[20:]
        source = tmp_path / f"turned{len(jfif)}"
        source.mkdir()
        (source / "0.jpg").write_bytes(jpeg)
        file = tmp_path / "turned.txt"
        file.write_text("0.jpg " + " ".join(map(str, points.ravel())))
        out = tmp_path / f"upright{len(jfif)}"
        assert data.main(["align", str(source), str(out), "--landmarks", str(file)]) == 0
        error = cv2.imread(str(out / "0.jpg")).astype(int) - render_face(*CLEAR[0])
        assert np.abs(error).mean() < 6


def test_unusable_photographs_are_listed_and_strict_makes_them_an_error(folder, capsys):
    good = (folder / f"person {CLEAR[0][0]}" / "0.png").read_bytes()
    jpeg = encode(draw_photograph(*CLEAR[0])[0])
    bad = {
        "empty.jpg": b"",
        "text.jpg": b"no image",
        "cut.png": good[: len(good) // 2],
        "cut.jpg": jpeg[: len(jpeg) // 2],
        "holed.jpg": jpeg[: len(jpeg) // 2] + b"\xff\xd9",
        "huge.png": good[:16] + struct.pack(">II", 1 << 16, 1 << 16) + good[24:],
        "without points.png": good,
    }
    for name, content in bad.items():
        (folder / name).write_bytes(content)
    (folder / "broken link.jpg").symlink_to("nowhere")
    os.mkfifo(folder / "pipe.jpg")
    assert align(folder) == 0
    out = folder.parent / "out"
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"{out}: 4 of 13 photographs yield images")
    assert "1 photographs without points in the file of landmarks" in lines
    assert "8 unreadable files" in lines
    listed = rows(out)
    assert {name for name, row in listed.items() if not row["image"]} == {
        *bad,
        "broken link.jpg",
        "pipe.jpg",
    }
    assert listed["huge.png"]["reason"].startswith("has more than 67108864 pixels")
    assert listed["pipe.jpg"]["reason"] == "is not a regular file, got a special file"
    assert not list(out.glob("*.jpg"))
    assert align(folder, "--strict") == 2


def test_no_aligned_photograph_is_an_error(folder, capsys):
    assert align(folder, "--min-face", 9999) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {folder}: at least one photograph must be aligned, got none")


def test_a_dry_run_writes_nothing(folder, capsys):
    assert align(folder, "--dry-run") == 0
    out = capsys.readouterr().out
    assert out.startswith("dry run: nothing is written\n") and "4 of 4 photographs" in out
    assert not (folder.parent / "out").exists()


def test_a_repeated_command_aligns_only_what_is_new_or_changed(folder, capsys):
    assert align(folder) == 0
    out = folder.parent / "out"
    first = tree(out)
    kept = out / f"person {CLEAR[1][0]}" / "1.jpg"
    before = kept.stat().st_mtime_ns
    removed = out / f"person {CLEAR[2][0]}" / "2.jpg"
    removed.unlink()
    source = folder / f"person {CLEAR[0][0]}" / "0.png"
    source.write_bytes(source.read_bytes() + b"\0")
    capsys.readouterr()
    assert align(folder) == 0
    assert capsys.readouterr().out.startswith(f"{out}: continued after 4 photographs\n")
    assert kept.stat().st_mtime_ns == before
    again = tree(out)
    assert {name: again[name] for name in first if name != FILE_NAME} == {
        name: first[name] for name in first if name != FILE_NAME
    }


def test_a_killed_command_leaves_only_complete_images_and_continues(folder):
    for path in sorted(folder.rglob("*.png")):
        for copy in range(30):
            (path.parent / f"copy{copy} {path.name}").write_bytes(path.read_bytes())
    lines = (folder.parent / "points.txt").read_text().splitlines()
    for line in lines[:]:
        path, numbers = line.split(".png ")
        parent, name = path.split("/")
        lines += [f"{parent}/copy{copy} {name}.png {numbers}" for copy in range(30)]
    (folder.parent / "points.txt").write_text("\n".join(lines))
    out, points = folder.parent / "out", folder.parent / "points.txt"
    command = [sys.executable, "-m", "tools.data", "align", folder, out, "--landmarks", points]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while len(list(out.rglob("*.jpg"))) < 10:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (out / "alignment.csv").exists()
    (next(out.rglob("*.jpg")).parent / ".7.jpg.host-1.part").write_bytes(b"cut")
    for path in out.rglob("[!.]*.jpg"):
        assert path.read_bytes().endswith(b"\xff\xd9")
    # In processes of their own, as users run the command.
    assert subprocess.run(command, stdout=subprocess.DEVNULL).returncode == 0
    found = tree(out)
    (folder.parent / "out").rename(folder.parent / "resumed")
    assert subprocess.run(command, stdout=subprocess.DEVNULL).returncode == 0
    whole = tree(out)
    for result in (found, whole):
        result.pop(FILE_NAME)
    assert not [name for name in found if name.endswith(".part")]
    assert found == whole and len(whole) == 4 * 31 + 2


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["--size", "0"], "--size: must be HEIGHTxWIDTH or the side"),
        (["--quality", "101"], "--quality: must be in 1 .. 100, got 101"),
        (["--processes", "0"], "--processes: must be in 1 .. 256, got 0"),
        (["--min-score", "2"], "--min-score: must be from 0 to 1, got 2.0"),
        (["--detector", "dlib"], "--detector: must be the name of a detector, got 'dlib'"),
    ],
)
def test_wrong_options_are_refused_before_anything_is_written(folder, words, problem, capsys):
    assert align(folder, *words, points=False) == 2
    assert capsys.readouterr().err.startswith(f"error: {problem}")
    assert not (folder.parent / "out").exists()


def test_wrong_folders_are_refused(folder, tmp_path, capsys):
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "file").write_text("mine")
    for source, out, problem in (
        (folder, folder, "OUT: must not be in the source"),
        (folder, folder / "inside", "OUT: must not be in the source"),
        (
            folder,
            foreign,
            f"{foreign}: must be an empty folder or a new name, got a folder with fi",
        ),
        (folder, foreign / "file", f"{foreign}/file: must be a folder, got a file"),
        (tmp_path / "nowhere", tmp_path / "out", f"{tmp_path}/nowhere: must be a folder of photo"),
        (foreign, tmp_path / "out", f"{foreign}: must contain image files, got none"),
    ):
        assert data.main(["align", str(source), str(out)]) == 2
        assert capsys.readouterr().err.startswith(f"error: {problem}")
    assert tree(foreign) == {"file": b"mine"}
    assert not (tmp_path / "out").exists() and not (folder / "inside").exists()


def test_points_of_other_photographs_are_refused(folder, capsys):
    file = folder.parent / "points.txt"
    file.write_text(file.read_text().replace(".png", ".jpeg"))
    assert align(folder) == 2
    assert capsys.readouterr().err.startswith(f"error: --landmarks: {file} must give points of the")


def test_a_folder_with_other_settings_is_refused(folder, capsys):
    assert align(folder) == 0
    before = tree(folder.parent / "out")
    capsys.readouterr()
    assert align(folder, "--size", 64) == 2
    assert "got size [112, 112] instead of [64, 64]" in capsys.readouterr().err
    assert tree(folder.parent / "out") == before


def test_names_that_are_no_utf_8_are_aligned_and_listed(folder):
    name = os.fsdecode(b"\xff\n.png")
    (folder / name).write_bytes((folder / f"person {CLEAR[0][0]}" / "0.png").read_bytes())
    assert align(folder, "--centre") == 0
    out = folder.parent / "out"
    assert (out / os.fsdecode(b"\xff\n.jpg")).is_file()
    assert b"\xff\n.png" in (out / "alignment.csv").read_bytes()
