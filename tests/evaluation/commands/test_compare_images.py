# SPDX-License-Identifier: Apache-2.0
"""Output and error messages of the command compare-images."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from evaluation import __main__ as command
from interchange import load_embedder
from tests.runs import save_run


@pytest.fixture
def images(tmp_path, make_face) -> list[str]:
    """Return the paths of images of two people."""
    paths = [tmp_path / "a.jpg", tmp_path / "b.jpg"]
    for person, path in enumerate(paths):
        path.write_bytes(make_face(person, 0))
    return list(map(str, paths))


def compare(model: Path, *words: object) -> int:
    """Run the command; return its exit code."""
    arguments = ["compare-images", "--model", model, "--device", "cpu", *words]
    return command.main(list(map(str, arguments)))


def test_an_image_shows_the_same_person_as_itself(checkpoint, images, capsys):
    assert compare(checkpoint, images[0], images[0]) == 0
    assert capsys.readouterr().out == (
        "cosine 1.0000\nsame person (threshold 0.2500, stored with the model)\n"
    )


def test_the_threshold_decides(checkpoint, images, capsys):
    pixels = np.stack([cv2.imread(path)[..., ::-1] for path in images])
    one, two = load_embedder(checkpoint, flip=True, device="cpu")(pixels)
    cosine = float(one @ two)
    for threshold, verdict in [(cosine - 1e-3, "same person"), (cosine + 1e-3, "different people")]:
        assert compare(checkpoint, *images, "--threshold", threshold) == 0
        assert capsys.readouterr().out == (
            f"cosine {cosine:.4f}\n{verdict} (threshold {threshold:.4f}, from --threshold)\n"
        )


def test_without_a_stored_threshold_there_is_no_decision(tmp_path, images, capsys):
    assert compare(save_run(tmp_path / "run"), *images) == 0
    out, error = capsys.readouterr()
    assert out.startswith("cosine ") and out.count("\n") == 1
    assert "evaluation: no threshold is stored with the model, so there is no decision; " in error


def test_bad_arguments_are_one_sentence(checkpoint, images, tmp_path, capsys):
    (tmp_path / "text.jpg").write_text("text")
    for words, problem in [
        ([images[0], tmp_path], f"{tmp_path}: must be an image file, got a folder; "),
        ([images[0], "nowhere.jpg"], "nowhere.jpg: must be an image file or a folder of image "),
        ([images[0], tmp_path / "text.jpg"], f"{tmp_path}/text.jpg: does not decode as an image, "),
        ([*images, "--threshold", "1.5"], "--threshold: must be a cosine from -1 to 1, got 1.5; "),
        ([*images, "--threshold", "nan"], "--threshold: must be a cosine from -1 to 1, got nan; "),
    ]:
        assert compare(checkpoint, *words) == 2
        out, error = capsys.readouterr()
        assert out == "" and error.splitlines()[-1].startswith(f"error: {problem}")
