# SPDX-License-Identifier: Apache-2.0
"""The metric that eval.best names."""

from __future__ import annotations

import pytest

from training.best_metric import parse_best_metric


def test_a_metric_alone_is_the_mean_over_all_sets():
    results = {"lfw": {"accuracy": 0.5, "eer": 0.25}, "cfp_fp": {"accuracy": 1.0, "eer": 0.5}}
    assert parse_best_metric("accuracy", list(results)).value(results) == 0.75
    assert parse_best_metric("cfp_fp/eer", list(results)).value(results) == 0.5


def test_errors_are_better_when_lower():
    for text, better in (("eer", False), ("auc", True), ("tar_at_far_1e-3", True)):
        metric = parse_best_metric(text, ["lfw"])
        assert metric.is_better(0.5, 0.25) is better and metric.is_better(0.25, 0.5) is not better
        assert metric.is_better(0.5, None) and not metric.is_better(0.5, 0.5)


@pytest.mark.parametrize(
    ("text", "sets", "problem"),
    [
        ("loss", ["lfw"], "eval.best: must be METRIC or SET/METRIC .* got 'loss'; use eval.best="),
        ("lfw/", ["lfw"], "got 'lfw/'"),
        ("/accuracy", ["lfw"], "got '/accuracy'"),
        ("accuracy", [], "requires verification sets, got 'accuracy' and an empty eval.sets"),
        ("lwf/auc", ["lfw", "cfp"], "must name a set of eval.sets, got 'lwf'; use one of lfw, cfp"),
    ],
)
def test_other_values_are_refused(text, sets, problem):
    with pytest.raises(ValueError, match=problem):
        parse_best_metric(text, sets)
