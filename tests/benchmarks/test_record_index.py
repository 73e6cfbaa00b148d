# SPDX-License-Identifier: Apache-2.0
"""The empty record set of the benchmark, and its rows."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.record_index import write_empty_set
from pipeline.records.open import open_records

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "record_index.py"


def test_the_empty_set_opens_without_a_scan(tmp_path):
    write_empty_set(tmp_path, images=1003, people=10)
    records = open_records(tmp_path, tmp_path / "index")
    assert not (tmp_path / "index").exists()  # the identity records gave the labels
    assert len(records) == 1003 and records.num_classes == 10
    assert np.bincount(records.labels).tolist() == [101] * 3 + [100] * 7
    assert (np.diff(records.labels) >= 0).all()


def test_rows_name_the_set_and_the_measurement(tiny_records, tmp_path):
    arguments = ["--images", "500", "300", "--people", "7", "--repeat", "1", "--open", tiny_records]
    command = [sys.executable, SCRIPT, *arguments, "--json", tmp_path / "rows.json"]
    subprocess.run(list(map(str, command)), check=True, capture_output=True)
    rows = json.loads((tmp_path / "rows.json").read_text())["rows"]
    assert [row["images"] for row in rows] == [500] * 5 + [300] * 5 + [120] * 5
    whats = ["opening, first time", "opening, again", "order of random", "order of blocks"]
    whats.append("window index, once")
    assert [row["name"].split(", ", 1)[1] for row in rows] == 3 * whats
    assert [row["name"].split(" ")[1] for row in rows[:10]] == ["synthetic,"] * 10
    assert {row["memory_is_kept"] for row in rows} == {"MALLOC_" not in " ".join(os.environ)}
    for row in rows:
        parts = row["private_mib"] + row["shared_mib"]
        assert row["resident_mib"] == pytest.approx(parts, abs=0.1)
        assert row["peak_mib"] >= row["resident_mib"] - 1
    assert all(row["spread"][0] <= row["milliseconds"] <= row["spread"][1] for row in rows)
