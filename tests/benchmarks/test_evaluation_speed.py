# SPDX-License-Identifier: Apache-2.0
"""The steps of the benchmark at tiny sizes, and its rows."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.evaluation_speed import write_rows
from benchmarks.steps.evaluation_steps import STEPS, random_rows

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "evaluation_speed.py"


@pytest.fixture
def distractors(tmp_path) -> Path:
    path = tmp_path / "distractors.npy"
    write_rows(path, 300, 8)
    return path


def test_the_searches_find_the_ranks_of_a_full_product(distractors):
    probes, mates = random_rows(40, 8, 1), random_rows(40, 8, 2)
    scores = probes @ np.load(distractors).T
    others = np.concatenate([scores, probes @ mates.T - 9 * np.eye(40)], axis=1)
    pairs = np.einsum("ij,ij->i", probes, mates)
    words = {"path": str(distractors), "probes": 40, "size": 8}
    assert STEPS["rank"](**words)() == pytest.approx(np.mean(pairs > others.max(axis=1)))
    hits = [
        probes[a] @ probes[b] > scores[a].max()
        for a in range(40)
        for b in range(a // 20 * 20, a // 20 * 20 + 20)
        if a != b
    ]
    assert STEPS["megaface"](**words)() == pytest.approx(np.mean(hits))


def test_our_pairs_have_the_scores_of_the_bare_product():
    found = [STEPS["pairs"](pairs=3000, templates=50, size=8, bare=bare)() for bare in (0, 1)]
    assert found[0] == pytest.approx(found[1], abs=1e-6)


def test_shuffled_images_have_the_same_step():
    steps = [
        STEPS["templates"](images=500, templates=20, size=8, shuffled=shuffled)
        for shuffled in (False, True)
    ]
    assert all(abs(step()) < 1 for step in steps)


def test_the_bounds_are_rows_of_their_groups(tmp_path):
    sizes = ["--probes=30", "--distractors=200", "--images=100", "--templates=9", "--pairs=70"]
    words = [*sizes, "--embedding-size=8", "--only=^limit", "--rounds=1", "--seconds=3600"]
    path = tmp_path / "rows.json"
    command = [sys.executable, str(SCRIPT), *words, f"--json={path}"]
    subprocess.run(command, check=True, capture_output=True)
    rows = json.loads(path.read_text())["rows"]
    expected = ["limit matrix product", "limit reading", "limit gather and product"]
    assert [row["name"] for row in rows] == expected
    assert all(row["peak_mib"] > 0 for row in rows)


def test_a_size_below_one_is_one_sentence():
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--pairs=0"], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert done.stderr == (
        "evaluation_speed: --pairs: must be 1 or more, got 0; omit the option to use its default\n"
    )
