# SPDX-License-Identifier: Apache-2.0
"""Metric of the verification that decides which checkpoint is the best one (``eval.best``)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

DIRECTIONS = {"accuracy": 1, "auc": 1, "eer": -1, "tar_at_far_1e-3": 1}
"""Metrics of a verification: 1 if a higher value is better, -1 if a lower value is better."""


class BestMetric(NamedTuple):
    """Metric of one verification set, or the mean of a metric over several sets.

    Parameters
    ----------
    text
        Value of ``eval.best``.
    sets
        Names of the sets.
    metric
        Key of DIRECTIONS.
    """

    text: str
    sets: tuple[str, ...]
    metric: str

    def value(self, verification: Mapping[str, Mapping[str, Any]]) -> float:
        """Return the value of the metric for the results of all sets."""
        return sum(float(verification[name][self.metric]) for name in self.sets) / len(self.sets)

    def is_better(self, value: float, than: float | None) -> bool:
        """Return whether a value is better than another one; None stands for no value."""
        return than is None or DIRECTIONS[self.metric] * (value - than) > 0


def parse_best_metric(text: str, sets: Sequence[str]) -> BestMetric:
    """Return the metric that ``eval.best`` names.

    Parameters
    ----------
    text
        "SET/METRIC" for a metric of one set, or "METRIC" for the mean over all sets.
    sets
        Names of the verification sets of the run.

    Raises
    ------
    ValueError
        If the set or the metric does not exist.
    """
    name, _, metric = text.rpartition("/")
    if metric not in DIRECTIONS or "/" in text[:1]:
        raise ValueError(
            f"eval.best: must be METRIC or SET/METRIC with one of the metrics "
            f"{', '.join(DIRECTIONS)}, got {text!r}; use eval.best=accuracy, for example"
        )
    if not sets:
        raise ValueError(
            f"eval.best: requires verification sets, got {text!r} and an empty eval.sets; set "
            "eval.sets"
        )
    if name and name not in sets:
        raise ValueError(
            f"eval.best: must name a set of eval.sets, got {name!r}; use one of {', '.join(sets)}"
        )
    return BestMetric(text, (name,) if name else tuple(sets), metric)
