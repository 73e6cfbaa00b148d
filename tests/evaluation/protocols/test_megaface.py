# SPDX-License-Identifier: Apache-2.0
"""Noise lists of MegaFace, and parts of the probes."""

from __future__ import annotations

import numpy as np
import pytest

from evaluation.protocols import megaface
from evaluation.protocols.megaface import (
    MegaFaceError,
    clean_distractors,
    clean_probes,
    evaluate_megaface,
)
from evaluation.row_sources import ArrayRows
from tests.evaluation.slow_oracles import unit

NAMES = ["Ann/a1.png", "Ann/a2.png", "Ann/a3.png", "Bob/b1.png"]


def test_a_mislabelled_probe_becomes_the_sum_of_the_others():
    features = unit(np.random.default_rng(0).standard_normal((4, 8))).astype(np.float32)
    names, found = clean_probes(NAMES, features, {"a2.png"}, "replace")
    assert names == NAMES and np.array_equal(found[[0, 2, 3]], features[[0, 2, 3]])
    np.testing.assert_allclose(found[1], unit(features[0] + features[2]), atol=2e-3)
    names, found = clean_probes(NAMES, features, {"a2.png"}, "remove")
    assert names == [NAMES[0], *NAMES[2:]] and np.array_equal(found, features[[0, 2, 3]])


def test_a_person_without_a_correct_probe_is_refused():
    with pytest.raises(MegaFaceError, match="Bob/b1.png: the person must have a correct image, go"):
        clean_probes(NAMES, np.eye(4, dtype=np.float32), {"b1.png"}, "replace")


def test_removed_distractors_are_counted_up_to_each_size():
    rows = ArrayRows(np.arange(8, dtype=np.float32).reshape(4, 2), "rows")
    found, remaining = clean_distractors(["a", "b", "c", "d"], rows, {"b"})
    assert found.read(0, 3).tolist() == [[0, 1], [4, 5], [6, 7]]
    assert remaining.tolist() == [0, 1, 1, 2, 3]


def test_parts_of_the_probes_give_the_rates_of_all(monkeypatch):
    rng = np.random.default_rng(1)
    names = [f"p{i // 4}/{i}.png" for i in range(24)]
    features = unit(rng.standard_normal((24, 4))).astype(np.float32)
    others = ArrayRows(rng.standard_normal((50, 4)).astype(np.float32), "others")
    found = []
    for most in (4096, 5):
        monkeypatch.setattr(megaface, "MAX_PROBES", most)
        found.append(evaluate_megaface(names, features, others, {10: 10, 50: 50}, fars=(0.01,)))
    assert found[0] == found[1] and 0 < found[0]["sizes"]["10"]["rank_1"] < 1


def test_probes_of_different_people_only_are_refused():
    rows = ArrayRows(np.eye(4, dtype=np.float32), "rows")
    with pytest.raises(MegaFaceError, match="at least one person must have two images, got 2 "):
        evaluate_megaface(["a/1", "b/1"], np.eye(2, 4, dtype=np.float32), rows, {4: 4})


def test_a_size_whose_distractors_are_all_noise_has_perfect_rates():
    rows = ArrayRows(np.eye(4, dtype=np.float32)[[0, 0, 1]], "rows")
    features = unit(np.array([[1, 0.1, 0, 0], [0, 0.1, 1, 0]])).astype(np.float32)
    found = evaluate_megaface(["Ann/1", "Ann/2"], features, rows, {2: 0, 5: 3}, ranks=(1, 2, 4))
    assert found["sizes"]["2"] == {"distractors": 0, "rank_1": 1, "rank_2": 1, "rank_4": 1}
    assert found["sizes"]["5"] == {"distractors": 3, "rank_1": 0, "rank_2": 0.5, "rank_4": 1}


def test_a_rate_that_needs_too_many_scores_is_refused(monkeypatch):
    monkeypatch.setattr(megaface, "MAX_TAIL_SCORES", 3)
    rows = ArrayRows(np.eye(4, dtype=np.float32), "rows")
    features = np.eye(2, 4, dtype=np.float32)
    assert evaluate_megaface(["a/1", "a/2"], features, rows, {4: 4}, fars=(0.1,))["pairs"] == 2
    with pytest.raises(MegaFaceError) as caught:
        evaluate_megaface(["a/1", "a/2"], features, rows, {4: 4}, fars=(0.1, 0.9))
    assert str(caught.value) == (
        "--fars: the highest rate must allow at most 3 false accepts, got 0.9 of 8 impostor pairs; "
        "ask for lower rates"
    )
