# SPDX-License-Identifier: Apache-2.0
"""Recognition of model files by their content, and the choice of the reader."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import zipfile

import numpy as np
import pytest

from interchange import InterchangeError
from interchange.open_model import ACCEPTED, find_format, open_model
from tests.runs import TINY, save_run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Return a run folder with two checkpoints."""
    return save_run(tmp_path_factory.mktemp("run"), steps=(7, 9))


def onnx_bytes(*fields: tuple[int, int, bytes]) -> bytes:
    """Return a Protocol Buffers message of (field number, wire type, content)."""
    message = b""
    for number, wire_type, content in fields:
        size = bytes([len(content) & 127 | 128, len(content) >> 7]) if wire_type == 2 else b""
        message += bytes([number << 3 | wire_type]) + size + content
    return message


def test_the_format_is_found_from_the_content_alone(tmp_path):
    header = json.dumps({"weight": {}}).encode()
    ir_version, graph = (1, 0, b"\x08"), (7, 2, b"graph" * 40)
    contents = {
        "arrays": [(0x112).to_bytes(8, "little") + bytes(16)],
        "torch": [pickle.dumps({"weight": 1}, protocol=2)],
        "safetensors": [len(header).to_bytes(8, "little") + header],
        "json": [b'{"nodes": []}', b' \n{"nodes": []}'],
        "onnx": [
            onnx_bytes(ir_version, (2, 2, b"pytorch"), graph),
            onnx_bytes(graph, ir_version),
            onnx_bytes(ir_version, graph)[:-20],  # truncated: its reader reports that
        ],
    }
    with zipfile.ZipFile(tmp_path / "zip", "w") as file:
        file.writestr("archive/data.pkl", b"")
    contents["torch"].append((tmp_path / "zip").read_bytes())
    path = tmp_path / "model.bin"
    for kind, examples in contents.items():
        for content in examples:
            path.write_bytes(content)
            assert find_format(path) == kind, content


def test_a_file_of_no_known_format_is_refused(tmp_path):
    path = tmp_path / "model.onnx"
    for content, got in [
        (b"", "an empty file"),
        (b"no model", "a file that begins with b'no model'"),
        (b"\xff" * 99, "a file that begins with b'" + r"\\xff" * 8 + "'"),
        (b"\x08\x07" * 50_000, r"a file that begins with b'\\x08\\x07"),
        (bytes(99), "a file that begins with b'" + r"\\x00" * 8 + "'"),
    ]:
        path.write_bytes(content)
        with pytest.raises(InterchangeError, match=f"is no model of a known format, got {got}"):
            open_model(path)


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
