# SPDX-License-Identifier: Apache-2.0
"""Threshold that belongs to the weights of a checkpoint."""

from __future__ import annotations

import json

import pytest

from interchange.stored_threshold import find_threshold

STATE = {"progress": {"step": 9}}


def summary(folder, **changes) -> None:
    """Write the summary of a finished run of 9 steps that has verified on two sets."""
    results = {"a": {"pairs": 30, "best_threshold": 1.0}, "b": {"pairs": 10, "best_threshold": 1.8}}
    content = {"status": "finished", "steps": 9, "verification": results, **changes}
    (folder / "summary.json").write_text(json.dumps(content))


@pytest.fixture
def checkpoint(tmp_path):
    """Return the folder of a checkpoint in a run folder."""
    folder = tmp_path / "checkpoints" / "step-00000009"
    folder.mkdir(parents=True)
    return folder


def test_it_is_the_cosine_of_the_mean_over_all_pairs(tmp_path, checkpoint):
    summary(tmp_path)
    assert find_threshold(checkpoint, STATE) == pytest.approx(1 - 1.2 / 2)


def test_the_state_of_the_checkpoint_takes_precedence(tmp_path, checkpoint):
    summary(tmp_path)
    assert find_threshold(checkpoint, {**STATE, "threshold": 0.3}) == 0.3


@pytest.mark.parametrize(
    "changes",
    [
        {"steps": 18},  # the run has continued after this checkpoint
        {"status": "stopped"},  # the results may be those of an earlier step
        {"verification": {}},
        {"verification": {"a": {"pairs": 0, "best_threshold": 1.0}}},
        {"verification": {"a": {"pairs": 5}}},
        {"verification": None},
        {"verification": {"a": {"pairs": 5, "best_threshold": float("nan")}}},
    ],
)
def test_without_a_verification_of_these_weights_there_is_none(tmp_path, checkpoint, changes):
    summary(tmp_path, **changes)
    assert find_threshold(checkpoint, STATE) is None


def test_a_missing_or_damaged_summary_gives_none(tmp_path, checkpoint):
    assert find_threshold(checkpoint, STATE) is None
    (tmp_path / "summary.json").write_text("{")
    assert find_threshold(checkpoint, STATE) is None
    summary(tmp_path)
    assert find_threshold(tmp_path, STATE) is None  # a checkpoint outside its run
    assert find_threshold(checkpoint, {}) is None
