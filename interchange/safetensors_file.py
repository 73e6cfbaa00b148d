# SPDX-License-Identifier: Apache-2.0
"""Read the tensors of a ``.safetensors`` file."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from functools import partial

import numpy as np
import safetensors

from interchange.model import InterchangeError
from interchange.stored_tensor import StoredTensor, widen_bfloat16

DTYPES = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16",
    "I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8", "U8": "uint8", "BOOL": "bool",
}  # fmt: skip
"""Mapping from the name of an element type in the file to the name in NumPy."""


def read_safetensors_file(
    path: str | os.PathLike[str],
) -> tuple[dict[str, StoredTensor], dict[str, str]]:
    """Read the shapes of the tensors of a file, and its metadata.

    The values of a tensor are read when its ``read`` is called.

    Outputs
    -------
    Tensors by name, and the metadata of the file ({} without metadata).

    Raises
    ------
    InterchangeError
        If the file is damaged, or has an element type that is not in ``DTYPES``.
    """
    path = os.fspath(path)
    try:
        if not os.path.isfile(path):
            raise OSError("no such file")
        with safetensors.safe_open(path, framework="np") as file:
            metadata = dict(file.metadata() or {})
            kinds = {}
            for name in file.keys():  # noqa: SIM118 - the object is not iterable
                piece = file.get_slice(name)
                kinds[name] = (tuple(piece.get_shape()), piece.get_dtype())
    except (safetensors.SafetensorError, OSError) as error:
        raise InterchangeError(
            f"{path}: is not a valid safetensors file, got {str(error)[:120]!r}; copy or download "
            "the file again"
        ) from None
    tensors = {}
    for name, (shape, kind) in kinds.items():
        if kind not in DTYPES:
            raise InterchangeError(
                f"{path}: the tensor {name!r} must have one of the types {', '.join(DTYPES)}, got "
                f"{kind}; convert the weights to float32"
            )
        read: Callable[[], np.ndarray] = partial(_read_values, path, name, kind)
        tensors[name] = StoredTensor(shape, DTYPES[kind], read)
    return tensors, metadata


def _read_values(path: str, name: str, kind: str) -> np.ndarray:
    if kind != "BF16":
        with safetensors.safe_open(path, framework="np") as file:
            return file.get_tensor(name)
    # NumPy has no bfloat16, so the safetensors package cannot return the values.  The package has
    # already checked the header.
    with open(path, "rb") as raw:
        length = int.from_bytes(raw.read(8), "little")
        entry = json.loads(raw.read(length))[name]
        start, end = entry["data_offsets"]
        raw.seek(8 + length + start)
        bits = np.frombuffer(raw.read(end - start), "<u2")
    return widen_bfloat16(bits).reshape(entry["shape"])
