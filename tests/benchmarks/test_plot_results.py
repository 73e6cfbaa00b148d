# SPDX-License-Identifier: Apache-2.0
"""The command that draws rows of a measured result."""

from __future__ import annotations

import json
import sys

import pytest

from benchmarks import plot_results
from benchmarks.harness import chart

ROWS = [
    {"name": "ours", "images_per_second": 40.0, "of limit decode": 0.5},
    {"name": "torch", "images_per_second": 10.0},
]


@pytest.fixture
def results(tmp_path):
    path = tmp_path / "results.json"
    path.write_text(json.dumps({"machine": {}, "rows": ROWS}))
    return path


def test_the_named_rows_are_drawn_in_their_order(results, tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(chart, "draw", lambda *given, **options: drawn.append((given, options)))
    command = ["plot_results", str(results), str(tmp_path / "a.png"), "--rows", "torch", "ours"]
    monkeypatch.setattr(sys, "argv", command)
    assert plot_results.main() == 0
    (((rows,), _, image), options), *others = drawn
    assert [row["name"] for row in rows] == ["torch", "ours"] and not others
    assert "of limit decode" not in rows[1]
    assert (image, options) == (tmp_path / "a.png", {"rates": True})


def test_an_unknown_row_is_refused_with_the_choices(results, tmp_path, monkeypatch, capsys):
    command = ["plot_results", str(results), str(tmp_path / "a.png"), "--rows", "tensorflow"]
    monkeypatch.setattr(sys, "argv", command)
    assert plot_results.main() == 2
    assert "got ['tensorflow']; choose from ['ours', 'torch']" in capsys.readouterr().err


def test_a_chart_that_cannot_be_drawn_ends_with_code_2(results, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(chart, "draw", lambda *given, **options: "no chart: offline")
    monkeypatch.setattr(sys, "argv", ["plot_results", str(results), str(tmp_path / "a.png")])
    assert plot_results.main() == 2
    assert capsys.readouterr().err == "no chart: offline\n"
