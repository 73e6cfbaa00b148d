# SPDX-License-Identifier: Apache-2.0
"""Thresholds that one set fixes, and the errors of another set at them."""

from __future__ import annotations

import numpy as np
import pytest

from evaluation.threshold_transfer import errors_at, fix_thresholds
from evaluation.verification import THRESHOLDS, best_threshold


def make_distances(seed: int, pairs: int = 2000) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    issame = rng.random(pairs) < 0.3
    return np.clip(rng.normal(2 - issame, 0.5), 0, 4), issame


def test_the_best_threshold_is_the_smallest_with_the_highest_accuracy():
    for seed in range(3):
        distances, issame = make_distances(seed, 200)
        accuracies = [np.mean((distances < t) == issame) for t in THRESHOLDS]
        assert best_threshold(distances, issame) == THRESHOLDS[int(np.argmax(accuracies))]


def test_a_far_fixes_the_threshold_on_the_first_set_alone():
    one, two = make_distances(0), make_distances(1)
    fixed = dict(fix_thresholds(*one, [1e-1, 1e-2, 1e-6]))
    assert list(fixed) == ["best accuracy", "FAR 1e-1", "FAR 1e-2"]
    distances, issame = one
    for far in (1e-1, 1e-2):
        rate = np.mean(distances[~issame] < fixed[f"FAR {far:.0e}".replace("e-0", "e-")])
        assert far - 1 / np.sum(~issame) < rate <= far
    distances, issame = two
    people = np.arange(2 * len(issame)).reshape(-1, 2)
    threshold = fixed["FAR 1e-2"]
    found = errors_at(threshold, distances, issame, people)
    assert found["threshold"] == pytest.approx(1 - threshold / 2)
    assert found["fmr"]["rate"] == np.mean(distances[~issame] < threshold)
    assert found["fnmr"]["rate"] == pytest.approx(np.mean(distances[issame] >= threshold))
    assert found["fmr"]["pairs"] + found["fnmr"]["pairs"] == found["accuracy"]["pairs"] == 2000
    assert all(found[key]["low"] < found[key]["rate"] < found[key]["high"]
               for key in ("fmr", "fnmr", "accuracy"))  # fmt: skip


def test_pairs_of_one_kind_have_no_rate_of_the_other_kind():
    people = np.arange(20).reshape(-1, 2)
    found = errors_at(1.0, np.linspace(0, 3, 10), np.ones(10, bool), people)
    assert found["fmr"] is None and found["fnmr"]["rate"] == pytest.approx(0.7)
