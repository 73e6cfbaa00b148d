# SPDX-License-Identifier: Apache-2.0
"""Statistics of blocks of scores equal those of all scores, whatever the size of the blocks."""

from __future__ import annotations

import numpy as np
import pytest

from evaluation import score_statistics
from evaluation.row_sources import ArrayRows
from evaluation.score_statistics import CountsAtLeast, HighestScores, TopScores, score_blocks


@pytest.fixture
def scores() -> np.ndarray:
    """Return scores with many ties."""
    rng = np.random.default_rng(1)
    return (rng.integers(-50, 50, (7, 600)) / 50).astype(np.float32)


def blocks(scores: np.ndarray, size: int) -> list[np.ndarray]:
    return [scores[:, start : start + size] for start in range(0, scores.shape[1], size)]


@pytest.mark.parametrize("stops", [(), (3, 40)])
def test_blocks_cover_the_gallery_and_end_at_the_stops(monkeypatch, stops):
    monkeypatch.setattr(score_statistics, "BLOCK_SCORES", 60)
    rng = np.random.default_rng(0)
    probes, gallery = (rng.standard_normal((n, 8)).astype(np.float32) for n in (5, 50))
    probes /= np.linalg.norm(probes, axis=1, keepdims=True)
    found = [(s, x.copy()) for s, x in score_blocks(probes, ArrayRows(gallery, "gallery"), stops)]
    starts = [start for start, _ in found]
    assert starts == sorted({*range(0, 50, 12), *stops})
    unit = gallery / np.linalg.norm(gallery, axis=1, keepdims=True)
    joined = np.concatenate([x for _, x in found], axis=1)
    np.testing.assert_allclose(joined, probes @ unit.T, atol=1e-6)


@pytest.mark.parametrize("size", [1, 100, 5000])
@pytest.mark.parametrize("count", [1, 4, 800])
def test_top_scores_are_the_highest_of_each_row(scores, size, count):
    top = TopScores(len(scores), count)
    for block in blocks(scores, size):
        top.add(block)
    expected = np.sort(scores, axis=1)[:, ::-1][:, :count]
    found = np.sort(top.scores, axis=1)[:, ::-1]
    np.testing.assert_array_equal(found[:, :600], expected)
    assert np.isneginf(found[:, 600:]).all()


@pytest.mark.parametrize("size", [100, 5000])
@pytest.mark.parametrize("count", [1, 500, 6000])
def test_highest_scores_are_those_of_all_rows(scores, size, count):
    highest = HighestScores(count)
    for block in blocks(scores, size):
        highest.add(block)
    expected = np.sort(scores.ravel())[::-1][:count]
    np.testing.assert_array_equal(highest.sorted(), expected)


def test_counts_include_ties_for_few_and_for_many_given_scores(scores):
    given = [scores[0, :3], np.empty(0), scores[2, :20], *([np.array([2.0])] * 4)]
    counts = CountsAtLeast(given)
    for block in blocks(scores, 70):
        counts.add(block)
    for row, limits in enumerate(given):
        assert counts.counts[row].tolist() == [int((scores[row] >= x).sum()) for x in limits]


def test_a_score_that_differs_by_rounding_counts_as_a_tie():
    counts = CountsAtLeast([np.array([0.5], np.float32)])
    counts.add(np.array([[0.5 - 1e-7, 0.5 - 1e-5]], np.float32))
    assert counts.counts[0].tolist() == [1]
