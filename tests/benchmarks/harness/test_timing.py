# SPDX-License-Identifier: Apache-2.0
"""Interleaved turns, rows, left-out candidates and idle processes."""

from __future__ import annotations

import itertools
import math
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest

from benchmarks.harness import process, timing
from benchmarks.harness.process import Candidate, Process, WorkerError
from benchmarks.harness.timing import race, rotated, summarise

ECHO = "tests.benchmarks.echo_steps"
NO_LIMIT_S = math.inf


def echo(name: str, images: int = 0, same_value=False, same_size=False, **settings) -> Candidate:
    return Candidate(
        name, ECHO, settings, images=images, same_value=same_value, same_size=same_size
    )


def test_median_and_quartiles():
    assert summarise([0.004]) == (4.0, [4.0, 4.0])
    assert summarise([0.005, 0.001, 0.003, 0.002, 0.004]) == (3.0, [2.0, 4.0])


def test_each_candidate_comes_first_equally_often():
    firsts = [rotated(["a", "b", "c"], number)[0] for number in range(4)]
    assert firsts == ["a", "b", "c", "a"]
    assert rotated([], 3) == []


def test_turns_are_interleaved(tmp_path, monkeypatch):
    monkeypatch.setattr(timing, "MAX_TURN_STEPS", 2)
    monkeypatch.setattr(
        timing, "TURN_S", 1e9
    )  # no machine is so slow that MAX_TURN_STEPS would not limit a turn
    journal = tmp_path / "journal"
    candidates = [echo(n, journal=str(journal), word=n) for n in ("ours", "peer")]
    shown = []
    found = race(candidates, NO_LIMIT_S, rounds=3, show=lambda row: shown.append(row["name"]))
    assert shown == ["ours", "peer"]  # after the first turns
    assert [row["rounds"] for row in found.rows] == [3, 3]
    assert [row["steps"] for row in found.rows] == [5, 5]
    turns = [name for name, _ in itertools.groupby(journal.read_text().split())]
    # Each first turn has one untimed and one timed step; each round starts with another candidate.
    assert turns == ["ours", "peer", "ours", "peer"]
    assert journal.read_text().split() == ["ours"] * 2 + ["peer"] * 5 + ["ours"] * 6 + ["peer"] * 3


def test_a_row_has_the_measurements_and_their_ratios():
    candidates = [echo("ours", images=8, mark=True, memory_mib=32), echo("peer", images=8)]
    found = race(candidates, NO_LIMIT_S, rounds=2)
    ours, peer = found.rows
    assert ours["name"] == "ours" and ours["parameters"] == 7 and ours["value"] == 1.0
    assert ours["spread"][0] <= ours["milliseconds"] <= ours["spread"][1]
    assert 0 <= ours["milliseconds_without_update"] <= ours["milliseconds"]
    assert ours["images_per_second"] == pytest.approx(8000 / ours["milliseconds"])
    assert ours["times_ours"] == 1
    assert peer["times_ours"] == pytest.approx(peer["milliseconds"] / ours["milliseconds"])
    assert "milliseconds_without_update" not in peer
    assert found.versions == {"echo": "1.2.3"} and not found.left_out and not found.failed


def test_extra_memory_excludes_the_state():
    (row,) = race([echo("peer", memory_mib=32)], NO_LIMIT_S, rounds=1).rows
    # 32 MiB of state, 32 MiB that a step copies, and the memory in which the state was built.
    assert row["peak_mib"] > 64
    assert 31 < row["extra_mib"] < 70


def test_a_candidate_that_fails_is_named_and_the_others_continue():
    candidates = [
        echo("ours"),
        echo("peer", left_out="no licence"),
        echo("other", dies="out of ink"),
        Candidate("third", "tests.benchmarks.no_such_module", {}),
    ]
    found = race(candidates, NO_LIMIT_S, rounds=2)
    assert [row["name"] for row in found.rows] == ["ours"]
    assert found.left_out[:2] == ["peer: no licence", "other: the process ended: out of ink"]
    assert "no_such_module" in found.left_out[2]
    assert not found.failed


