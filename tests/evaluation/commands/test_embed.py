# SPDX-License-Identifier: Apache-2.0
"""Files, output and error messages of the command embed."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from evaluation import __main__ as command
from interchange import load_embedder


@pytest.fixture
def images(tmp_path, make_face) -> Path:
    """Return a folder of five images, in two subfolders, in which one file is no image."""
    folder = tmp_path / "faces"
    for index, name in enumerate(("b/1.jpg", "a/2.jpg", "a/1.jpg", "b/3.jpg", "c.jpg")):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(make_face(index, 0))
    (folder / "b" / "2.jpg").write_bytes(b"no image")
    return folder


def embed(checkpoint: Path, out: Path, *words: object) -> int:
    """Run the command; return its exit code."""
    arguments = ["embed", "--model", checkpoint, "--out", out, "--device", "cpu", *words]
    return command.main(list(map(str, arguments)))


def test_embeddings_are_written_in_the_order_of_the_paths(checkpoint, images, tmp_path, capsys):
    out = tmp_path / "e.npz"
    assert embed(checkpoint, out, images, "--batch-size", 2) == 0
    said, errors = capsys.readouterr()
    assert said == (f"skipped 1 unreadable of 6 files\n{out}: 5 embeddings of 8 dimensions\n")
    problem = f"{images}/b/2.jpg: does not decode as an image, got 8 bytes"
    assert f"evaluation: skipped {problem}\n" in errors
    found = np.load(out)
    names = [f"{images}/{name}" for name in ("a/1.jpg", "a/2.jpg", "b/1.jpg", "b/3.jpg", "c.jpg")]
    assert found["names"].tolist() == names
    pixels = np.stack([cv2.imread(name)[..., ::-1] for name in names])
    embedder = load_embedder(checkpoint, device="cpu")
    raw = embedder.raw_embeddings(pixels)
    assert found["embeddings"].dtype == np.float32
    np.testing.assert_allclose(found["embeddings"], embedder(pixels), atol=1e-6)
    np.testing.assert_allclose(found["norms"], np.linalg.norm(raw, axis=1), rtol=1e-5)


def test_strict_refuses_unreadable_files_and_writes_nothing(checkpoint, images, tmp_path, capsys):
    before = {*tmp_path.rglob("*")}
    assert embed(checkpoint, tmp_path / "e.npz", images, "--strict") == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error == (
        "error: images: the files must be readable images, got 1 unreadable of 6 files; remove the "
        "unreadable files, or make them again"
    )
    assert {*tmp_path.rglob("*")} == before


def test_only_unreadable_files_are_an_error(checkpoint, images, tmp_path, capsys):
    assert embed(checkpoint, tmp_path / "e.npz", images / "b" / "2.jpg") == 2
    assert "got 1 unreadable of 1 files" in capsys.readouterr().err
    assert not (tmp_path / "e.npz").exists()


def test_images_of_another_size_need_the_option_resize(checkpoint, tmp_path, capsys, make_face):
    (tmp_path / "large.jpg").write_bytes(make_face(0, 0, (160, 160)))
    out = tmp_path / "e.npz"
    assert embed(checkpoint, out, tmp_path / "large.jpg") == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith(
        f"error: {tmp_path}/large.jpg: the model takes aligned faces of 112x112 pixels (height x "
        "width), got 160x160 (1 of 1 images); "
    )
    assert not out.exists()
    assert embed(checkpoint, out, tmp_path / "large.jpg", "--resize") == 0
    assert np.load(out)["embeddings"].shape == (1, 8)


def test_flip_adds_the_mirror_image(checkpoint, images, tmp_path):
    assert embed(checkpoint, tmp_path / "e.npz", images / "c.jpg", "--flip") == 0
    pixels = cv2.imread(str(images / "c.jpg"))[None, ..., ::-1]
    embedder = load_embedder(checkpoint, device="cpu")
    total = embedder.raw_embeddings(pixels) + embedder.raw_embeddings(pixels[:, :, ::-1])
    found = np.load(tmp_path / "e.npz")["embeddings"]
    np.testing.assert_allclose(found, total / np.linalg.norm(total), atol=1e-6)


@pytest.mark.parametrize(
    "words, problem",
    [
        (["--batch-size", "0"], "--batch-size: must be at least 1, got 0; "),
        (["--out", "nowhere/e.npz"], "--out: the folder of the file does not exist, got nowhere/"),
        (["nowhere.jpg"], "nowhere.jpg: must be an image file or a folder of image files, got no "),
        (["--model", "nowhere"], "nowhere: no checkpoint found and no model file, got neither a "),
    ],
)
def test_usage_errors_are_one_sentence(checkpoint, images, tmp_path, capsys, words, problem):
    assert embed(checkpoint, tmp_path / "e.npz", images, *words) == 2
    out, error = capsys.readouterr()
    assert out == ""
    assert error.startswith(f"error: {problem}") and error.count("\n") == 1


def test_of_many_unreadable_files_twenty_are_named(checkpoint, images, tmp_path, capsys):
    for index in range(22):
        (images / f"x{index:02}.jpg").write_bytes(b"no image")
    assert embed(checkpoint, tmp_path / "e.npz", images) == 0
    out, err = capsys.readouterr()
    assert out.startswith("skipped 23 unreadable of 28 files\n")
    lines = [line for line in err.splitlines() if line.startswith("evaluation: skipped ")]
    assert len(lines) == 21 and lines[19].startswith(f"evaluation: skipped {images}/x18.jpg: ")
    assert lines[20] == "evaluation: skipped 3 further unreadable files"


def test_notices_of_the_model_are_printed(checkpoint, images, tmp_path, capsys):
    folder = shutil.copytree(checkpoint, tmp_path / "run") / "checkpoints"
    shutil.copytree(folder / "step-00000007", folder / "step-00000040")
    with (folder / "step-00000040" / "net.params").open("ab") as file:
        file.write(b"x")
    assert embed(tmp_path / "run", tmp_path / "e.npz", images / "c.jpg") == 0
    problem = f"{folder}/step-00000040/net.params: has changed since it was saved"
    assert f"evaluation: skipped a damaged checkpoint: {problem}" in capsys.readouterr().err


@pytest.mark.parametrize("value", [0, np.nan])
def test_the_image_of_an_unusable_embedding_is_named(
    checkpoint, images, tmp_path, capsys, monkeypatch, value
):
    def embed_badly(self, pixels):
        return np.array([[1, 2], [value, 0], *[[1, 1]] * (len(pixels) - 2)], np.float32)

    monkeypatch.setattr("interchange.embedder.Embedder.raw_embeddings", embed_badly)
    assert embed(checkpoint, tmp_path / "e.npz", images) == 2
    assert capsys.readouterr().err.splitlines()[-1] == (
        f"error: {images}/a/2.jpg: the embedding cannot be normalised, got L2 norm {value:.1f}; "
        "check the weights of the model"
    )
    assert not (tmp_path / "e.npz").exists()
