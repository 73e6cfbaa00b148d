# SPDX-License-Identifier: Apache-2.0
"""Files of one OpenCV matrix of 32-bit floats: features of MegaFace and of video challenges.

A file begins with four little-endian int32: rows, columns, bytes per row, and the type 5 (CV_32F).
The values follow row by row.  MegaFace stores one feature of E values per file, as a matrix of E
rows and 1 column.  The ICCV 2019 lightweight face recognition challenge stores N features in one
file, as a matrix of N rows and E columns.
"""

from __future__ import annotations

import os
import stat
import struct

import numpy as np

from atomic_write import atomic_write

HEADER = struct.Struct("<4i")
CV_32F = 5
MAX_FEATURE_VALUES = 1 << 16
"""Largest number of values of a feature that is alone in its file."""


class MatrixError(ValueError):
    """A matrix file cannot be used; the message is one sentence for the user."""


def read_shape(path: str | os.PathLike[str]) -> tuple[int, int]:
    """Return (rows, columns) of a matrix file, after a check of its header and of its length."""
    try:
        state = os.stat(path)
        if not stat.S_ISREG(state.st_mode):
            raise _error(path, "must be a regular file", "a folder or a special file")
        with open(path, "rb") as file:
            return _parse_header(path, file.read(HEADER.size), state.st_size)
    except OSError as error:
        raise _error(path, "the file cannot be read", repr(error.strerror)) from None


def read_feature(path: str | os.PathLike[str]) -> np.ndarray:
    """Read a file that holds one feature; return the feature, (E,) float32.

    Raises
    ------
    MatrixError
        If the file cannot be read or is damaged, if it holds more than one feature or a feature of
        more than MAX_FEATURE_VALUES values, or if a value is not finite.
    """
    rows, columns = read_shape(path)
    if min(rows, columns) != 1 or rows * columns > MAX_FEATURE_VALUES:
        raise _error(path, "must hold one feature", f"a matrix of {rows} x {columns} values")
    feature = np.fromfile(path, "<f4", rows * columns, offset=HEADER.size)
    if len(feature) != rows * columns or not np.isfinite(feature).all():
        raise _error(path, "all values must be finite", "NaN, infinity or too few values")
    return feature.astype(np.float32, copy=False)


def write_feature(path: str | os.PathLike[str], feature: np.ndarray) -> None:
    """Write one feature (E,) to a file as MegaFace's programs expect it.

    The function does not call fsync, which would be slow for the million files that a folder may
    have.  After a crash of the machine a file may therefore be empty; `read_feature` refuses it.
    """
    _write(path, feature, len(feature), 1, sync=False)


def write_features(path: str | os.PathLike[str], features: np.ndarray) -> None:
    """Write N features (N, E) to one file."""
    _write(path, features, *features.shape, sync=True)


def _write(
    path: str | os.PathLike[str], values: np.ndarray, rows: int, columns: int, *, sync: bool
) -> None:
    with atomic_write(path, sync=sync) as file:
        file.write(HEADER.pack(rows, columns, 4 * columns, CV_32F))
        file.write(np.ascontiguousarray(values, "<f4").data)


def _parse_header(path: str | os.PathLike[str], header: bytes, file_bytes: int) -> tuple[int, int]:
    if len(header) < HEADER.size:
        raise _error(path, f"must have a header of {HEADER.size} bytes", f"{len(header)} bytes")
    rows, columns, step, kind = HEADER.unpack(header)
    if rows < 1 or columns < 1:
        raise _error(path, "rows and columns must be at least 1", f"{rows} x {columns}")
    if kind != CV_32F:
        raise _error(path, f"the type must be {CV_32F} (32-bit floats)", str(kind))
    if step != 4 * columns:
        raise _error(path, f"a row must have {4 * columns} bytes", f"{step} bytes")
    expected = HEADER.size + 4 * rows * columns
    if file_bytes != expected:
        raise _error(
            path,
            f"must have {expected} bytes for {rows} x {columns} values",
            f"{file_bytes} bytes",
        )
    return rows, columns


def _error(path: str | os.PathLike[str], problem: str, got: str) -> MatrixError:
    return MatrixError(
        f"{os.fspath(path)}: {problem}, got {got}; correct the path, or write the features again"
    )
