# SPDX-License-Identifier: Apache-2.0
"""The benchmark of distributed heads: rows of real ranks, and refused options."""

from __future__ import annotations

import json
import sys

import pytest

from benchmarks import sharded_head

SMALL = ["--classes", "1500", "--embedding-size", "16", "--batch", "4"]


def run(monkeypatch, *options: str) -> int:
    monkeypatch.setattr(sys, "argv", ["sharded_head.py", *options])
    return sharded_head.main()


def test_a_row_states_time_memory_and_bytes_on_two_ranks(tmp_path, monkeypatch):
    path = tmp_path / "rows.json"
    options = [*SMALL, "--quick", "--rates", "0.5", "--rounds", "2", "--seconds", "300"]
    assert run(monkeypatch, *options, "--json", str(path)) == 0
    (row,) = json.loads(path.read_text())["rows"]
    assert row["name"] == "ours C=1500 d=16 B=4 ranks=2 rate=0.5"
    assert row["parameters"] == 1500 * 16
    # The bytes do not depend on the number of classes: labels, embeddings, their gradients, and
    # four numbers per image and rank.
    images = 2 * 4
    assert row["passed_kib"] == images * (4 + 2 * 16 * 4 + 2 * 16) / 1024
    assert row["passed_kib"] == row["few_passed_kib"]
    assert row["sent_kib"] > row["passed_kib"] / 2
    assert row["cpu_milliseconds"] > 0
    assert abs(row["mib_above_few"]) < 100


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--classes", "0"], "--classes: must be 1 or more, got 0"),
        (["--ranks", "2", "0"], "--ranks: must be 1 or more, got 0"),
        (["--rates", "1.5"], "--rates: must be above 0 and at most 1, got 1.5"),
        (["--insightface", "."], "--insightface: must be a folder with partial_fc_v2.py"),
    ],
)
def test_impossible_options_are_refused_in_one_sentence(monkeypatch, capsys, options, reason):
    assert run(monkeypatch, *options) == 2
    assert reason in capsys.readouterr().err


def test_partial_fc_needs_its_code(monkeypatch, tmp_path):
    (tmp_path / "partial_fc_v2.py").touch()
    seen = []
    monkeypatch.setattr(
        sharded_head.report, "run", lambda _, groups, *a, **k: seen.extend(groups) or 0
    )
    run(monkeypatch, "--rates", "1", "--insightface", str(tmp_path))
    assert [c.name.split(" C=")[0] for c in seen[0]] == [
        "ours", "ours unfused", "partial_fc_v2", "partial_fc_v2 fused SGD",
    ]  # fmt: skip
    assert all(c.needs == "torch" for c in seen[0][2:])
