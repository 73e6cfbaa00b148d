# SPDX-License-Identifier: Apache-2.0
"""All pairs: the rates of a loop over all pairs, in blocks of any size."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from evaluation import all_pairs, score_statistics
from evaluation.all_pairs import AllPairsError, evaluate_all_pairs
from tests.evaluation.slow_oracles import tar


def unit(rows: int) -> np.ndarray:
    values = np.random.default_rng(0).standard_normal((rows, 5))
    return (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize("rows, scores", [(2048, 1 << 23), (4, 20), (1, 1)])
def test_the_rates_are_those_of_a_loop_over_all_pairs(monkeypatch, rows, scores):
    monkeypatch.setattr(all_pairs, "BLOCK_ROWS", rows)
    monkeypatch.setattr(score_statistics, "BLOCK_SCORES", scores)
    embeddings, people = unit(30), np.random.default_rng(1).integers(-1, 6, 30)
    genuine, impostors = [], []
    for i, j in combinations(range(30), 2):
        score = float(embeddings[i].astype(float) @ embeddings[j])
        if people[i] == people[j] != -1:
            genuine.append(score)
        elif people[i] != people[j]:
            impostors.append(score)
    found = evaluate_all_pairs(embeddings, people, [0.01, 0.1, 0.3])
    assert (found["genuine_pairs"], found["impostor_pairs"]) == (len(genuine), len(impostors))
    for point in found["roc"]:
        assert point["tar"] == pytest.approx(tar(genuine, impostors, point["far"]))


@pytest.mark.parametrize("people", [[0, 0, 0], [-1, -1, -1], [0, 1, -1]])
def test_pairs_of_both_kinds_are_needed(people):
    with pytest.raises(AllPairsError, match="list: there must be pairs of one person and pairs of"):
        evaluate_all_pairs(unit(3), np.array(people), [0.1], "list")


def test_more_scores_than_fit_into_memory_are_refused(monkeypatch):
    monkeypatch.setattr(all_pairs, "MAX_SCORES", 3)
    with pytest.raises(AllPairsError, match="impostor scores can be kept, got 10 genuine scores"):
        evaluate_all_pairs(unit(6), np.array([0, 0, 0, 0, 0, 1]), [0.1])
