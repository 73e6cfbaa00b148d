# SPDX-License-Identifier: Apache-2.0
"""Verification against plain loops over pairs, thresholds and folds."""

from __future__ import annotations

import math
import sys

import numpy as np
import pytest

from evaluation.verification import fold_accuracies, format_far, tar_at_far, verify


def make_set(pairs: int, seed: int, spread: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    issame = rng.random(pairs) < 0.5
    one = rng.normal(size=(pairs, 8))
    two = np.where(issame[:, None], one + spread * rng.normal(size=one.shape), -one[::-1])
    return np.stack([one, two], axis=1).reshape(2 * pairs, 8) * 7, issame


def oracle(embeddings, issame, nfolds):
    """Compute the metrics with loops over folds, thresholds and pairs."""
    distances = []
    for i in range(len(issame)):
        a, b = [list(map(float, embeddings[2 * i + j])) for j in range(2)]
        a_norm, b_norm = math.sqrt(sum(x * x for x in a)), math.sqrt(sum(x * x for x in b))
        distances.append(sum((x / a_norm - y / b_norm) ** 2 for x, y in zip(a, b)))
    thresholds = [i * 0.01 for i in range(400)]
    folds, start = [], 0
    for k in range(nfolds):  # KFold without shuffling
        stop = start + len(issame) // nfolds + (k < len(issame) % nfolds)
        folds.append(range(start, stop))
        start = stop
    assert start == len(issame)

    def accuracy(indices, threshold):
        return sum((distances[i] < threshold) == issame[i] for i in indices) / len(indices)

    accuracies, chosen = [], []
    for fold in folds:
        rest = [i for i in range(len(issame)) if i not in fold]
        best = max(range(400), key=lambda t: (accuracy(rest, thresholds[t]), -t))
        chosen.append(thresholds[best])
        accuracies.append(accuracy(fold, thresholds[best]))
    mean = sum(accuracies) / nfolds
    std = math.sqrt(sum((x - mean) ** 2 for x in accuracies) / nfolds)
    return mean, std, sum(chosen) / nfolds


@pytest.mark.parametrize(
    "pairs, nfolds, spread", [(60, 10, 1), (73, 10, 2), (10, 10, 1), (31, 3, 4), (19, 10, 0.1)]
)
def test_accuracy_equals_the_oracle(pairs, nfolds, spread):
    embeddings, issame = make_set(pairs, pairs, spread)
    result = verify(embeddings, issame, nfolds)
    accuracy, std, threshold = oracle(embeddings, issame, nfolds)
    assert result["accuracy"] == pytest.approx(accuracy, abs=1e-12)
    assert result["accuracy_std"] == pytest.approx(std, abs=1e-12)
    assert result["best_threshold"] == pytest.approx(threshold, abs=1e-12)
    assert result["pairs"] == pairs


def test_perfect_separation_has_accuracy_1():
    one = np.eye(20, 32)
    embeddings = np.stack([one, np.where(np.arange(20)[:, None] % 2, one * 3, -one)], 1)
    issame = np.arange(20) % 2 == 1
    result = verify(embeddings.reshape(40, 32), issame, fars=(0.9, 1))
    assert result["accuracy"] == 1.0
    assert result["accuracy_std"] == 0.0
    assert result["tar_at_far_1e0"] == 1.0
    assert result["tar_at_far_9e-1"] is None  # 10 different-person pairs where 12 are needed


def test_norms_change_xnorm_but_not_the_accuracy():
    embeddings, issame = make_set(50, 3)
    scaled = embeddings * np.random.default_rng(0).uniform(0.1, 50, (100, 1))
    one, two = verify(embeddings, issame), verify(scaled, issame, norms=np.array([1.0, 2, 6]))
    assert one["accuracy"] == two["accuracy"]
    assert one["xnorm"] is None
    assert two["xnorm"] == 3.0


def test_result_keys_are_those_of_summary_json():
    embeddings, issame = make_set(30, 3)
    result = verify(embeddings, issame, fars=(1e-3, 2.5e-4), norms=np.ones(60, np.float32))
    assert set(result) == {
        "accuracy",
        "accuracy_std",
        "best_threshold",
        "tar_at_far_1e-3",
        "tar_at_far_2.5e-4",
        "eer",
        "auc",
        "xnorm",
        "pairs",
    }
    assert all(value is None or type(value) in (float, int) for value in result.values())


def test_a_distance_on_the_threshold_is_not_accepted():
    """InsightFace accepts distances below the threshold."""
    distances = np.array([0.0, 0.0])
    accuracies, thresholds = fold_accuracies(distances, np.array([True, True]), 2)
    assert thresholds.tolist() == [0.01, 0.01]
    assert accuracies.tolist() == [1, 1]
    accuracies, thresholds = fold_accuracies(distances, np.array([False, False]), 2)
    assert thresholds.tolist() == [0, 0]
    assert accuracies.tolist() == [1, 1]


# -- TAR


def tar_oracle(distances, issame, far):
    """Try each distance as the threshold."""
    positives, negatives = distances[issame], distances[~issame]
    best = None
    for threshold in sorted({*distances.tolist(), math.inf}):
        if sum(d < threshold for d in negatives) / len(negatives) <= far:
            best = threshold
    return sum(d < best for d in positives) / len(positives)


@pytest.mark.parametrize("far", [0.1, 0.29, 0.07, 0.5, 0.999, 1.0])
@pytest.mark.parametrize("ties", [False, True])
def test_tar_equals_the_oracle(far, ties):
    for seed in range(5):
        rng = np.random.default_rng(seed)
        issame = np.arange(300) % 3 == 0
        distances = rng.uniform(0, 4, 300) - issame
        if ties:
            distances = np.round(distances, 1)
        expected = tar_oracle(distances, issame, far)
        assert tar_at_far(distances, issame, far) == pytest.approx(expected, abs=1e-12)


def test_tar_by_hand():
    issame = np.array([True] * 4 + [False] * 100)
    distances = np.concatenate([[0.5, 1.0, 1.5, 3.0], np.linspace(1, 2, 100)])
    # At most 10 of 100 may be accepted, so the threshold is the 11th distance, 1 + 10 / 99.
    assert tar_at_far(distances, issame, 0.1) == 0.5
    distances[0] = 1 + 10 / 99
    assert tar_at_far(distances, issame, 0.1) == 0.25


@pytest.mark.parametrize(
    "negatives, far, defined",
    [
        (9999, 1e-3, False),
        (10000, 1e-3, True),
        (99, 0.1, False),
        (100, 0.1, True),
        (33333, 3e-4, False),
        (33334, 3e-4, True),
    ],
)
def test_tar_is_none_below_10_over_far_pairs(negatives, far, defined):
    issame = np.arange(negatives + 5) < 5
    distances = np.where(issame, 0.0, 2.0)
    assert tar_at_far(distances, issame, far) == (1.0 if defined else None)


def test_tar_needs_pairs_of_both_kinds():
    assert tar_at_far(np.ones(100), np.zeros(100, bool), 0.5) is None
    assert tar_at_far(np.ones(100), np.ones(100, bool), 0.5) is None


@pytest.mark.parametrize("far", [0, -1, 1.5, float("nan")])
def test_rates_out_of_range_are_refused(far):
    with pytest.raises(ValueError, match="above 0 and at most 1, got"):
        tar_at_far(np.ones(4), np.ones(4, bool), far)


def test_rates_are_formatted_as_in_result_keys():
    rates = [1e-3, 1e-4, 0.05, 2.5e-3, 1, 1e-10]
    assert [format_far(far) for far in rates] == ["1e-3", "1e-4", "5e-2", "2.5e-3", "1e0", "1e-10"]


# -- invalid arguments


def test_embeddings_of_a_diverged_network_are_refused():
    embeddings, issame = make_set(20, 1)
    for value, problem in [
        (np.nan, "image 1 of pair 3 .of 20. is not finite, got NaN or infinity"),
        (np.inf, "is not finite"),
        (-np.inf, "is not finite"),
        (0, "image 1 of pair 3 .of 20. cannot be normalised, got L2 norm 0"),
    ]:
        broken = embeddings.copy()
        broken[7] = value
        with pytest.raises(ValueError, match=problem):
            verify(broken, issame)


@pytest.mark.parametrize(
    "shape, issame, problem",
    [
        ((41, 8), np.ones(20, bool), "two rows per pair"),
        ((40,), np.ones(20, bool), "two rows per pair"),
        ((0, 8), np.ones(0, bool), "two rows per pair"),
        ((40, 8), np.ones(19, bool), "got 40 embeddings and 19 pairs"),
        ((40, 8), np.ones(20, int), "must be a bool array of shape .P,."),
        ((40, 8), np.ones((20, 1), bool), "must be a bool array of shape .P,."),
        (
            (18, 8),
            np.ones(9, bool),
            "got 10 folds for 9 pairs; use 10 folds and a set of at least 10",
        ),
    ],
)
def test_shapes_that_do_not_match_are_refused(shape, issame, problem):
    with pytest.raises(ValueError, match=problem):
        verify(np.ones(shape), issame)


def test_large_and_small_embeddings_keep_their_direction():
    """Squares in float32 overflow at 2e19 and underflow at 1e-23; verify uses float64."""
    embeddings, issame = make_set(40, 5)
    expected = verify(embeddings.astype(np.float32), issame)["accuracy"]
    for factor in (1e25, 1e-30):
        scaled = (embeddings * factor).astype(np.float32)
        assert verify(scaled, issame)["accuracy"] == expected


def count_lines(work, *arguments) -> int:
    """Return the number of Python lines that a call executes, nested calls included."""
    lines = 0

    def count(frame, event, argument):
        nonlocal lines
        lines += event == "line"
        return count

    before = sys.gettrace()
    sys.settrace(count)
    try:
        work(*arguments)
    finally:
        sys.settrace(before)
    return lines


def test_no_python_loop_runs_over_pairs():
    lines = []
    for pairs in (600, 6000):
        embeddings, issame = make_set(pairs, 1)
        verify(embeddings, issame)  # imports and caches
        lines.append(count_lines(verify, embeddings, issame))
    assert abs(lines[1] - lines[0]) < 100 and max(lines) < 600


@pytest.mark.parametrize("same", [True, False])
def test_pairs_of_one_kind_have_an_accuracy_but_no_error_curve(same):
    embeddings, _ = make_set(20, 1)
    result = verify(embeddings, np.full(20, same), fars=(0.5,))
    assert (result["eer"], result["auc"], result["tar_at_far_5e-1"]) == (None, None, None)
    assert result["accuracy"] == 1 and result["pairs"] == 20
