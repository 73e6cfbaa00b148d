# SPDX-License-Identifier: Apache-2.0
"""Arrays on disk: a caller requests rows, and only these rows are read."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from training.checkpoint_files import DamagedCheckpoint, file_error

if TYPE_CHECKING:
    from mxnet_arrays import ArrayPlace

BLOCK_BYTES = 16 << 20
"""Largest number of bytes of a block of rows, unless one row is longer."""


def block_ranges(start: int, stop: int, row_bytes: int) -> Iterator[tuple[int, int]]:
    """Yield ranges (first row, row after the last) that divide rows into blocks of BLOCK_BYTES."""
    step = max(1, BLOCK_BYTES // max(1, row_bytes))
    for first in range(start, stop, step):
        yield first, min(first + step, stop)


class StoredRows:
    """Array whose rows are in one file, or in consecutive parts in several files.

    The object has the attributes ``shape``, ``dtype`` and ``ndim`` of a NumPy array.
    ``numpy.asarray`` reads the array as a whole.

    Parameters
    ----------
    parts
        Path of each file, and the place of the part in the file.  All parts have the same type and
        the same shape except for the number of rows.
    check
        Function that is called once, before the first rows are read, and raises an exception if the
        files are damaged; None without a check.
    """

    def __init__(
        self,
        parts: Sequence[tuple[Path, ArrayPlace]],
        check: Callable[[], None] | None = None,
    ):
        self._parts, self._check = parts, check
        self._ends = np.cumsum([place.shape[0] for _, place in parts])
        self.dtype: np.dtype = parts[0][1].dtype
        self.shape: tuple[int, ...] = (int(self._ends[-1]), *parts[0][1].shape[1:])
        self._row_bytes = math.prod(self.shape[1:]) * self.dtype.itemsize

    @property
    def ndim(self) -> int:
        """Number of dimensions."""
        return len(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def checked_by(self, check: Callable[[], None]) -> StoredRows:
        """Return the same array with a check before the first rows are read."""
        return StoredRows(self._parts, check)

    def blocks(self, start: int = 0, stop: int | None = None) -> Iterator[np.ndarray]:
        """Yield the rows ``start`` to ``stop`` in blocks of at most BLOCK_BYTES.

        Raises
        ------
        CheckpointError
            If a file cannot be read, or ends before its last row.
        """
        for first, end in self.ranges(start, stop):
            yield self.read(first, end)

    def ranges(self, start: int = 0, stop: int | None = None) -> Iterator[tuple[int, int]]:
        """Yield the range (first row, row after the last) of each block of ``blocks``."""
        yield from block_ranges(start, len(self) if stop is None else stop, self._row_bytes)

    def read(self, start: int, stop: int) -> np.ndarray:
        """Return the rows ``start`` to ``stop``; raise CheckpointError as ``blocks`` does."""
        check, self._check = self._check, None
        if check:
            check()
        out = np.empty((stop - start, *self.shape[1:]), self.dtype)
        first = 0
        for (path, place), end in zip(self._parts, self._ends.tolist(), strict=True):
            low, high = max(start, first), min(stop, end)
            if low < high:
                self._fill(out[low - start : high - start], path, place, low - first)
            first = end
        return out

    def _fill(self, out: np.ndarray, path: Path, place: ArrayPlace, row: int) -> None:
        try:
            with path.open("rb") as file:
                file.seek(place.offset + row * self._row_bytes)
                # An empty dimension gives an empty array, which has no bytes to read.
                count = file.readinto(out.data.cast("B")) if out.nbytes else 0
        except OSError as error:
            raise file_error(path, error) from None
        if count != out.nbytes:
            raise DamagedCheckpoint(
                f"{path}: is truncated, got {count:,} of {out.nbytes:,} bytes of a block of rows"
            )

    def __getitem__(self, rows: slice | np.ndarray) -> np.ndarray:
        """Return the rows of a slice without a step, or of an array of row numbers."""
        if isinstance(rows, slice):
            start, stop, step = rows.indices(len(self))
            if step != 1:
                raise IndexError(f"rows: a slice must have the step 1, got {step}")
            return self.read(start, max(start, stop))
        rows = np.asarray(rows, np.int64)
        wrong = rows[(rows < 0) | (rows >= len(self))]
        if wrong.size:
            raise IndexError(f"rows: must be from 0 to {len(self) - 1}, got {wrong[0]}")
        out = np.empty((len(rows), *self.shape[1:]), self.dtype)
        order = np.argsort(rows, kind="stable")
        ordered = rows[order]
        for first, end in self.ranges():
            low, high = np.searchsorted(ordered, (first, end))
            if low < high:
                out[order[low:high]] = self.read(first, end)[ordered[low:high] - first]
        return out

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        array = self.read(0, len(self))
        return array if dtype is None else array.astype(dtype, copy=False)
