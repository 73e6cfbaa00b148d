# SPDX-License-Identifier: Apache-2.0
"""Our metrics against results that scikit-learn 1.7, pyeer 0.5.6 and cimat 0.1.2 once gave."""

from __future__ import annotations

import numpy as np
import pytest

from evaluation.intervals import rate_interval
from evaluation.roc import roc_points
from evaluation.roc_curve import area_under_curve, compute_roc_curve, equal_error_rate
from evaluation.verification import fold_accuracies
from tools.check_evaluation import _compare_operating_point, _print, make_case

RESULTS = {
    ("normal", 0): {
        "auc": 0.8790805311796227,
        "eer": 0.20207087572157076,
        "fmr1000": [0.0008438818565400844, 0.9079754601226994],
        "fnmr": [0.17666341721153, 0.2528490337600068],
        "fmr": [0.15074515659957105, 0.23831431184676916],
        "accuracy": 0.807,
        "curve": (1979, 691.5493670886075, 1449.400000000021),
    },
    ("ties", 1): {
        "auc": 0.8840657059835142,
        "eer": 0.19243053669874144,
        "fmr1000": [0.0, 0.8580323785803238],
        "fnmr": [0.19546689482546645, 0.29744809187560517],
        "fmr": [0.11346196757477046, 0.17634038650008677],
        "accuracy": 0.808,
        "curve": (20, 8.80952380952381, 13.35865504358655),
    },
}


@pytest.mark.parametrize("kind", RESULTS)
def test_metrics_are_those_of_other_packages(kind):
    case, known = make_case(*kind), RESULTS[kind]
    scores, issame = np.array(case["scores"]), np.array(case["issame"])
    people = np.array(case["people"])
    curve = compute_roc_curve(scores, issame)
    assert (len(curve.far), curve.far.sum(), curve.tar.sum()) == pytest.approx(known["curve"])
    assert area_under_curve(curve) == pytest.approx(known["auc"], abs=1e-9)
    assert equal_error_rate(curve) == pytest.approx(known["eer"], abs=1e-9)
    accuracies, _ = fold_accuracies(2 - 2 * scores, issame)
    assert accuracies.mean() == pytest.approx(known["accuracy"], abs=1e-9)
    negatives = np.sort(scores[~issame])[::-1]
    (point,) = roc_points(scores[issame], negatives, len(negatives), [1e-3])
    assert 1 - point.tar == pytest.approx(known["fmr1000"][1], abs=1e-9)
    for key, chosen in (("fnmr", issame), ("fmr", ~issame)):
        errors = (scores[chosen] > case["threshold"]) != issame[chosen]
        found = rate_interval(errors, people[chosen], corrected=False)
        assert (found.low, found.high) == pytest.approx(known[key], abs=1e-9)
        wider = rate_interval(errors, people[chosen])
        assert wider.low < found.low and wider.high > found.high


def test_other_definitions_are_explained_and_differences_fail(capsys):
    name, difference, note = _compare_operating_point("pyeer FMR100", 0.5, (0.012, 0.4), 0.01)
    assert difference is None and "which lies above 0.01" in note
    assert _compare_operating_point("x", 0.5, (0.01, 0.4), 0.01)[1] == pytest.approx(0.1)
    assert _print({("ties", name): [(name, difference, note)]}) == 0
    assert _print({("ties", "EER"): [("EER", 2e-9, "")]}) == 1
    assert capsys.readouterr().out.splitlines()[-1] == "failed"
