# SPDX-License-Identifier: Apache-2.0
"""Error rates of a verification set at thresholds that were selected on another set."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from evaluation.intervals import RateInterval, rate_interval
from evaluation.roc import FARS
from evaluation.set_report import find_roc_points
from evaluation.verification import best_threshold, cosine_threshold, format_far

if TYPE_CHECKING:
    import numpy as np


class FixedThreshold(NamedTuple):
    """Squared distance below which a pair counts as one person, and the rule that selected it."""

    rule: str
    distance: float


def fix_thresholds(
    distances: np.ndarray, issame: np.ndarray, fars: Sequence[float] = FARS
) -> list[FixedThreshold]:
    """Select thresholds on P pairs: the one with the highest accuracy, and one for each FAR.

    A false accept rate for which the set has too few pairs gives no threshold, see
    `evaluation.set_report.find_roc_points`.
    """
    points = reversed(find_roc_points(distances, issame, sorted(fars)))
    by_far = [
        FixedThreshold(f"FAR {format_far(point.far)}", -point.threshold)
        for point in points
        if point.threshold is not None
    ]
    return [FixedThreshold("best accuracy", best_threshold(distances, issame)), *by_far]


def errors_at(
    threshold: float, distances: np.ndarray, issame: np.ndarray, people: np.ndarray
) -> dict[str, Any]:
    """Return the errors of P pairs at a threshold.

    Parameters
    ----------
    threshold
        Squared distance; a pair is accepted if its distance is smaller.
    people
        For each image of each pair, the index of its person or of its group of linked images (see
        `evaluation.people.find_groups`), (P, 2) int.

    Outputs
    -------
    ``threshold`` as a cosine; ``accuracy``, ``fmr`` (fraction of the different-person pairs that
    are accepted) and ``fnmr`` (fraction of the same-person pairs that are rejected).  Each rate is
    a dict with the fields of `RateInterval`, or None if there are no pairs to compute it from.
    """
    accepted = distances < threshold
    rates = {
        "accuracy": rate_interval(accepted == issame, people),
        "fmr": rate_interval(accepted[~issame], people[~issame]),
        "fnmr": rate_interval(~accepted[issame], people[issame]),
    }
    return {
        "threshold": cosine_threshold(threshold),
        **{name: describe_rate(rate) for name, rate in rates.items()},
    }


def describe_rate(rate: RateInterval | None) -> dict[str, Any] | None:
    """Return a rate as a dict for JSON files; None for None."""
    return None if rate is None else rate._asdict()
