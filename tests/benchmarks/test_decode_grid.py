# SPDX-License-Identifier: Apache-2.0
"""The grid of decode modes on a tiny set, and the race of its fastest mode."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from benchmarks import decode_grid
from benchmarks.steps import graph_steps
from pipeline.records.open import open_records

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "decode_grid.py"


def test_a_run_measures_the_grid_and_the_race(tiny_records, tmp_path):
    path = tmp_path / "found" / "rows.json"
    words = ["--records", tiny_records, "--batches", 16, 32, "--threads", 1, "--rounds", 1]
    words += ["--seconds", 2, "--json", path]
    done = subprocess.run(
        [sys.executable, *map(str, (SCRIPT, *words))], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(path.read_text())
    grid = [row for row in found["rows"] if "raced" not in row]
    if "no GPU" in found["device"]:
        assert sorted(row["name"] for row in grid) == [
            f"ours {path} threads=1 B={batch}" for path in ("cpu", "native") for batch in (16, 32)
        ]
    rates = [row["images_per_second"] for row in grid]
    assert rates == sorted(rates, reverse=True) and rates[-1] > 0
    for row in grid:
        low, high = row["images_per_second_spread"]
        assert low <= row["images_per_second"] <= high
    # Candidates that the time limit excludes are named.
    raced = [row["name"] for row in found["rows"] if "raced" in row]
    assert raced[0] == grid[0]["name"]
    assert found["rows"][len(grid)]["times_ours"] == 1
    left = [sentence for sentence in found["left_out"] if sentence.startswith("gluon dataloader")]
    workers = decode_grid.numbers_up_to(min(16, decode_grid.CORES), decode_grid.THREADS, False)
    assert len(raced) - 1 + len(left) == len(workers)


def test_a_mode_that_is_not_available_is_left_out(tiny_records, tmp_path, monkeypatch):
    warm_batches = graph_steps.warm_batches

    def only_cpu(records, path, **options):
        if path != "cpu":
            raise RuntimeError("no\n such  decoder")
        return warm_batches(records, path, **options)

    monkeypatch.setattr(graph_steps, "warm_batches", only_cpu)
    monkeypatch.setattr(decode_grid, "MIN_CELL_S", 0.05)
    records = open_records(tiny_records, tmp_path)
    cells = [("mixed", 1, 8), ("cpu", 1, 8)]
    rows, left_out = decode_grid.grid(records, cells, device_id=None, seconds=0.1)
    assert [row["name"] for row in rows] == ["ours cpu threads=1 B=8"]
    assert left_out == ["ours mixed threads=1 B=8: no such decoder"]


def test_numbers_up_to_a_limit():
    assert decode_grid.numbers_up_to(6, (1, 2, 4, 8), False) == [1, 2, 4]
    assert decode_grid.numbers_up_to(6, (1, 2, 4, 8), True) == [1, 4]
    assert decode_grid.numbers_up_to(1, (1, 2), True) == [1]
