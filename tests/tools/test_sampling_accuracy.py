# SPDX-License-Identifier: Apache-2.0
"""Comparison of sampled and complete class centres: finished runs, means and failures."""

from __future__ import annotations

import json
import subprocess
import sys
from types import SimpleNamespace

import pytest

from tools import sampling_accuracy


def run(monkeypatch, out, *options: str) -> int:
    monkeypatch.setattr(sampling_accuracy, "commit", lambda: "0123abc")
    monkeypatch.setattr(sys, "argv", ["tool", "demo.yaml", "--out", str(out), *options])
    return sampling_accuracy.main()


def write_run(out, rate, seed, accuracy, status="finished") -> None:
    folder = out / f"demo-rate{rate}-seed{seed}-001"
    folder.mkdir(parents=True)
    summary = {"status": status, "verification": {"set": {"accuracy": accuracy}}}
    (folder / "summary.json").write_text(json.dumps(summary))


@pytest.mark.parametrize(("sampled", "status"), [(0.886, 0), (0.884, 1), (0.95, 0)])
def test_finished_runs_are_compared_by_their_means(tmp_path, monkeypatch, capsys, sampled, status):
    for seed in (1, 2):
        write_run(tmp_path, 1.0, seed, 0.9)
        write_run(tmp_path, 0.5, seed, sampled)
    path = tmp_path / "found.json"
    assert run(monkeypatch, tmp_path, "--seeds", "1", "2", "--json", str(path)) == status
    assert f"mean accuracy 0.9000 at the rate 1 and {sampled:.4f}" in capsys.readouterr().out
    rows = json.loads(path.read_text())["rows"]
    assert [(row["rate"], row["seed"], row["accuracy"]) for row in rows] == [
        (rate, seed, accuracy) for seed in (1, 2) for rate, accuracy in ((1.0, 0.9), (0.5, sampled))
    ]


def test_runs_in_the_file_are_not_repeated_except_with_other_settings(tmp_path, monkeypatch):
    path = tmp_path / "found.json"
    write_run(tmp_path / "a", 1.0, 1, 0.9)
    write_run(tmp_path / "a", 0.5, 1, 0.9)
    options = ("--seeds", "1", "--json", str(path))
    assert run(monkeypatch, tmp_path / "a", *options) == 0
    before = path.read_bytes()
    assert run(monkeypatch, tmp_path / "b", *options) == 0
    assert path.read_bytes() == before
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: SimpleNamespace(returncode=2))
    for other in (("--ranks", "1"), ("--set", "train.epochs=1"), ("--seeds", "2")):
        with pytest.raises(SystemExit, match="must finish"):
            run(monkeypatch, tmp_path / "b", *options, *other)


def test_an_unfinished_run_is_trained(tmp_path, monkeypatch):
    write_run(tmp_path, 1.0, 1, 0.9)
    write_run(tmp_path, 0.5, 1, 0.1, status="stopped")
    commands = []

    def train(command, **_):
        commands.append(command)
        (tmp_path / "demo-rate0.5-seed1-001" / "summary.json").write_text(
            json.dumps({"status": "finished", "verification": {"set": {"accuracy": 0.9}}})
        )
        return SimpleNamespace(returncode=0)

    monkeypatch.setattr(subprocess, "run", train)
    assert run(monkeypatch, tmp_path, "--seeds", "1", "--set", "train.epochs=1") == 0
    (command,) = commands
    assert command[-3:] == ["head.sharded=true", "head.sample_rate=0.5", "train.epochs=1"]


def test_a_failed_run_ends_the_tool_with_its_last_line(tmp_path, monkeypatch):
    def fail(command, stdout, **_):
        stdout.write("the reason\n")
        return SimpleNamespace(returncode=2)

    monkeypatch.setattr(subprocess, "run", fail)
    with pytest.raises(SystemExit, match="got exit code 2, last line of its log: the reason"):
        run(monkeypatch, tmp_path)


def test_a_rate_outside_its_range_is_refused(tmp_path, monkeypatch, capsys):
    with pytest.raises(SystemExit) as ended:
        run(monkeypatch, tmp_path, "--rate", "1")
    assert ended.value.code == 2
    assert "--rate: must be above 0 and below 1, got 1" in capsys.readouterr().err
