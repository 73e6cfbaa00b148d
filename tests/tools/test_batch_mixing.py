# SPDX-License-Identifier: Apache-2.0
"""Count of people per batch."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest

from pipeline.records.open import open_records
from tools import batch_mixing


def test_the_expected_count_is_the_mean_of_many_draws(tiny_records):
    records = open_records(tiny_records, tiny_records)
    generator = np.random.default_rng(0)
    draws = [
        len(np.unique(generator.choice(records.labels, 16, replace=False))) for _ in range(4000)
    ]
    assert batch_mixing._expected_people(records, 16) == pytest.approx(np.mean(draws), abs=0.1)


def test_random_access_mixes_like_a_permutation(tiny_records, tmp_path, monkeypatch, capsys):
    report = tmp_path / "rows.json"
    arguments = ["--records", str(tiny_records), "--batch-size", "16", "--epochs", "20"]
    monkeypatch.setattr(
        sys, "argv", ["x", *arguments, "--windows", "2", "60", "--json", str(report)]
    )
    batch_mixing.main()
    rows = {row["name"]: row["of_uniform"] for row in json.loads(report.read_text())["rows"]}
    assert rows["ours random-access"] > 0.97  # the mean of 140 batches varies
    for reader in ("blocks", "window"):
        assert rows[f"ours {reader} of 2"] < rows[f"ours {reader} of 60"] < 1.02
    assert len(capsys.readouterr().out.splitlines()) == 7
