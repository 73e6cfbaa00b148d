# SPDX-License-Identifier: Apache-2.0
"""Lines and files that report an alignment."""

from __future__ import annotations

import csv

from tools.data.alignment_report import SHOWN_FILES, describe, write_list

POINTS = [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0], [7.0, 8.0], [9.0, 10.0]]
ALIGNED = {"path": "a.jpg", "status": "aligned", "image": "a.jpg", "faces": 2, "points": POINTS}
NONE = {"path": "b\n.jpg", "status": "no face", "faces": 0, "points": None}
UNREADABLE = {"path": "c.jpg", "status": "unreadable", "reason": "is empty, got 0 bytes"}


def test_each_kind_of_result_has_a_line_and_rejected_files_are_named():
    assert list(describe([ALIGNED, NONE, UNREADABLE, {**NONE, "status": "centre"}])) == [
        "1 photographs cut out around their centre, because no face fits the rules",
        "1 photographs without a face",
        "1 unreadable files",
        "1 photographs with several faces; a large face near the centre of each is used",
        "left out: b\\n.jpg: is a photograph without a face",
        "left out: c.jpg: is empty, got 0 bytes",
    ]
    assert list(describe([{**ALIGNED, "faces": 1}])) == []


def test_many_rejected_files_are_counted():
    lines = list(describe([NONE] * (SHOWN_FILES + 5)))
    assert len(lines) == SHOWN_FILES + 2
    assert lines[-1] == f"left out: {SHOWN_FILES + 5} files; alignment.csv lists all"


def test_the_list_has_one_row_per_photograph(tmp_path):
    write_list(tmp_path / "list.csv", [ALIGNED, NONE, UNREADABLE])
    with (tmp_path / "list.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["path"] for row in rows] == ["a.jpg", "b\n.jpg", "c.jpg"]
    assert [rows[0][name] for name in ("x1", "y1", "x5", "y5")] == ["1.0", "2.0", "9.0", "10.0"]
    assert rows[1]["x1"] == "" and rows[2]["reason"] == "is empty, got 0 bytes"
