# SPDX-License-Identifier: Apache-2.0
"""Exact statistics of all scores of probes and a gallery, computed block by block.

`score_blocks` yields the scores of all probes with a block of the gallery.  Each class keeps a
statistic of all blocks, so that only one block of scores is in memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from evaluation.row_sources import RowSource, read_unit_rows

BLOCK_SCORES = 1 << 23
"""Number of scores of a block: 32 MiB of float32."""
MAX_BLOCK_ROWS = 1 << 15
TIE = 1e-6
"""Scores that differ by less than this count as equal.

Rounding in float32 can change a score by as much.
"""


def score_blocks(
    probes: np.ndarray, gallery: RowSource, stops: Sequence[int] = ()
) -> Iterator[tuple[int, np.ndarray]]:
    """Yield the cosines of all probes with each block of gallery rows.

    Parameters
    ----------
    probes
        Embeddings of unit length, (P, E) float32.
    gallery
        Embeddings; each is scaled to length 1.
    stops
        Numbers of gallery rows after which a block must end.

    Outputs
    -------
    Pairs (index of the first gallery row of the block, scores of the block).  The scores are
    float32 (P, rows of the block).  The next block overwrites them; the caller may change them.
    """
    count = len(gallery)
    step = max(1, min(MAX_BLOCK_ROWS, BLOCK_SCORES // max(len(probes), 1)))
    buffer = np.empty(len(probes) * min(step, count), np.float32)
    ends = sorted({*range(step, count, step), *(s for s in stops if 0 < s < count), count})
    start = 0
    for stop in ends:
        rows = read_unit_rows(gallery, start, stop)
        scores = buffer[: len(probes) * len(rows)].reshape(len(probes), len(rows))
        np.matmul(probes, rows.T, out=scores)
        yield start, scores
        start = stop


class TopScores:
    """The K highest scores of each of P probes.

    Attributes
    ----------
    scores
        (P, K) float32, not sorted; -inf where a probe has fewer than K scores.
    """

    def __init__(self, probes: int, count: int) -> None:
        self.scores = np.full((probes, count), -np.inf, np.float32)

    def add(self, scores: np.ndarray) -> None:
        """Add a block of scores (P, B)."""
        count = self.scores.shape[1]
        best = scores.max(axis=1)
        if count == 1:
            np.maximum(self.scores[:, 0], best, out=self.scores[:, 0])
            return
        floor = self.scores.min(axis=1)
        for row in np.flatnonzero(best > floor):
            higher = scores[row][scores[row] > floor[row]]
            both = np.concatenate([self.scores[row], higher])
            self.scores[row] = np.partition(both, len(both) - count)[len(both) - count :]


class HighestScores:
    """The K highest of all scores.

    Parameters
    ----------
    count
        Number K of scores to keep.  The memory in use is about 16 bytes for each of these scores,
        plus the added block of scores.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self._floor = np.float32(-np.inf)
        self._parts: list[np.ndarray] = []
        self._size = 0

    def add(self, scores: np.ndarray) -> None:
        """Add scores in an array of any shape; -inf marks scores that do not count."""
        higher = scores[scores > self._floor]
        self._parts.append(higher)
        self._size += len(higher)
        if self._size > 2 * self.count + 4096:
            self._shrink()

    def _shrink(self) -> None:
        values = np.concatenate(self._parts) if self._parts else np.empty(0, np.float32)
        if len(values) > self.count:
            values = np.partition(values, len(values) - self.count)[len(values) - self.count :]
            self._floor = values[0] if self.count else np.float32(np.inf)
        self._parts, self._size = [values], len(values)

    def sorted(self) -> np.ndarray:
        """Return the highest scores in descending order, (at most K,) float32."""
        self._shrink()
        return np.sort(self._parts[0])[::-1]


class CountsAtLeast:
    """For each given score of a probe, the number of added scores that are at least as high.

    Parameters
    ----------
    scores
        For each probe an array of scores, in any order.

    Attributes
    ----------
    counts
        For each probe an array with one count for each of its given scores, int64.  An added score
        counts if it is higher than the given score, or lower by less than TIE.
    """

    MAX_COMPARED = 8
    """Largest number of given scores of a probe that are compared with all added scores.

    If a probe has more given scores, the added scores are sorted and searched by bisection.
    """

    def __init__(self, scores: Sequence[np.ndarray]) -> None:
        self._limits = [np.asarray(s, np.float32) - np.float32(TIE) for s in scores]
        self.counts = [np.zeros(len(s), np.int64) for s in scores]

    def add(self, scores: np.ndarray) -> None:
        """Add a block of scores (P, B)."""
        for row, (limits, counts) in enumerate(zip(self._limits, self.counts, strict=True)):
            if len(limits) > self.MAX_COMPARED:
                ordered = np.sort(scores[row])
                counts += len(ordered) - np.searchsorted(ordered, limits, side="left")
            else:
                for index, limit in enumerate(limits):
                    counts[index] += np.count_nonzero(scores[row] >= limit)
