# SPDX-License-Identifier: Apache-2.0
"""Open ONNX files and check their structure before anything uses them."""

from __future__ import annotations

import math
import os
from pathlib import Path

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import ModelProto, TensorProto, ValueInfoProto, numpy_helper

from interchange.model import InterchangeError

MIN_OPSET, MAX_OPSET = 7, 21
MAX_FILE_BYTES = 2**31 - 1  # limit of Protocol Buffers for one message
MAX_NODES = 100_000
_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.BFLOAT16)
_NUMBERS = (*_FLOATS, TensorProto.INT64, TensorProto.INT32, TensorProto.BOOL)


def load_onnx(path: str | Path) -> ModelProto:
    """Read an ONNX file and check that its nodes, tensors and operator sets are consistent.

    Raises
    ------
    InterchangeError
        If the file is no ONNX model, is damaged, keeps weights in other files, or needs a version
        of the operator set ai.onnx outside of 7 to 21.
    OSError
        If the file cannot be read.
    """
    size = os.stat(path).st_size
    if size > MAX_FILE_BYTES:
        raise InterchangeError(
            f"{path}: an ONNX file has at most 2 GiB, got {size:,} bytes; use a smaller model"
        )
    model = ModelProto()
    try:
        model.ParseFromString(Path(path).read_bytes())
    except (DecodeError, RecursionError) as error:
        raise _damaged(path, error) from None
    _check_opset(model, path)
    if not 0 < len(model.graph.node) <= MAX_NODES:
        raise InterchangeError(
            f"{path}: an ONNX network has 1 to {MAX_NODES:,} nodes, got {len(model.graph.node):,}; "
            "export the network again"
        )
    if model.graph.sparse_initializer:
        raise InterchangeError(
            f"{path}: weights must be dense tensors, got {len(model.graph.sparse_initializer)} "
            "sparse ones; export the network with dense weights"
        )
    for tensor in model.graph.initializer:
        _check_tensor(tensor, path)
    try:
        onnx.checker.check_model(model)
    except (onnx.checker.ValidationError, ValueError) as error:
        raise _damaged(path, error) from None
    return model


def network_input(model: ModelProto, path: str | Path) -> ValueInfoProto:
    """Return the only input of a network, apart from initializers."""
    stored = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in stored]
    if len(inputs) != 1:
        names = ", ".join(value.name for value in inputs) or "none"
        raise InterchangeError(
            f"{path}: a face network has one input, got {names}; export the network with one input"
        )
    return inputs[0]


def input_size(model: ModelProto, path: str | Path) -> tuple[int, int] | None:
    """Return (height, width) of the images; None if the file leaves the size open.

    Raises
    ------
    InterchangeError
        If the input has another shape than (B, 3, H, W).
    """
    value = network_input(model, path)
    sides = [side.dim_value for side in value.type.tensor_type.shape.dim]  # 0: not stated
    if len(sides) != 4 or sides[1] not in (0, 3):
        raise InterchangeError(
            f"{path}: the input must have the shape (images, 3, height, width), got "
            f"{tuple(sides)}; export the network with the layout NCHW"
        )
    return (sides[2], sides[3]) if min(sides[2:]) > 0 else None


def network_output(model: ModelProto, path: str | Path, preferred: str) -> str:
    """Return the name of the output of embeddings: the only one, or the one named ``preferred``."""
    names = [value.name for value in model.graph.output]
    if preferred in names:
        return preferred
    if len(names) != 1:
        raise InterchangeError(
            f"{path}: must have exactly one output, or an output named {preferred!r} among "
            f"several, got {', '.join(names[:5]) or 'none'}; export the network with "
            "its embedding as the only output"
        )
    return names[0]


def tensor_array(tensor: TensorProto, path: str | Path) -> np.ndarray:
    """Return the values of a tensor: float32, int64 or bool."""
    _check_tensor(tensor, path)
    try:
        array = numpy_helper.to_array(tensor)
    except (ValueError, TypeError) as error:
        raise _damaged(path, error) from None
    if tensor.data_type in _FLOATS:
        return array.astype(np.float32)
    return array if array.dtype == bool else array.astype(np.int64)


def _check_tensor(tensor: TensorProto, path: str | Path) -> None:
    if tensor.external_data or tensor.data_location == TensorProto.EXTERNAL:
        raise InterchangeError(
            f"{path}: weights must be inside the ONNX file, got tensor {tensor.name!r} in another "
            "file; save one file: onnx.save(onnx.load(PATH), NEW_PATH)"
        )
    if tensor.data_type not in _NUMBERS:
        kinds = {number: name for name, number in TensorProto.DataType.items()}
        raise InterchangeError(
            f"{path}: tensor {tensor.name!r} must be of floating-point numbers or integers, got "
            f"{kinds.get(tensor.data_type, tensor.data_type)}; export the network in float32"
        )
    if any(side < 0 for side in tensor.dims):
        raise _damaged(path, f"tensor {tensor.name!r} of shape {tuple(tensor.dims)}")
    stored = len(tensor.raw_data) + sum(
        len(getattr(tensor, name))
        for name in ("float_data", "int32_data", "int64_data", "double_data")
    )
    # Each element occupies at least one byte of raw_data, or one entry of a list like float_data.
    if math.prod(tensor.dims) > stored:
        raise _damaged(path, f"tensor {tensor.name!r} of shape {tuple(tensor.dims)} without values")


def _check_opset(model: ModelProto, path: str | Path) -> None:
    versions = {opset.domain: opset.version for opset in model.opset_import}
    found = versions.get("", versions.get("ai.onnx"))
    if found is None or not MIN_OPSET <= found <= MAX_OPSET:
        raise InterchangeError(
            f"{path}: the operator set of an ONNX file must have a version from {MIN_OPSET} to "
            f"{MAX_OPSET}, got {found}; export the network with opset_version=13"
        )


def opset_version(model: ModelProto) -> int:
    """Return the version of the operator set ai.onnx."""
    return max(opset.version for opset in model.opset_import if opset.domain in ("", "ai.onnx"))


def _damaged(path: str | Path, reason: object) -> InterchangeError:
    text = " ".join(str(reason).split())[:300]
    return InterchangeError(
        f"{path}: the file must be an undamaged ONNX model, got '{text}'; export or download it "
        "again"
    )
