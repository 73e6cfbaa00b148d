# SPDX-License-Identifier: Apache-2.0
"""Options, tables, JSON files and charts, with candidates that compute nothing."""

from __future__ import annotations

import argparse
import json

import pytest

from benchmarks.harness import baselines, chart, report
from benchmarks.harness.process import Candidate

ECHO = "tests.benchmarks.echo_steps"


def options(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    report.add_options(parser)
    return parser.parse_args([*words, "--rounds", "2"])


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    monkeypatch.setattr(baselines, "install", lambda: "no network")
    monkeypatch.setattr(report, "compile_operators", lambda: None)
    monkeypatch.delenv("TORCH_PYTHON", raising=False)


def test_table_and_json_hold_the_same_rows(tmp_path, capsys):
    groups = [
        [Candidate("ours a", ECHO, {"mark": True}), Candidate("limit a", ECHO, {})],
        [Candidate("ours b", ECHO, {}, images=4), Candidate("gluonfr b", ECHO, {}, "gluonfr")],
    ]
    path = tmp_path / "new" / "rows.json"
    assert report.run("title", groups, options("--json", str(path))) == 0
    found = json.loads(path.read_text())
    assert [row["name"] for row in found["rows"]] == ["ours a", "limit a", "ours b"]
    assert found["left_out"] == ["gluonfr: no network"]
    assert found["machine"]["cores"] >= 1 and found["machine"]["memory_mib"] > 0
    assert found["machine"]["cpu"] and found["machine"]["versions"]["echo"] == "1.2.3"
    out = capsys.readouterr().out
    assert "left out: gluonfr: no network" in out
    tables = out.split("first result of each")[1:]
    assert "ms without update" in tables[0] and "images/s" not in tables[0]
    assert "ms without update" not in tables[1] and "images/s" in tables[1]


def test_a_failure_of_ours_gives_exit_status_1(capsys):
    group = [Candidate("ours", ECHO, {"dies": "out of ink"}), Candidate("peer", ECHO, {})]
    assert report.run("title", [group], options()) == 1
    captured = capsys.readouterr()
    assert "failed: ours: the process ended: out of ink" in captured.err
    assert "peer" in captured.out


def test_each_missing_package_is_named_in_one_sentence():
    groups = [
        [Candidate("ours", ECHO, {}), Candidate("torch", ECHO, {}, "torch")],
        [Candidate("torch 2", ECHO, {}, "torch"), Candidate("gluonfr", ECHO, {}, "gluonfr")],
    ]
    chosen, left_out = report.choose(groups, "", "")
    assert [[candidate.name for candidate in group] for group in chosen] == [["ours"]]
    assert len(left_out) == 2 and "--torch" in left_out[0] and "no network" in left_out[1]


def test_pytorch_rows_run_with_their_own_interpreter():
    groups = [[Candidate("ours", ECHO, {}), Candidate("torch", ECHO, {}, "torch")]]
    ((ours, torch),), left_out = report.choose(groups, "", "/elsewhere/python")
    assert torch.python == "/elsewhere/python" != ours.python
    assert left_out == []


def test_only_selected_rows_need_their_packages():
    groups = [[Candidate("ours", ECHO, {}), Candidate("gluonfr", ECHO, {}, "gluonfr")]]
    chosen, left_out = report.choose(groups, "^ours", "")
    assert [candidate.name for candidate in chosen[0]] == ["ours"] and left_out == []


def test_a_chart_without_matplotlib_gives_the_reason(tmp_path):
    assert chart.draw([], "title", tmp_path / "chart.png") == "no chart: no network"


def test_a_failed_installation_leaves_no_files(tmp_path, monkeypatch):
    monkeypatch.undo()  # the real install
    lock = tmp_path / "lock.txt"
    lock.write_text("no-such-package-of-ours==1.0 --hash=sha256:" + "0" * 64 + "\n")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    why = baselines.install(tmp_path / "folder", lock)
    assert why.startswith("pip could not install requirements/lock.txt: ERROR")
    assert [path.name for path in tmp_path.iterdir()] == ["lock.txt"]


def test_an_installed_lock_is_not_installed_again(tmp_path, monkeypatch, capsys):
    monkeypatch.undo()
    lock = tmp_path / "lock.txt"
    lock.write_text("# nothing\n")
    assert baselines.install(tmp_path / "folder", lock) == ""
    assert "installing" in capsys.readouterr().out
    assert baselines.install(tmp_path / "folder", lock) == ""
    assert capsys.readouterr().out == ""