def test_a_failure_of_ours_fails_the_race():
    found = race([echo("ours", dies="out of ink"), echo("peer")], NO_LIMIT_S, rounds=2)
    assert found.failed == ["ours: the process ended: out of ink"]
    assert [row["name"] for row in found.rows] == ["peer"]
    assert "times_ours" not in found.rows[0]


def test_candidates_with_the_same_work_must_agree():
    candidates = [
        echo("ours", same_value=True, same_size=True, value=2.0),
        echo("equal", same_value=True, same_size=True, value=2.001),
        echo("other loss", same_value=True, value=3.0),
        echo("no loss", same_value=True, value=float("nan")),
        echo("other net", same_size=True, parameters=8),
        echo("free", value=9.0, parameters=9),
    ]
    found = race(candidates, NO_LIMIT_S, rounds=1)
    assert len(found.failed) == 3
    assert found.failed[0].startswith(
        "other loss: the first step returned 3, that of ours returned 2;"
    )
    assert found.failed[1].startswith("no loss: ")
    assert found.failed[2].startswith(
        "other net: the network has 8 parameters, that of ours has 7;"
    )
    assert found.rows[3]["value"] is None  # JSON has no NaN


def test_no_process_starts_after_the_time_limit():
    found = race([echo("ours"), echo("peer")], -1)
    assert not found.rows
    late = "the time limit was reached before its first step"
    assert found.left_out == [f"{n}: {late}" for n in ("ours", "peer")]


def test_a_process_without_an_answer_is_killed(monkeypatch):
    monkeypatch.setattr(process, "ANSWER_TIMEOUT_S", 0)
    silent = echo("peer", silent=True)
    with pytest.raises(WorkerError, match="gave no answer in 0 s"), Process(silent):
        pass


def test_a_profile_request_has_a_number_of_steps():
    with Process(echo("ours")) as running:
        assert running.ask(profile=3)["profile"] == {"op": 3.0}


class Clock:
    """Clock that only ``sleep`` advances."""

    def __init__(self):
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def idle_after(monkeypatch, *cpu_seconds: float) -> float:
    """Wait for a process with these CPU seconds at successive polls; return the seconds waited."""
    clock, counts = Clock(), iter(cpu_seconds)
    last = cpu_seconds[-1]
    monkeypatch.setattr(process, "time", clock)
    monkeypatch.setattr(process, "cpu_seconds", lambda pid: next(counts, last))
    idle = object.__new__(Process)
    idle._process = SimpleNamespace(pid=1)
    idle.wait_until_idle()
    return clock.now


def test_a_process_is_idle_when_its_cpu_time_stays_the_same(monkeypatch):
    assert idle_after(monkeypatch, 0.5, 0.5) == process.IDLE_POLL_S
    assert idle_after(monkeypatch, 0.5, 0.51, 0.52, 0.52, 9.0) == 3 * process.IDLE_POLL_S


def test_the_wait_for_a_busy_process_is_limited(monkeypatch):
    slept = idle_after(monkeypatch, *range(1000))
    assert process.IDLE_TIMEOUT_S <= slept < process.IDLE_TIMEOUT_S + 2 * process.IDLE_POLL_S


# A process that waits for its child, and the child, which computes for a while and then waits.
CHILD = """
import sys, time
while time.process_time() < float(sys.argv[1]): pass
print("done", flush=True)
sys.stdin.read()
"""
PARENT = """
import subprocess, sys
subprocess.run([sys.executable, "-c", *sys.argv[1:]])
"""


def test_cpu_seconds_include_child_processes():
    command = [sys.executable, "-c", PARENT, CHILD, "0.5"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, **pipes) as parent:
        assert parent.stdout.readline() == b"done\n"
        assert process.cpu_seconds(parent.pid) > 0.45  # the clock tick is 0.01 s
        parent.stdin.close()
        parent.wait()
        assert process.cpu_seconds(parent.pid) == 0


def test_the_race_waits_for_steady_candidates_after_each_turn(monkeypatch):
    waited_for = []
    monkeypatch.setattr(Process, "wait_until_idle", lambda self: waited_for.append(self))
    steady = replace(echo("ours"), steady=True)
    race([steady, echo("peer")], NO_LIMIT_S, rounds=2)
    assert len(waited_for) == 2 and len(set(waited_for)) == 1
