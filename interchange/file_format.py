# SPDX-License-Identifier: Apache-2.0
"""Find the format of a model file from its content."""

from __future__ import annotations

import os
from pathlib import Path
from typing import IO

from interchange.model import InterchangeError

ACCEPTED = (
    "a run folder, a checkpoint folder, a symbol prefix (PREFIX of PREFIX-symbol.json and "
    "PREFIX-0000.params), or an .onnx, .pth, .pt, .safetensors or GluonFR .params file"
)
# MXNet's kMXAPINDArrayListMagic, src/ndarray/ndarray.cc.
_MXNET_ARRAYS = (0x112).to_bytes(8, "little")
_ZIP, _PICKLE = b"PK\x03\x04", b"\x80"
_HEAD_BYTES = 16
# Field numbers of ModelProto in onnx.proto; field 7 is the graph.
_ONNX_FIELDS = frozenset((1, 2, 3, 4, 5, 6, 7, 8, 14, 20, 25, 26))
_ONNX_GRAPH = 7
_MAX_ONNX_FIELDS = 10_000


def find_format(path: Path) -> str:
    """Find the format of a model file from its content.

    Outputs
    -------
    "arrays" for MXNet arrays, "torch", "safetensors", "onnx", or "json".

    Raises
    ------
    InterchangeError
        If the content has none of these formats.
    OSError
        If the file cannot be read.
    """
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        head = file.read(_HEAD_BYTES)
        if head.startswith(_MXNET_ARRAYS):
            return "arrays"
        if head.startswith((_ZIP, _PICKLE)):
            return "torch"
        if head[8:9] == b"{" and 2 <= int.from_bytes(head[:8], "little") <= size - 8:
            return "safetensors"
        if head.lstrip()[:1] == b"{":
            return "json"
        if _is_onnx(file, size):
            return "onnx"
    shown = f"a file that begins with {head[:8]!r}" if size else "an empty file"
    raise InterchangeError(f"{path}: is no model of a known format, got {shown}; name {ACCEPTED}")


def _is_onnx(file: IO[bytes], size: int) -> bool:
    """Return whether a file has the top-level fields of ONNX's ModelProto, among them a graph.

    The contents of the fields are skipped.  A file whose last field is truncated still counts, so
    that the reader of ONNX files can report the truncation.
    """
    file.seek(0)
    has_graph = False
    for _ in range(_MAX_ONNX_FIELDS):
        key = _varint(file)
        if key is None:
            break
        field, wire_type = key >> 3, key & 7
        if field not in _ONNX_FIELDS or wire_type not in (0, 2):
            return False
        length = _varint(file)
        if length is None:
            break
        if wire_type == 2:
            has_graph = has_graph or field == _ONNX_GRAPH
            if file.seek(length, os.SEEK_CUR) >= size:
                break
    return has_graph


def _varint(file: IO[bytes]) -> int | None:
    """Read a base-128 integer of the Protocol Buffers encoding; return None at the end of file."""
    value = 0
    for shift in range(0, 64, 7):
        byte = file.read(1)
        if not byte:
            return None
        value |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            return value
    # The integer has more than 10 bytes, which is invalid.  The caller refuses 0 as a key, because
    # no field has the number 0.
    return 0
