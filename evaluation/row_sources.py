# SPDX-License-Identifier: Apache-2.0
"""Rows of embeddings that are read block by block, so that millions of rows need little memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np


class RowError(ValueError):
    """Embeddings cannot be used; the message is one sentence for the user."""


class RowSource(Protocol):
    """Source of N rows of E float32 values."""

    def __len__(self) -> int:
        """Return the number of rows N."""

    @property
    def dimensions(self) -> int:
        """Number of values E of a row."""

    def read(self, start: int, stop: int) -> np.ndarray:
        """Return the rows start to stop - 1 as float32 (stop - start, E)."""

    def name(self, row: int) -> str:
        """Return the name of a row for error messages."""


@dataclass(frozen=True)
class ArrayRows:
    """Rows of an array in memory.

    Parameters
    ----------
    values
        (N, E) float.
    where
        Prefix of error messages, for example a file.
    names
        Name of each row; None if rows are named by their numbers.
    """

    values: np.ndarray
    where: str
    names: Sequence[str] | np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.values)

    @property
    def dimensions(self) -> int:
        return self.values.shape[1]

    def read(self, start: int, stop: int) -> np.ndarray:
        return np.asarray(self.values[start:stop], np.float32)

    def name(self, row: int) -> str:
        return f"{self.where}: {f'row {row}' if self.names is None else self.names[row]}"


@dataclass(frozen=True)
class FileRows:
    """Rows of a file of consecutive values; only the block that `read` returns is in memory.

    Parameters
    ----------
    path
        File.
    offset
        Byte of the file at which the first row begins.
    shape
        (N, E).
    dtype
        Type of the stored values.
    names
        Name of each row; None if rows are named by their numbers.
    """

    path: str
    offset: int
    shape: tuple[int, int]
    dtype: np.dtype
    names: Sequence[str] | np.ndarray | None = None

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def dimensions(self) -> int:
        return self.shape[1]

    def read(self, start: int, stop: int) -> np.ndarray:
        start, stop = min(start, len(self)), min(stop, len(self))
        count = (stop - start) * self.dimensions
        offset = self.offset + start * self.dimensions * self.dtype.itemsize
        values = np.fromfile(self.path, self.dtype, count, offset=offset)
        if len(values) != count:
            raise RowError(
                f"{self.path}: the file must hold {self.shape[0]} rows of {self.dimensions} "
                f"values, got an end of file before the end of row {stop - 1}; write the file again"
            )
        return values.reshape(-1, self.dimensions).astype(np.float32, copy=False)

    def name(self, row: int) -> str:
        return f"{self.path}: {f'row {row}' if self.names is None else self.names[row]}"


@dataclass(frozen=True)
class SelectedRows:
    """Selected rows of another source, in the order of that source.

    Parameters
    ----------
    source
        Source of all rows.
    indices
        Strictly increasing indices of the selected rows, (N,) int.
    """

    source: RowSource
    indices: np.ndarray

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def dimensions(self) -> int:
        return self.source.dimensions

    def read(self, start: int, stop: int) -> np.ndarray:
        chosen = self.indices[start:stop]
        found = np.empty((len(chosen), self.dimensions), np.float32)
        # Read all rows from the first to the last selected row, in pieces of limited size.
        piece = max(4096, len(chosen))
        done = 0
        while done < len(chosen):
            first = int(chosen[done])
            count = int(np.searchsorted(chosen[done:], first + piece))
            last = int(chosen[done + count - 1])
            rows = self.source.read(first, last + 1)
            found[done : done + count] = rows[chosen[done : done + count] - first]
            done += count
        return found

    def name(self, row: int) -> str:
        return self.source.name(int(self.indices[row]))


@dataclass(frozen=True)
class ReorderedRows:
    """Copies in memory of selected rows of another source, in any order.

    Parameters
    ----------
    values
        The rows, (N, E) float32.
    source
        Source of the rows and of their names.
    indices
        Index of each row in the source, (N,) int.
    """

    values: np.ndarray
    source: RowSource
    indices: np.ndarray

    def __len__(self) -> int:
        return len(self.values)

    @property
    def dimensions(self) -> int:
        return self.values.shape[1]

    def read(self, start: int, stop: int) -> np.ndarray:
        return self.values[start:stop]

    def name(self, row: int) -> str:
        return self.source.name(int(self.indices[row]))


def select_rows(source: RowSource, indices: np.ndarray) -> RowSource:
    """Return the rows of a source that have the given indices, in the order of `indices`.

    If the indices do not increase strictly, the selected rows are read into memory.
    """
    indices = np.asarray(indices, np.int64)
    if len(indices) == len(source) and np.array_equal(indices, np.arange(len(source))):
        return source
    if (np.diff(indices) > 0).all():
        return SelectedRows(source, indices)
    found = np.empty((len(indices), source.dimensions), np.float32)
    for start in range(0, len(source), 65536):
        rows = source.read(start, min(start + 65536, len(source)))
        inside = np.flatnonzero((indices >= start) & (indices < start + len(rows)))
        found[inside] = rows[indices[inside] - start]
    return ReorderedRows(found, source, indices)


def read_unit_rows(source: RowSource, start: int, stop: int) -> np.ndarray:
    """Read rows and scale each to length 1; return float32 (stop - start, E).

    Raises
    ------
    RowError
        If a row is 0 or has a value that is not finite.
    """
    rows = source.read(start, stop)
    lengths = np.sqrt(np.einsum("ij,ij->i", rows, rows, dtype=np.float64))
    bad = np.flatnonzero(~(np.isfinite(lengths) & (lengths > 0)))
    if len(bad):
        raise RowError(
            f"{source.name(start + int(bad[0]))}: the embedding cannot be normalised, got L2 norm "
            f"{lengths[bad[0]]}; compute the embedding again"
        )
    return rows / lengths[:, None].astype(np.float32)


def read_all_unit_rows(source: RowSource, block_rows: int = 16384) -> np.ndarray:
    """Read all rows and scale each to length 1; return float32 (N, E)."""
    found = np.empty((len(source), source.dimensions), np.float32)
    for start in range(0, len(source), block_rows):
        stop = min(start + block_rows, len(source))
        found[start:stop] = read_unit_rows(source, start, stop)
    return found


def read_all_finite_rows(source: RowSource, block_rows: int = 16384) -> np.ndarray:
    """Read all rows without scaling them; return float32 (N, E).

    Raises
    ------
    RowError
        If a row has a value that is not finite.
    """
    found = np.empty((len(source), source.dimensions), np.float32)
    for start in range(0, len(source), block_rows):
        rows = source.read(start, min(start + block_rows, len(source)))
        bad = np.flatnonzero(~np.isfinite(rows).all(axis=1))
        if len(bad):
            raise RowError(
                f"{source.name(start + int(bad[0]))}: all values must be finite, got NaN or "
                "infinity; compute the embedding again"
            )
        found[start : start + len(rows)] = rows
    return found


def check_dimensions(*sources: RowSource) -> None:
    """Raise RowError if the rows of the sources have different numbers of values."""
    for source in sources:
        if not len(source):
            continue
        if source.dimensions != sources[0].dimensions:
            raise RowError(
                f"{source.name(0)}: all embeddings must have the same number of values, got "
                f"{source.dimensions}, but {sources[0].dimensions} in {sources[0].name(0)}; use "
                "embeddings of one model"
            )
