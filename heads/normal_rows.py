# SPDX-License-Identifier: Apache-2.0
"""Normally distributed initial class centres, equal for every number of ranks."""

import mxnet as mx

BLOCK_ROWS = 65536
"""Number of rows that one call of MXNet's generator draws."""


@mx.init.register
class NormalRows(mx.init.Initializer):
    """Initializer with normally distributed values for an array, or for a part of its rows.

    The rows are drawn in blocks of BLOCK_ROWS rows from MXNet's generator. If all ranks use the
    same seed, a part of the rows gets the same values as in the complete array. Every rank draws
    all rows, but keeps only its part and one block in memory.

    Parameters
    ----------
    sigma
        Standard deviation of the values.
    start
        Row of the complete array that is the first row of the part.
    count
        Number of rows of the complete array; None: the array is complete.
    """

    def __init__(self, sigma: float, start: int = 0, count: int | None = None) -> None:
        super().__init__(sigma=sigma, start=start, count=count)
        self._sigma, self._start, self._count = sigma, start, count

    def part(self, start: int, count: int) -> "NormalRows":
        """Return the initializer of a part of the rows; see the parameters of the class."""
        return NormalRows(self._sigma, start, count)

    def _init_weight(self, name: str, arr: mx.nd.NDArray) -> None:
        count = len(arr) if self._count is None else self._count
        stop = self._start + len(arr)
        arr[:] = 0.0  # needed for a shard without classes: its array still has rows (heads/head.py)
        for first in range(0, count, BLOCK_ROWS):
            rows = min(BLOCK_ROWS, count - first)
            block = mx.nd.random.normal(
                0, self._sigma, shape=(rows, *arr.shape[1:]), ctx=arr.context, dtype=arr.dtype
            )
            low, high = max(first, self._start), min(first + rows, stop)
            if low < high:
                arr[low - self._start : high - self._start] = block[low - first : high - first]
