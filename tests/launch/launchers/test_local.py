# SPDX-License-Identifier: Apache-2.0
"""The launcher for one host: its command, environment and output filter."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from launch.launchers import local

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize(
    ("argv", "ranks", "rest"),
    [
        (["--cfg", "a.yaml"], 1, ["--cfg", "a.yaml"]),
        (["-np", "3", "--cfg", "a.yaml"], 3, ["--cfg", "a.yaml"]),
        (["--cfg", "a.yaml", "-np", "2", "run.seed=1"], 2, ["--cfg", "a.yaml", "run.seed=1"]),
    ],
)
def test_the_number_of_ranks_may_appear_anywhere(argv, ranks, rest, monkeypatch):
    started = []
    monkeypatch.setattr(local, "supervise", lambda *given: started.append(given[0]) or 0)
    assert local.main(argv) == 0
    assert started == [local.build_command(ranks, rest)]


@pytest.mark.parametrize(
    ("argv", "problem"),
    [
        (["-np"], "expected one argument"),
        (["-np", "two", "--cfg", "a.yaml"], "must be a number of ranks above 0, got 'two'"),
        (["-np", "0", "--cfg", "a.yaml"], "must be a number of ranks above 0, got '0'"),
        (["-np", "-1", "--cfg", "a.yaml"], "must be a number of ranks above 0, got '-1'"),
    ],
)
def test_an_invalid_number_of_ranks_is_refused(argv, problem, capsys):
    assert local.main(argv) == 2
    assert capsys.readouterr().err == (
        f"launch.local: argument -np/--ranks: {problem}; see python -m launch.local --help\n"
    )


def test_face_train_executes_the_module(monkeypatch):
    became = []
    monkeypatch.setattr(os, "execv", lambda *given: became.append(given))
    monkeypatch.setattr(sys, "argv", ["/opt/bin/face-train", "-np", "2", "run.seed=1"])
    local.face_train()
    module = [sys.executable, "-m", "launch.local", "-np", "2", "run.seed=1"]
    assert became == [(sys.executable, module)]


def test_several_ranks_are_started_by_horovodrun():
    train = [sys.executable, str(ROOT / "run_train.py"), "--cfg", "a.yaml"]
    assert local.build_command(1, ["--cfg", "a.yaml"]) == train
    python, horovodrun, *rest = local.build_command(4, ["--cfg", "a.yaml"])
    assert rest == ["--gloo", "-np", "4", *train]
    assert python == sys.executable
    assert Path(horovodrun).name == "horovodrun" and Path(horovodrun).is_file()


def test_the_cores_are_divided_among_the_ranks(monkeypatch):
    monkeypatch.setattr(os, "environ", {"HOME": "/home/me"})
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))
    assert local.build_environment(4) == {
        "HOME": "/home/me",
        "OMP_NUM_THREADS": "2",
        "PYTHONUNBUFFERED": "1",
    }
    assert local.build_environment(20)["OMP_NUM_THREADS"] == "1"
    os.environ["OMP_NUM_THREADS"] = "7"
    assert local.build_environment(4)["OMP_NUM_THREADS"] == "7"


@pytest.mark.parametrize(("ranks", "reader"), [(1, "Reader"), (2, "HorovodrunReader")])
def test_the_output_filter_depends_on_the_number_of_ranks(ranks, reader, monkeypatch):
    started = []
    monkeypatch.setattr(local, "supervise", lambda *given: started.append(given) or 7)
    assert local.main(["-np", str(ranks), "--cfg", "a.yaml"]) == 7
    command, environment, chosen = started[0]
    assert command == local.build_command(ranks, ["--cfg", "a.yaml"])
    assert environment["PYTHONUNBUFFERED"] == "1"
    assert type(chosen).__name__ == reader
