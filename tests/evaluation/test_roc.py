# SPDX-License-Identifier: Apache-2.0
"""TAR at FAR: the best threshold whose false accept rate is at most the one asked for."""

from __future__ import annotations

import numpy as np
import pytest

from evaluation.roc import allowed_false_accepts, highest_needed, roc_points
from tests.evaluation.slow_oracles import tar


@pytest.mark.parametrize("steps", [3, 20, 10**6])
def test_the_rates_are_those_of_the_best_threshold(steps):
    rng = np.random.default_rng(steps)
    genuine = np.round(rng.normal(0.4, 0.3, 60) * steps) / steps
    impostors = np.round(rng.normal(0, 0.3, 200) * steps) / steps
    fars = [0.005, 0.01, 0.1, 0.5]
    highest = np.sort(impostors)[::-1]
    needed = highest_needed(fars, 200)
    assert needed == 101
    for given in (highest, highest[:needed]):
        for point in roc_points(genuine, given, 200, fars):
            assert point.tar == tar(genuine, impostors, point.far)
            false = int((impostors > point.threshold).sum())
            assert point.false_accepts == false <= point.far * 200


def test_equal_scores_are_never_accepted_alone():
    (point,) = roc_points(np.ones(5), np.ones(100), 100, [0.5])
    assert (point.tar, point.false_accepts) == (0.0, 0)


def test_there_is_no_rate_for_too_few_impostors_or_no_genuine_pair():
    scores = np.arange(100)[::-1] / 100
    assert [p.tar for p in roc_points(np.ones(3), scores, 100, [1e-3, 1e-2])] == [None, 1.0]
    assert roc_points(np.empty(0), scores, 100, [0.1])[0].tar is None
    assert roc_points(np.ones(3), np.empty(0), 0, [0.1])[0].threshold is None


@pytest.mark.parametrize(
    "far, impostors, allowed",
    [(1e-6, 8_000_000, 8), (1e-6, 7_999_999, 7), (0.1, 3000, 300), (1e-3, 999, 0), (0.5, 3, 1)],
)
def test_the_number_of_false_accepts_is_rounded_down_but_exact(far, impostors, allowed):
    assert allowed_false_accepts(far, impostors) == allowed


@pytest.mark.parametrize("far", [0, 1, -1, float("nan")])
def test_a_rate_out_of_range_is_refused(far):
    with pytest.raises(ValueError, match="false accept rate: must be above 0 and below 1, got "):
        allowed_false_accepts(far, 10)
