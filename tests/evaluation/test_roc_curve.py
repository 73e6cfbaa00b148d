# SPDX-License-Identifier: Apache-2.0
"""ROC curve, area and equal error rate against loops over thresholds and pairs."""

from __future__ import annotations

import numpy as np
import pytest

from evaluation.roc_curve import area_under_curve, compute_roc_curve, equal_error_rate


def make_scores(pairs: int, seed: int, decimals: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    issame = rng.random(pairs) < 0.4
    return np.round(rng.normal(issame, 1), decimals), issame


def oracle(scores, issame):
    """Return (threshold, FAR, TAR) of each threshold, by counting."""
    points = [(np.inf, 0.0, 0.0)]
    for threshold in sorted(set(scores.tolist()), reverse=True):
        false = sum(s >= threshold for s, same in zip(scores, issame) if not same)
        true = sum(s >= threshold for s, same in zip(scores, issame) if same)
        points.append((threshold, false / sum(~issame), true / sum(issame)))
    return points


CASES = [(60, 0, 9), (60, 1, 0), (7, 2, 1), (200, 3, 1)]


@pytest.mark.parametrize("pairs, seed, decimals", CASES)
def test_the_curve_has_the_counted_rates_at_every_threshold(pairs, seed, decimals):
    scores, issame = make_scores(pairs, seed, decimals)
    curve = compute_roc_curve(scores, issame)
    found = list(zip(curve.thresholds, curve.far, curve.tar))
    np.testing.assert_allclose(found, oracle(scores, issame), atol=1e-12)


@pytest.mark.parametrize("pairs, seed, decimals", CASES)
def test_the_area_is_the_fraction_of_correctly_ordered_scores(pairs, seed, decimals):
    scores, issame = make_scores(pairs, seed, decimals)
    wins = [(a > b) + (a == b) / 2 for a in scores[issame] for b in scores[~issame]]
    area = area_under_curve(compute_roc_curve(scores, issame))
    assert area == pytest.approx(np.mean(wins), abs=1e-12)


@pytest.mark.parametrize("pairs, seed, decimals", CASES)
def test_the_equal_error_rate_is_that_of_fvc2000(pairs, seed, decimals):
    scores, issame = make_scores(pairs, seed, decimals)
    points = oracle(scores, issame)[::-1]  # ascending thresholds
    sums = [far + 1 - tar for _, far, tar in points]
    crossing = next(i for i, (_, far, tar) in enumerate(points) if far <= 1 - tar + 1e-9)
    equal = abs(points[crossing][1] - (1 - points[crossing][2])) < 1e-9
    expected = (sums[crossing] if equal else min(sums[crossing - 1 : crossing + 1])) / 2
    found = equal_error_rate(compute_roc_curve(scores, issame))
    assert found == pytest.approx(expected, abs=1e-12)


def test_the_lower_threshold_is_used_if_both_sums_of_rates_are_equal():
    # The rates cross between the thresholds 3 (FAR 0, FRR 1/2) and 2 (FAR 1/2, FRR 0).
    curve = compute_roc_curve(np.array([3.0, 2, 2, 1]), np.array([True, True, False, False]))
    assert equal_error_rate(curve) == 0.25


def test_degenerate_scores_have_the_rates_of_a_coin_or_of_perfection():
    issame = np.arange(10) < 4
    equal = compute_roc_curve(np.ones(10), issame)
    assert (area_under_curve(equal), equal_error_rate(equal)) == (0.5, 0.5)
    perfect = compute_roc_curve(issame.astype(float), issame)
    assert (area_under_curve(perfect), equal_error_rate(perfect)) == (1, 0)
    wrong = compute_roc_curve(-issame.astype(float), issame)
    assert (area_under_curve(wrong), equal_error_rate(wrong)) == (0, 1)


@pytest.mark.parametrize(
    "scores, issame, problem",
    [
        ([0.5, np.nan], [True, False], "scores must be finite, got nan for pair 1"),
        ([np.inf, 0.5], [True, False], "scores must be finite, got inf for pair 0"),
        ([0.5, 0.2], [True, True], "got 2 same-person pairs among 2"),
        ([0.5, 0.2], [False, False], "got 0 same-person pairs among 2"),
        ([0.5], [False, True], "one score for each pair"),
    ],
)
def test_scores_without_a_curve_are_refused(scores, issame, problem):
    with pytest.raises(ValueError, match=problem):
        compute_roc_curve(np.array(scores), np.array(issame))
