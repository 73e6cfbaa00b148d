# SPDX-License-Identifier: Apache-2.0
"""Files of results."""

from __future__ import annotations

import argparse
import json

import pytest

from evaluation.commands import reports
from evaluation.tables import Table


def parse(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    reports.add_report_options(parser)
    return parser.parse_args(list(words))


def test_a_result_that_is_no_number_is_not_written(tmp_path, capsys):
    options = parse("--json", str(tmp_path / "a.json"))
    with pytest.raises(ValueError, match="not JSON compliant"):
        reports.write_report(options, {"rate": float("nan")}, [])
    assert list(tmp_path.iterdir()) == []
    reports.write_report(options, {"rate": None}, [Table("Title", ["a"], [["b"]])])
    assert json.loads((tmp_path / "a.json").read_text()) == {"rate": None}
    assert capsys.readouterr().out.endswith("Title\na\nb\n")


def test_rates_and_ranks_are_sorted_and_checked():
    assert reports.parse_rates("--fars", [0.1, 1e-6, 0.1]) == [1e-6, 0.1]
    assert reports.parse_ranks("--ranks", [5, 1]) == [1, 5]
    for rate in (0.0, 1.0, float("nan")):
        with pytest.raises(ValueError, match="--fars: each rate must be above 0 and below 1, got"):
            reports.parse_rates("--fars", [rate])
    with pytest.raises(ValueError, match="--ranks: each rank must be from 1 to 1000, got 1001"):
        reports.parse_ranks("--ranks", [1001])


def test_tables_name_their_rates():
    points = [{"far": 1e-6, "tar": None}, {"far": 1e-4, "tar": 0.5}]
    table = reports.roc_table("t", {"N0": points})
    assert table.columns == ["TAR [%] at FAR", "1e-06", "1e-04"]
    assert table.rows == [["N0", "-", "50.00"]]
    table = reports.rate_table("t", {"a": {"rank_1": 1.0}}, ["rank_1", "tpir_at_fpir_0.1"])
    assert table.columns == ["", "rank-1 [%]", "TPIR [%] at FPIR 0.1"]
    assert table.rows == [["a", "100.00", "-"]]
