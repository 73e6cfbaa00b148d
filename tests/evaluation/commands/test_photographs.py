# SPDX-License-Identifier: Apache-2.0
"""The option --align of embed and compare-images."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from alignment.similarity import fit_similarity, warp
from alignment.template import target_points
from evaluation import __main__ as command
from interchange import load_embedder
from tests.photographs import CLEAR, draw_photograph, encode


@pytest.fixture
def photographs(tmp_path) -> Path:
    """Return a folder of three photographs; points.txt beside it has the points of two."""
    folder, lines = tmp_path / "photographs", []
    folder.mkdir()
    for number, (person, shot) in enumerate(CLEAR[:3]):
        pixels, points = draw_photograph(person, shot)
        (folder / f"{number}.png").write_bytes(encode(pixels, ".png"))
        lines.append(f"{number}.png " + " ".join(map(str, points.ravel())))
    (tmp_path / "points.txt").write_text("\n".join(lines[:2]))
    return folder


def run(name: str, model: Path, *words: object) -> int:
    arguments = [name, "--model", model, "--device", "cpu", *words]
    return command.main(list(map(str, arguments)))


def aligned(path: Path, number: int) -> np.ndarray:
    """Return the photograph as aligned by its nominal points, RGB (112, 112, 3)."""
    pixels = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
    _, points = draw_photograph(*CLEAR[number])
    return warp(pixels, fit_similarity(points, target_points(112, 112)), (112, 112))


def test_embeddings_are_those_of_the_aligned_faces(checkpoint, photographs, tmp_path, capsys):
    out, points = tmp_path / "e.npz", tmp_path / "points.txt"
    assert (
        run("embed", checkpoint, photographs, "--out", out, "--align", "--landmarks", points) == 0
    )
    found = np.load(out)
    assert found["names"].tolist() == [f"{photographs}/{number}.png" for number in (0, 1)]
    pixels = np.stack([aligned(photographs / f"{number}.png", number) for number in (0, 1)])
    expected = load_embedder(checkpoint, device="cpu")(pixels)
    np.testing.assert_allclose(found["embeddings"], expected, atol=1e-5)
    assert (
        f"evaluation: skipped {photographs}/2.png: cannot be aligned, got a photograph without "
        "points in the file of landmarks\n"
    ) in capsys.readouterr().err


def test_the_detector_aligns_two_photographs_to_compare(checkpoint, photographs, capsys):
    images = [photographs / "0.png", photographs / "1.png"]
    assert run("compare-images", checkpoint, *images, "--align") == 0
    by_detector = float(capsys.readouterr().out.split()[1])
    assert run("compare-images", checkpoint, images[0], images[0], "--align") == 0
    assert capsys.readouterr().out.startswith("cosine 1.0000\n")
    assert by_detector < 1


def test_a_photograph_without_a_face_is_one_sentence(checkpoint, photographs, tmp_path, capsys):
    empty = tmp_path / "empty.png"
    empty.write_bytes(encode(np.full((90, 90, 3), 90, np.uint8), ".png"))
    words = (photographs / "0.png", empty, "--align")
    assert run("compare-images", checkpoint, *words) == 2
    assert capsys.readouterr().err.splitlines()[-1] == (
        f"error: {empty}: cannot be aligned, got a photograph without a face; name another "
        "photograph"
    )
    assert run("compare-images", checkpoint, *words, "--centre") == 0


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["--landmarks", "x"], "--landmarks: applies only together with --align, got --landmarks"),
        (["--centre"], "--centre: applies only together with --align"),
        (["--align", "--resize"], "--resize: is for faces that are aligned already, got --align"),
        (["--align", "--min-score", "2"], "--min-score: must be from 0 to 1, got 2.0"),
        (["--align", "--landmarks", "nowhere"], "nowhere: cannot be read as points of faces"),
    ],
)
def test_wrong_options_are_refused_before_the_model_is_read(photographs, words, problem, capsys):
    images = [photographs / "0.png", photographs / "1.png"]
    assert run("compare-images", Path("no-model"), *images, *words) == 2
    assert capsys.readouterr().err.startswith(f"error: {problem}")
    assert run("embed", Path("no-model"), *images, "--out", "e.npz", *words) == 2
    assert capsys.readouterr().err.startswith(f"error: {problem}")


def test_images_of_another_size_point_to_align(checkpoint, photographs, capsys):
    assert run("compare-images", checkpoint, photographs / "0.png", photographs / "1.png") == 2
    assert "pass --align if the images are photographs, or --resize" in capsys.readouterr().err
