# SPDX-License-Identifier: Apache-2.0
"""The choice of the reader of a model, and its settings."""

from __future__ import annotations

import os
import shutil

import numpy as np
import pytest

from interchange import InterchangeError
from interchange.file_format import ACCEPTED
from interchange.open_model import open_model
from tests.runs import TINY, save_run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Return a run folder with two checkpoints."""
    return save_run(tmp_path_factory.mktemp("run"), steps=(7, 9))


def test_a_run_stands_for_its_newest_checkpoint(run):
    model = open_model(run)
    newest = run / "checkpoints" / "step-00000009"
    assert (model.source, model.kind, dict(model.net)) == (str(newest), "checkpoint", TINY)
    assert model.image_size == (112, 112) and model.threshold is None and model.notices == ()
    older = run / "checkpoints" / "step-00000007"
    assert open_model(older).source == str(older)
    by_file = open_model(newest / "net.params")
    assert by_file.source == str(newest)
    np.testing.assert_equal(dict(by_file.parameters), dict(model.parameters))


def test_a_path_without_a_model_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "empty").mkdir()
    for name, problem in [
        ("nowhere", "no checkpoint found and no model file, got neither a file nor a folder of"),
        ("pipe", "no checkpoint found and no model file, got a special file; "),
        ("empty", "no checkpoint found, got a folder without manifest.json "),
    ]:
        with pytest.raises(ValueError, match=f"^{tmp_path}/{name}: {problem}"):
            open_model(tmp_path / name)
    with pytest.raises(InterchangeError) as error:
        open_model(tmp_path / "nowhere")
    assert str(error.value).endswith(f"; name {ACCEPTED}")


def test_an_unreadable_file_is_one_sentence(tmp_path, monkeypatch):
    path = tmp_path / "model.onnx"
    path.write_bytes(b"x")

    def refuse(*_):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("interchange.open_model.find_format", refuse)
    with pytest.raises(InterchangeError, match=f"^{path}: the model cannot be read, got Permissio"):
        open_model(path)


def test_a_symbol_of_another_name_is_refused(tmp_path):
    (tmp_path / "symbol.json").write_text('{"nodes": []}')
    with pytest.raises(InterchangeError, match="must end in -symbol.json, got 'symbol.json'; "):
        open_model(tmp_path / "symbol.json")


def test_settings_that_do_not_apply_are_refused(run, tmp_path):
    with pytest.raises(InterchangeError, match="mean does not apply, because the model is a check"):
        open_model(run, mean=127.5)
    path = shutil.copy(run / "checkpoints" / "step-00000007" / "net.params", tmp_path / "a.params")
    images = np.zeros((1, 112, 112, 3), np.uint8)
    with pytest.raises(InterchangeError, match="does not apply, because the model is not an ONNX"):
        open_model(path, calibration_images=images)
