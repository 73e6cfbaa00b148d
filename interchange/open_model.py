# SPDX-License-Identifier: Apache-2.0
"""Open a model of any supported format; the content of a file decides which format it has."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from interchange.model import InterchangeError, StoredModel

if TYPE_CHECKING:
    import numpy as np

ACCEPTED = (
    "a run folder, a checkpoint folder, a symbol prefix (PREFIX of PREFIX-symbol.json and "
    "PREFIX-0000.params), or an .onnx, .pth, .pt, .safetensors or GluonFR .params file"
)
Values = float | tuple[float, float, float]
SYMBOL_SUFFIX = "-symbol.json"
OPTIONS = {
    "image_size": "--image-size",
    "mean": "--mean",
    "std": "--std",
    "colour_order": "--colour-order",
    "calibration_images": "--calibrate",
}
"""Option of ``python -m interchange import`` for each setting of `open_model`."""
_PARAMS_NAME = re.compile(r"(?P<prefix>.+)-\d{4,}\.params")
# MXNet's kMXAPINDArrayListMagic, src/ndarray/ndarray.cc.
_MXNET_ARRAYS = (0x112).to_bytes(8, "little")
_ZIP, _PICKLE = b"PK\x03\x04", b"\x80"
_HEAD_BYTES = 16
# Field numbers of ModelProto in onnx.proto; field 7 is the graph.
_ONNX_FIELDS = frozenset((1, 2, 3, 4, 5, 6, 7, 8, 14, 20, 25, 26))
_ONNX_GRAPH = 7
_MAX_ONNX_FIELDS = 10_000


def open_model(
    path: str | os.PathLike[str],
    *,
    image_size: tuple[int, int] | None = None,
    mean: Values | None = None,
    std: Values | None = None,
    colour_order: str | None = None,
    calibration_images: np.ndarray | None = None,
) -> StoredModel:
    """Read a model from a file or folder of any supported format.

    Parameters
    ----------
    path
        One of the values that ACCEPTED lists.  Instead of a symbol prefix, one of its two files may
        be named.  A run folder stands for its newest valid checkpoint.
    image_size
        (height, width) of the images in pixels; None for the size that the model states.
    mean, std
        The model takes (x - mean) / std for pixels x from 0 to 255.  Each is one number, or one
        number per channel.  None means the value that the model states, or else the usual value for
        its format.
    colour_order
        "rgb" or "bgr"; None for the order that the model states, or else "rgb".
    calibration_images
        Pixels (N, height, width, 3) uint8 in RGB, from which the reader of ONNX files computes the
        statistics of the batch normalisations that are folded into convolutions.

    Raises
    ------
    InterchangeError
        If no supported model is found, or if the model is damaged or does not fit a network.
    CheckpointError
        If a run folder or a checkpoint folder has no valid checkpoint.
    """
    path = Path(path)
    settings = {
        "image_size": image_size,
        "mean": mean,
        "std": std,
        "colour_order": colour_order,
        "calibration_images": calibration_images,
    }
    stated = {name: value for name, value in settings.items() if value is not None}
    try:
        return _open(path, stated)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise InterchangeError(
            f"{path}: the model cannot be read, got {reason}; name {ACCEPTED}"
        ) from None


def _open(path: Path, settings: dict[str, Any]) -> StoredModel:
    if path.is_dir():
        return _open_checkpoint(path, settings)
    if path.is_file():
        return _open_file(path, settings)
    if Path(f"{path}{SYMBOL_SUFFIX}").is_file():
        return _open_symbol(path, settings)
    what = "a special file" if path.exists() else "neither a file nor a folder of this name"
    raise InterchangeError(
        f"{path}: no checkpoint found and no model file, got {what}; name {ACCEPTED}"
    )


def _open_file(path: Path, settings: dict[str, Any]) -> StoredModel:
    kind = find_format(path)
    if kind == "onnx":
        from interchange.read_onnx import read_onnx

        return read_onnx(path, **settings)
    _refuse(path, settings, ("calibration_images",), "is not an ONNX file")
    if kind == "arrays":
        return _open_arrays(path, settings)
    if kind == "json":
        return _open_symbol(path, settings)
    if kind == "safetensors":
        from interchange.read_torch import read_safetensors

        return read_safetensors(path, **settings)
    from interchange.read_torch import read_torch

    return read_torch(path, **settings)


def _open_symbol(path: Path, settings: dict[str, Any]) -> StoredModel:
    """Open an MXNet model by its prefix, or by the path of one of its two files."""
    from interchange.read_symbol import read_symbol

    _refuse(path, settings, ("calibration_images",), "is not an ONNX file")
    if path.is_file() and not path.name.endswith((SYMBOL_SUFFIX, ".params")):
        raise InterchangeError(
            f"{path}: the name of a symbol file must end in {SYMBOL_SUFFIX}, got {path.name!r}; "
            f"rename the file, or name {ACCEPTED}"
        )
    return read_symbol(path, **settings)


def _open_arrays(path: Path, settings: dict[str, Any]) -> StoredModel:
    """Open a file of MXNet arrays, which belongs to a symbol, to a checkpoint or to GluonFR."""
    match = _PARAMS_NAME.fullmatch(path.name)
    if match and path.with_name(match["prefix"] + SYMBOL_SUFFIX).is_file():
        return _open_symbol(path, settings)
    if (path.parent / "manifest.json").is_file():
        return _open_checkpoint(path.parent, settings)
    from interchange.read_gluonfr import read_gluonfr

    return read_gluonfr(path, **settings)


def _open_checkpoint(path: Path, settings: dict[str, Any]) -> StoredModel:
    from interchange.read_checkpoint import read_checkpoint

    _refuse(path, settings, tuple(settings), "is a checkpoint, which states its input")
    return read_checkpoint(path)


def _refuse(path: Path, settings: dict[str, Any], names: tuple[str, ...], reason: str) -> None:
    """Raise InterchangeError if one of the settings `names` is given."""
    for name in names:
        if name in settings:
            raise InterchangeError(
                f"{path}: {name} does not apply, because the model {reason}, got a value of "
                f"{name}; omit {OPTIONS[name]}"
            )


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
