# SPDX-License-Identifier: Apache-2.0
"""Embeddings of videos: sums of the embeddings of their frames, added up batch by batch."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from evaluation.row_sources import RowSource, read_unit_rows

BLOCK_ROWS = 16384


class TemplateSums:
    """For each of V templates (such as videos), the sum of the embeddings of its images.

    Each added embedding must have length 1.

    Parameters
    ----------
    count
        Number of templates V.
    dimensions
        Number of values E of an embedding.
    """

    def __init__(self, count: int, dimensions: int) -> None:
        self.sums = np.zeros((count, dimensions), np.float32)
        self.sizes = np.zeros(count, np.int64)

    def add(self, rows: np.ndarray, templates: np.ndarray) -> None:
        """Add rows of unit length, (B, E), to the sums of the templates with these indices (B,)."""
        if not len(rows):
            return
        order = np.argsort(templates, kind="stable")
        ordered = templates[order]
        starts = np.flatnonzero(np.concatenate([[True], np.diff(ordered) != 0]))
        self.sums[ordered[starts]] += np.add.reduceat(rows[order], starts, axis=0)
        self.sizes += np.bincount(templates, minlength=len(self.sizes))

    def unit_templates(self, name: Callable[[int], str]) -> np.ndarray:
        """Return the sums scaled to length 1, (V, E) float32.

        Parameters
        ----------
        name
            Function that returns the name of a template, for error messages.

        Raises
        ------
        ValueError
            If a template has no embedding, or the embeddings add up to 0.
        """
        lengths = np.linalg.norm(self.sums, axis=1)
        bad = np.flatnonzero(~(np.isfinite(lengths) & (lengths > 0)))
        if len(bad):
            index = int(bad[0])
            raise ValueError(
                f"{name(index)}: the sum of the embeddings cannot be normalised, got L2 norm "
                f"{lengths[index]} from {self.sizes[index]} embeddings; check the frames"
            )
        return self.sums / lengths[:, None]


def add_rows(sums: TemplateSums, source: RowSource, templates: np.ndarray) -> None:
    """Scale the rows of a source to length 1, and add each to the sum of its template.

    Inputs
    ------
    templates (N,) int, the index of each row's template; a negative index leaves the row out.
    """
    for start in range(0, len(source), BLOCK_ROWS):
        stop = min(start + BLOCK_ROWS, len(source))
        chosen = templates[start:stop]
        if (chosen < 0).all():
            continue
        rows = read_unit_rows(source, start, stop)
        sums.add(rows[chosen >= 0], chosen[chosen >= 0])
