# SPDX-License-Identifier: Apache-2.0
"""Compute the results of scikit-learn, pyeer and cimat:  python oracle_worker.py CASES.json

The worker runs in an environment with these packages and imports nothing of this repository.  Its
output is one JSON line for each case.
"""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from cimat import UncertaintyEstimator
from pyeer.eer_info import get_eer_stats
from sklearn.metrics import roc_auc_score, roc_curve
from sklearn.model_selection import KFold

THRESHOLDS = np.arange(0, 4, 0.01)


def fold_accuracies(distances: np.ndarray, issame: np.ndarray) -> list[float]:
    """Score each of ten folds of KFold at the threshold that is best on the other nine folds."""
    found = []
    for train, test in KFold(n_splits=10, shuffle=False).split(distances):
        rates = [np.mean((distances[train] < t) == issame[train]) for t in THRESHOLDS]
        best = THRESHOLDS[int(np.argmax(rates))]
        found.append(float(np.mean((distances[test] < best) == issame[test])))
    return found


def intervals(
    scores: np.ndarray, people: np.ndarray, threshold: float
) -> tuple[list[float], list[float]]:
    """Return the confidence intervals of FNMR and FMR that cimat computes at a threshold."""
    nested: dict[int, dict[int, list[float]]] = {int(p): {} for p in np.unique(people)}
    for score, (one, two) in zip(scores.tolist(), people.tolist(), strict=False):
        nested[one].setdefault(two, []).append(score)
        if one != two:  # cimat expects the score under both orders of two people
            nested[two].setdefault(one, []).append(score)
    estimator = UncertaintyEstimator(nested)
    estimator.compute_binerror_metrics(threshold)
    fnmr, fmr = estimator.compute_variance(threshold)
    # compute_binerror_metrics counts each score of two different people twice, in both orders.
    estimator.fp, estimator.tn = estimator.fp // 2, estimator.tn // 2
    return estimator.get_binerror_ci(threshold, fnmr, fmr)


def main(path: Path) -> None:
    """Print the results for each case of the file."""
    for case in json.loads(path.read_text()):
        scores, issame = np.array(case["scores"]), np.array(case["issame"], bool)
        people = np.array(case["people"])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            far, tar, thresholds = roc_curve(issame, scores, drop_intermediate=False)
            stats = get_eer_stats(scores[issame].tolist(), scores[~issame].tolist())
            fmr = np.asarray(stats.fmr)
            fnmr_interval, fmr_interval = intervals(scores, people, case["threshold"])
            result: dict[str, Any] = {
                "far": far.tolist(),
                "tar": tar.tolist(),
                "thresholds": [None if np.isinf(t) else float(t) for t in thresholds],
                "auc": float(roc_auc_score(issame, scores)),
                "accuracies": fold_accuracies(2 - 2 * scores, issame),
                "eer": float(stats.eer),
                "fmr100": [float(fmr[np.argmin(abs(fmr - 0.01))]), float(stats.fmr100)],
                "fmr1000": [float(fmr[np.argmin(abs(fmr - 0.001))]), float(stats.fmr1000)],
                "fnmr_interval": fnmr_interval,
                "fmr_interval": fmr_interval,
            }
        print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
