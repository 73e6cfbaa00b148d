# SPDX-License-Identifier: Apache-2.0
"""Curves of runs from metrics.jsonl."""

from __future__ import annotations

import pytest

from evaluation.run_histories import HistoryError, find_curve, number_keys, read_history


def test_a_curve_has_the_lines_with_both_numbers(tmp_path):
    (tmp_path / "metrics.jsonl").write_text(
        '{"step": 2, "loss": 3.5}\n{"step": 3, "verification/lfw/accuracy": 0.5, "x": null}\n'
        '{"step": 4, "loss": 2}\n{"step": 5, "lo'
    )
    lines = read_history(tmp_path)
    assert find_curve(lines, "step", "loss") == ([2, 4], [3.5, 2])
    assert find_curve(lines, "step", "x") == ([], [])
    assert number_keys(lines) == ["loss", "step", "verification/lfw/accuracy"]


def test_damaged_files_are_refused(tmp_path):
    with pytest.raises(HistoryError, match="metrics.jsonl: cannot be read, got 'No such|got No"):
        read_history(tmp_path)
    (tmp_path / "metrics.jsonl").write_text('{"step": 2}\n[1]\n{"step": 3}\n')
    with pytest.raises(HistoryError, match="metrics.jsonl: line 2: must be a JSON object, got"):
        read_history(tmp_path)


def test_a_huge_file_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 2}\n')
    monkeypatch.setattr("evaluation.run_histories.MAX_FILE_BYTES", 12)
    assert read_history(tmp_path) == [{"step": 2}]
    monkeypatch.setattr("evaluation.run_histories.MAX_FILE_BYTES", 11)
    with pytest.raises(HistoryError) as caught:
        read_history(tmp_path)
    assert str(caught.value) == (
        f"{path}: must have at most 11 bytes, got more; name another run folder"
    )
