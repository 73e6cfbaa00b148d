# SPDX-License-Identifier: Apache-2.0
"""95 % confidence intervals of rates over image pairs that share people.

Two pairs are dependent if they share a person.  The variance of a rate over N pairs is therefore
the sum of the products e_a e_b over all pairs of pairs (a, b) that share a person, divided by N^2;
e is the deviation of a pair's outcome from the rate.  The interval is Wilson's interval for the
number of independent pairs that would have this variance.

Aronow, Samii and Assenova, "Cluster-robust variance estimation for dyadic data", Political Analysis
23(4), 2015.  Fogliato, Patil and Perona, "Confidence intervals for error rates in 1:1 matching
tasks", IJCV 132, 2024.  Wilson, "Probable inference", JASA 22, 1927.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

NORMAL_QUANTILE = 1.959963984540054
"""97.5 % quantile of the standard normal distribution."""


class RateInterval(NamedTuple):
    """Rate over pairs, with the ends of its 95 % interval; fractions from 0 to 1."""

    rate: float
    low: float
    high: float
    pairs: int


def rate_interval(outcomes: np.ndarray, people: np.ndarray) -> RateInterval | None:
    """Return the mean of the outcomes of N pairs with its 95 % interval; None for no pairs.

    Parameters
    ----------
    outcomes
        Outcome of each pair, such as "is classified correctly", (N,) bool.
    people
        Number of the person, or of the group of linked images, of each image of each pair, (N, 2)
        int.

    Notes
    -----
    The variance is never less than that of independent pairs.
    """
    outcomes = np.asarray(outcomes, np.float64)
    count = len(outcomes)
    if not count:
        return None
    rate = float(outcomes.mean())
    variance = rate * (1 - rate) / count
    if variance:
        variance = max(variance, dyadic_variance(outcomes - rate, people))
    low, high = wilson_interval(rate, rate * (1 - rate) / variance if variance else count)
    return RateInterval(rate, low, high, count)


def dyadic_variance(deviations: np.ndarray, people: np.ndarray) -> float:
    """Return the variance of the mean of N deviations, where pairs that share a person depend.

    Inputs
    ------
    deviations (N,) float, people (N, 2) int.
    """
    first, second = np.asarray(people).T
    both = first != second
    size = int(max(first.max(), second.max())) + 1
    sums = np.bincount(first, deviations, size)
    sums += np.bincount(second[both], deviations[both], size)
    # The squares of `sums` count two pairs of the same two people twice.
    low, high = np.minimum(first, second)[both], np.maximum(first, second)[both]
    _, numbers = np.unique(low.astype(np.int64) * size + high, return_inverse=True)
    twice = np.bincount(numbers, deviations[both])
    return float((np.sum(sums**2) - np.sum(twice**2)) / len(deviations) ** 2)


def wilson_interval(rate: float, count: float) -> tuple[float, float]:
    """Return the ends of Wilson's 95 % interval of a rate over `count` independent outcomes."""
    square = NORMAL_QUANTILE**2
    centre = (rate + square / (2 * count)) / (1 + square / count)
    half = NORMAL_QUANTILE / (1 + square / count)
    half *= np.sqrt(rate * (1 - rate) / count + square / (4 * count**2))
    # Rounding must not keep the interval from containing the rates 0 and 1.
    low = 0.0 if rate == 0 else max(0.0, float(centre - half))
    return low, 1.0 if rate == 1 else min(1.0, float(centre + half))
