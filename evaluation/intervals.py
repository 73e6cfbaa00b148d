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
MAX_SHARE = 0.75
"""Upper bound of s in the correction of the variance, see `rate_interval`."""


class RateInterval(NamedTuple):
    """Rate over pairs, with the ends of its 95 % interval; fractions from 0 to 1.

    ``pairs`` is the number of pairs.
    """

    rate: float
    low: float
    high: float
    pairs: int


def rate_interval(
    outcomes: np.ndarray, people: np.ndarray, corrected: bool = True, *, folds: int = 0
) -> RateInterval | None:
    """Return the mean of the outcomes of N pairs with its 95 % interval; None for no pairs.

    Parameters
    ----------
    outcomes
        Outcome of each pair, such as "is classified correctly", (N,) bool.
    people
        For each image of each pair, the index of its person or of its group of linked images (see
        `evaluation.people.find_groups`), (N, 2) int.
    corrected
        Whether to correct the interval for the number of people, see the notes.
    folds
        Number of consecutive folds of the pairs, if the threshold of each fold was selected on the
        other folds; 0 if one threshold is given for all pairs.

    Notes
    -----
    The variance is never less than that of independent pairs.  The deviations are from the mean of
    the same pairs, so the variance is too small by a fraction s.  To find s, compute for each
    person the fraction of the pairs that show this person, and add up the squares of these
    fractions.  The correction divides the variance by 1 - s, and takes the quantile from Student's
    distribution; the degrees of freedom are the number of people minus 1.

    The selection of thresholds adds variance that the sum over pairs does not contain.  With K
    folds, the variance is therefore at least that of the mean of the folds' rates, and is
    multiplied by K / (K - 1).  The factor is empirical: `tools/interval_coverage.py --folds` shows
    which fraction of simulated intervals contains the true accuracy.
    """
    outcomes = np.asarray(outcomes, np.float64)
    count = len(outcomes)
    if not count:
        return None
    rate = float(outcomes.mean())
    variance, quantile = rate * (1 - rate) / count, NORMAL_QUANTILE
    if variance:
        share, size = _shares(people)
        correction = 1 / (1 - min(share, MAX_SHARE)) if corrected else 1.0
        variance = max(variance, correction * dyadic_variance(outcomes - rate, people))
        if folds:
            rates = [fold.mean() for fold in np.array_split(outcomes, folds)]
            variance = max(variance, float(np.var(rates, ddof=1)) / folds) * folds / (folds - 1)
        quantile = student_quantile(max(1, size - 1)) if corrected else quantile
    effective = rate * (1 - rate) / variance if variance else count
    low, high = wilson_interval(rate, effective, quantile)
    return RateInterval(rate, low, high, count)


def _shares(people: np.ndarray) -> tuple[float, int]:
    """Sum (fraction of pairs with the person)^2 over people; return sum and number of people."""
    first, second = np.asarray(people).T
    counts = np.bincount(np.concatenate([first, second[first != second]]))
    return float(np.sum((counts / len(first)) ** 2)), int(np.count_nonzero(counts))


def student_quantile(degrees: int) -> float:
    """Return the 97.5 % quantile of Student's distribution.

    The expansion is that of Abramowitz and Stegun, "Handbook of Mathematical Functions", 26.7.5;
    its error is below 0.001 for 10 or more degrees of freedom.
    """
    z = NORMAL_QUANTILE
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
    )
    return z + sum(term / degrees ** (n + 1) for n, term in enumerate(terms))


def dyadic_variance(deviations: np.ndarray, people: np.ndarray) -> float:
    """Return the variance of the mean of N deviations; pairs that share a person are dependent.

    Inputs
    ------
    deviations (N,) float, people (N, 2) int.
    """
    first, second = np.asarray(people).T
    both = first != second
    size = int(max(first.max(), second.max())) + 1
    sums = np.bincount(first, deviations, size)
    sums += np.bincount(second[both], deviations[both], size)
    # The product of two pairs that show the same two people is in the squared sums of both people,
    # so subtract it once.
    low, high = np.minimum(first, second)[both], np.maximum(first, second)[both]
    _, numbers = np.unique(low.astype(np.int64) * size + high, return_inverse=True)
    twice = np.bincount(numbers, deviations[both])
    return float((np.sum(sums**2) - np.sum(twice**2)) / len(deviations) ** 2)


def wilson_interval(
    rate: float, count: float, quantile: float = NORMAL_QUANTILE
) -> tuple[float, float]:
    """Return the ends of Wilson's 95 % interval of a rate over `count` independent outcomes."""
    square = quantile**2
    centre = (rate + square / (2 * count)) / (1 + square / count)
    half = quantile / (1 + square / count)
    half *= np.sqrt(rate * (1 - rate) / count + square / (4 * count**2))
    # Rounding could exclude a rate of 0 or 1 from its own interval: set that end to the rate.
    low = 0.0 if rate == 0 else max(0.0, float(centre - half))
    return low, 1.0 if rate == 1 else min(1.0, float(centre + half))
