# SPDX-License-Identifier: Apache-2.0
"""Output, files and error messages of python -m interchange."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from interchange import __main__ as command
from interchange import load_embedder
from interchange.open_model import open_model
from tests.runs import save_run

SIZE = (32, 16)
IMAGES = np.random.default_rng(0).integers(0, 256, (3, *SIZE, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """Return a run folder with a stored threshold of 0.25."""
    results = {"sample": {"pairs": 10, "best_threshold": 1.5}}
    folder = tmp_path_factory.mktemp("run")
    return save_run(folder, image_size=SIZE, verification=results)


def invoke(*words: object) -> int:
    """Run the command; return its exit code."""
    return command.main(list(map(str, words)))


@pytest.mark.parametrize(
    "format, words, out, files",
    [
        ("onnx", [], "a.onnx", ["a.onnx", "a.onnx.md"]),
        ("onnx", ["--scaling", "outside"], "a.onnx", ["a.onnx", "a.onnx.md"]),
        ("symbol", [], "a", ["a-symbol.json", "a-0000.params", "a.md"]),
    ],
)
def test_an_export_is_imported_with_the_same_embeddings(
    run, tmp_path, capsys, format, words, out, files
):
    out, back = tmp_path / out, tmp_path / "back"
    assert invoke("export", "--model", run, "--format", format, "--out", out, *words) == 0
    said = capsys.readouterr().out.splitlines()
    names = ", ".join(f"{tmp_path}/{name}" for name in files)
    description = "mobilefacenet, images of 32x16 pixels, embeddings of 8 dimensions"
    assert said[-2] == f"{names}: {description}"
    assert said[-1] == f"next: python -m evaluation compare-images --model {out} A.jpg B.jpg"
    assert {path.name for path in tmp_path.iterdir()} == set(files)
    assert invoke("import", out, "--out", back) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[-2:] == [
        f"{back}: {description}",
        f"next: python -m evaluation verify --model {back} --sets FILE.bin",
    ]
    expected = load_embedder(run, device="cpu", runtime="mxnet")(IMAGES)
    found = load_embedder(back, device="cpu", runtime="mxnet")
    np.testing.assert_allclose(found(IMAGES), expected, atol=1e-4)
    assert found.threshold == (pytest.approx(0.25) if format == "onnx" else None)


def test_a_file_states_threshold_and_licence(run, tmp_path):
    out = tmp_path / "a.onnx"
    words = ["--licence", "CC BY-NC 4.0", "--with-centres"]
    assert invoke("export", "--model", run, "--format", "onnx", "--out", out, *words) == 0
    card = Path(f"{out}.md").read_text()
    assert "CC BY-NC 4.0" in card and "| threshold | 0.2500 " in card
    import onnx

    model = onnx.load(out)
    stated = {item.key: item.value for item in model.metadata_props}
    assert (stated["net"], stated["licence"]) == ("mobilefacenet", "CC BY-NC 4.0")
    assert (float(stated["threshold"]), stated["embedding_size"]) == (pytest.approx(0.25), "8")
    assert [output.name for output in model.graph.output] == ["fc1", "fc7"]


def test_calibration_images_reach_the_reader(run, tmp_path, make_face, monkeypatch, capsys):
    for index in range(3):
        (tmp_path / f"{index}.jpg").write_bytes(make_face(index, 0, SIZE))
    seen = {}

    def read(path, **settings):
        seen.update(settings)
        return open_model(run)

    monkeypatch.setattr("interchange.__main__.open_model", read)
    words = ["--calibrate", tmp_path, "--image-size", "32x16", "--mean", "1,2,3", "--std", "64"]
    out = tmp_path / "out"
    assert invoke("import", "a.onnx", "--out", out, *words, "--colour-order", "bgr") == 0
    assert seen.pop("calibration_images").shape == (3, *SIZE, 3)
    expected = {"image_size": SIZE, "mean": (1.0, 2.0, 3.0), "std": 64.0, "colour_order": "bgr"}
    assert seen == expected
    assert "calibrating with 3 images\n" in capsys.readouterr().out


def test_calibration_images_have_the_size_of_the_file(run, tmp_path, make_face, monkeypatch):
    export = ["export", "--model", run, "--format", "onnx", "--out", tmp_path / "a.onnx"]
    assert invoke(*export) == 0
    (tmp_path / "0.jpg").write_bytes(make_face(0, 0, SIZE))
    seen = {}

    def read(path, **settings):
        seen.update(settings)
        return open_model(run)

    monkeypatch.setattr("interchange.__main__.open_model", read)
    words = ["--calibrate", tmp_path / "0.jpg", "--out", tmp_path / "out"]
    assert invoke("import", tmp_path / "a.onnx", *words) == 0
    assert seen["calibration_images"].shape == (1, *SIZE, 3)


def test_errors_are_one_sentence_and_write_nothing(run, tmp_path, capsys):
    (tmp_path / "text.onnx").write_text("no model")
    (tmp_path / "folder").mkdir()
    (tmp_path / "bad.jpg").write_text("no image")
    export = ["export", "--model", run, "--out"]
    for words, problem in [
        ([*export, tmp_path / "no" / "a", "--format", "onnx"], "--out: the folder above must exis"),
        ([*export, tmp_path / "folder", "--format", "onnx"], "--out: must name a file, got the fo"),
        (
            [*export, tmp_path / "a", "--format", "symbol", "--scaling", "inside"],
            "--scaling: applies to --format onnx only, got --format symbol; ",
        ),
        (
            [*export, tmp_path / "a", "--format", "safetensors"],
            f"{tmp_path}/a: arcface_torch has the networks iresnet, mobilefacenet, mbf and ",
        ),
        (
            [*export, tmp_path / "a", "--format", "safetensors", "--with-centres"],
            f"{tmp_path}/a: a safetensors file contains the network alone, got a request for cla",
        ),
        (["import", tmp_path / "text.onnx", "--out", tmp_path / "b"], f"{tmp_path}/text.onnx: is "),
        (["import", run, "--out", tmp_path / "folder"], "--out: must name a new folder, got "),
        (["import", run, "--out", tmp_path / "no" / "b"], "--out: the folder above must exist, g"),
        (
            ["import", run, "--out", tmp_path / "b", "--mean", "0"],
            f"{run}: mean does not apply, because the model is a checkpoint",
        ),
        (
            ["import", "a", "--out", tmp_path / "b", "--calibrate", tmp_path / "bad.jpg"],
            f"{tmp_path}/bad.jpg: does not decode as an image, got 8 bytes; calibrate with ",
        ),
    ]:
        before = sorted(tmp_path.rglob("*"))
        assert invoke(*words) == 2
        error = capsys.readouterr().err
        assert error.startswith(f"error: {problem}") and error.count("\n") == 1
        assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("words", [["--mean", "1,2"], ["--std", "x"], ["--image-size", "112"]])
def test_malformed_numbers_are_usage_errors(tmp_path, capsys, words):
    with pytest.raises(SystemExit) as ended:
        invoke("import", "a", "--out", tmp_path / "b", *words)
    assert ended.value.code == 2
    assert f"argument {words[0]}: must be " in capsys.readouterr().err
