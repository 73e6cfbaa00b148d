# SPDX-License-Identifier: Apache-2.0
"""Intervals of rates against a sum over all pairs of pairs, and known cases."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from evaluation.intervals import (
    dyadic_variance,
    rate_interval,
    student_quantile,
    wilson_interval,
)


def slow_variance(deviations, people):
    """Sum the products of the deviations of all pairs of pairs that share a person."""
    total = 0.0
    for a, b in product(range(len(deviations)), repeat=2):
        if {*people[a].tolist()} & {*people[b].tolist()}:
            total += deviations[a] * deviations[b]
    return total / len(deviations) ** 2


@pytest.mark.parametrize("seed", range(4))
def test_the_variance_is_the_sum_over_pairs_that_share_a_person(seed):
    rng = np.random.default_rng(seed)
    people = rng.integers(0, 6, (50, 2))  # many pairs of one person, and of the same two people
    deviations = rng.normal(size=50)
    assert dyadic_variance(deviations, people) == pytest.approx(slow_variance(deviations, people))


def test_independent_pairs_have_the_interval_of_wilson():
    # Newcombe, "Two-sided confidence intervals for the single proportion", 1998, table I: 81 of 263
    # and 15 of 148.
    for right, count, low, high in ((81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605)):
        people = np.arange(2 * count).reshape(-1, 2)
        found = rate_interval(np.arange(count) < right, people, corrected=False)
        assert found.pairs == count and found.rate == right / count
        assert (round(found.low, 4), round(found.high, 4)) == (low, high)


def test_pairs_of_few_people_widen_the_interval():
    right_of_person = np.random.default_rng(2).random(20) < 0.5
    people = np.arange(20).repeat(40).reshape(-1, 2)  # 20 pairs of each of 20 people
    found = rate_interval(right_of_person[people[:, 0]], people)
    # s is 20 times the square of 1 / 20; the quantile is that of 19 degrees of freedom.
    low, high = wilson_interval(found.rate, 20 * (1 - 1 / 20), 2.0930)
    assert (found.low, found.high) == pytest.approx((low, high), abs=1e-4)


def test_the_variance_is_at_least_that_of_independent_pairs():
    outcomes = np.arange(40) % 2 == 0
    people = np.zeros((40, 2), int)  # the deviations of the one person have the sum 0
    found = rate_interval(outcomes, people, corrected=False)
    assert (found.low, found.high) == pytest.approx(wilson_interval(0.5, 40))


def test_the_variance_is_at_least_that_between_the_folds():
    outcomes = np.arange(100) < 80  # eight folds with the rate 1, and two with the rate 0
    people = np.arange(200).reshape(-1, 2)
    found = rate_interval(outcomes, people, corrected=False, folds=10)
    variance = (8 * 0.2**2 + 2 * 0.8**2) / 9 / 10 * 10 / 9
    assert (found.low, found.high) == pytest.approx(wilson_interval(0.8, 0.8 * 0.2 / variance))
    alike = np.arange(100) % 5 > 0  # all folds have the rate 0.8
    found = rate_interval(alike, people, corrected=False, folds=10)
    assert (found.low, found.high) == pytest.approx(wilson_interval(0.8, 100 * 9 / 10))


def test_the_quantile_is_that_of_student():
    # Abramowitz and Stegun, table 26.10.
    for degrees, quantile in ((10, 2.228), (20, 2.086), (60, 2.000), (120, 1.980)):
        assert student_quantile(degrees) == pytest.approx(quantile, abs=1e-3)


def test_a_rate_of_0_or_1_has_an_interval_and_no_pairs_have_none():
    people = np.arange(20).reshape(-1, 2)
    found = rate_interval(np.ones(10, bool), people)
    assert found.rate == found.high == 1 and 0.6 < found.low < 0.75
    found = rate_interval(np.zeros(10, bool), people)
    assert found.rate == found.low == 0 and 0.25 < found.high < 0.4
    assert rate_interval(np.ones(0, bool), np.ones((0, 2), int)) is None
