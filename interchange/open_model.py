# SPDX-License-Identifier: Apache-2.0
"""Open a model of any supported format; the content of a file decides which format it has."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interchange.file_format import ACCEPTED, find_format
from interchange.model import InterchangeError, StoredModel

if TYPE_CHECKING:
    import numpy as np

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
