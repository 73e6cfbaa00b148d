# SPDX-License-Identifier: Apache-2.0
"""Report of a verification set: both columns, ROC points and intervals."""

from __future__ import annotations

import json

import numpy as np
import pytest

from evaluation.embedding import FlippedEmbeddings
from evaluation.people import People
from evaluation.set_report import find_roc_points, report_set
from evaluation.verification import pair_distances, tar_at_far, verify


def make_set(pairs: int = 300) -> tuple[FlippedEmbeddings, np.ndarray, People]:
    rng = np.random.default_rng(0)
    issame = np.arange(pairs) % 3 == 0
    people = rng.integers(0, 40, (pairs, 2))
    people[issame, 1] = people[issame, 0]
    people[~issame, 1] = (people[~issame, 0] + 1 + people[~issame, 1] % 39) % 40
    centres = rng.normal(size=(40, 6))
    plain, mirrored = (
        (centres[people.reshape(-1)] + rng.normal(size=(2 * pairs, 6))).astype(np.float32)
        for _ in range(2)
    )
    return FlippedEmbeddings(plain, mirrored), issame, People(people.reshape(-1), "people")


def test_the_columns_are_those_of_the_two_embeddings_alone():
    """Neither column depends on the embeddings of the other column."""
    embeddings, issame, people = make_set()
    report = report_set(embeddings, issame, people)
    for found, rows in ((report, embeddings.sums), (report["no_flip"], embeddings.plain)):
        alone = verify(rows, issame)
        for key in ("accuracy", "accuracy_std", "best_threshold", "eer", "auc", "pairs"):
            assert found[key] == alone[key]
    assert report["no_flip"]["accuracy"] < report["accuracy"]
    plain_norms = np.linalg.norm(embeddings.plain, axis=1)
    assert report["no_flip"]["xnorm"] == pytest.approx(plain_norms.mean(), rel=1e-6)
    other = FlippedEmbeddings(embeddings.plain, embeddings.mirrored[::-1])
    assert report_set(other, issame, people)["no_flip"] == report["no_flip"]
    assert report["people"] == 40


def test_the_flip_column_of_a_set_ignores_the_sets_before_it():
    """GluonFR's scripts/test_script.py never resets the metric of its flip column.

    The published figure of a set is therefore that of the pairs of all sets so far.
    """
    (one, issame, people), other = make_set(), make_set(pairs=240)
    other = FlippedEmbeddings(-other[0].plain[::-1], other[0].mirrored), other[1]
    leaking = verify(np.concatenate([one.sums, other[0].sums]), np.concatenate([issame, other[1]]))
    alone = verify(other[0].sums, other[1])
    second = People(people.numbers[:480], "people")
    report_set(one, issame, people)
    assert report_set(*other, second)["accuracy"] == alone["accuracy"] != leaking["accuracy"]


def test_the_report_is_json_and_its_intervals_contain_the_rates():
    report = report_set(*make_set())
    assert json.loads(json.dumps(report)) == report
    low, high = report["accuracy_interval"]
    assert low < report["accuracy"] < high
    points = {point["far"]: point for point in report["roc"]}
    assert sorted(points) == [1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1]
    assert all(point["negatives"] == 200 for point in points.values())
    assert [far for far, point in points.items() if point["tar"] is not None] == [1e-1]
    low, high = points[1e-1]["tar_interval"]
    assert low < points[1e-1]["tar"] < high and points[1e-1]["false_accepts"] == 20
    assert report["tar_at_far_1e-1"] == points[1e-1]["tar"]
    assert report["tar_at_far_1e-3"] is report["no_flip"]["tar_at_far_1e-3"] is None


def test_the_roc_points_are_those_of_tar_at_far():
    embeddings, issame, _ = make_set()
    for decimals in (9, 1):  # without and with ties
        distances = np.round(pair_distances(embeddings.sums), decimals)
        for point in find_roc_points(distances, issame, [0.05, 0.1, 0.3, 0.049]):
            assert point.tar == tar_at_far(distances, issame, point.far)
            if point.tar is not None:
                accepted = distances < -point.threshold
                assert point.false_accepts == accepted[~issame].sum() <= point.far * 200
                assert point.tar == pytest.approx(accepted[issame].mean())
