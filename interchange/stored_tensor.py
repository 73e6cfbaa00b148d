# SPDX-License-Identifier: Apache-2.0
"""Tensors of a model file; the shape of each is known before its values are read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from interchange.model import InterchangeError


@dataclass(frozen=True)
class StoredTensor:
    """Tensor in a model file."""

    shape: tuple[int, ...]
    dtype: str
    """Name of the type of the stored values, for example "float32" or "bfloat16"."""
    read: Callable[[], np.ndarray]
    """Function that reads the values from the file; it returns an array of ``shape``."""


def widen_bfloat16(bits: np.ndarray) -> np.ndarray:
    """Return the float32 values of bfloat16 numbers, given as uint16 of any shape.

    A bfloat16 is the upper half of a float32, so the conversion is exact.
    """
    return (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)


def read_float32(path: str, name: str, tensor: StoredTensor) -> np.ndarray:
    """Read a tensor and return its values as float32.

    Parameters
    ----------
    path
        Path of the model file, for messages.
    name
        Name of the tensor in the file, for messages.
    tensor
        The tensor, of any numeric type.

    Raises
    ------
    InterchangeError
        If a value is not finite, or too large for float32.
    """
    with np.errstate(over="ignore"):
        values = np.asarray(tensor.read(), dtype=np.float32)
    if not np.isfinite(values).all():
        bad = int(np.count_nonzero(~np.isfinite(values)))
        raise InterchangeError(
            f"{path}: the tensor {name!r} must have finite float32 values, got {bad} values that "
            "are not; use weights of a training that did not diverge"
        )
    return values


def describe_names(names: Mapping[str, object] | list[str], limit: int = 3) -> str:
    """Return the first names of a collection and the number of the others, for a message."""
    listed = [repr(str(name)[:60]) for name in list(names)[:limit]]
    remaining = len(names) - len(listed)
    return ", ".join(listed) + (f" and {remaining} more" if remaining else "")
