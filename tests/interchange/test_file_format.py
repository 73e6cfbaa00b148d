# SPDX-License-Identifier: Apache-2.0
"""Recognition of model files by their content."""

from __future__ import annotations

import json
import pickle
import zipfile

import pytest

from interchange import InterchangeError
from interchange.file_format import find_format


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
            find_format(path)
