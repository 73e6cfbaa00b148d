# SPDX-License-Identifier: Apache-2.0
"""Candidates take turns, rows say what was measured, and whoever cannot take part is named."""

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
EVER = math.inf  # seconds of a race that its rounds alone end


def echo(name: str, images: int = 0, same_value=False, same_size=False, **settings) -> Candidate:
    return Candidate(
        name, ECHO, settings, images=images, same_value=same_value, same_size=same_size
    )


def test_median_and_quartiles():
    assert summarise([0.004]) == (4.0, [4.0, 4.0])
    assert summarise([0.005, 0.001, 0.003, 0.002, 0.004]) == (3.0, [2.0, 4.0])


def test_every_place_in_a_round_is_everyones():
    firsts = [rotated(["a", "b", "c"], number)[0] for number in range(4)]
    assert firsts == ["a", "b", "c", "a"]
    assert rotated([], 3) == []


def test_turns_are_interleaved(tmp_path, monkeypatch):
    monkeypatch.setattr(timing, "MAX_STEPS", 2)
    monkeypatch.setattr(timing, "TURN_S", 1e9)  # so slow a machine is no machine
    journal = tmp_path / "journal"
    candidates = [echo(n, journal=str(journal), word=n) for n in ("ours", "peer")]
    shown = []
    found = race(candidates, EVER, rounds=3, show=lambda row: shown.append(row["name"]))
    assert shown == ["ours", "peer"]  # before the rounds
    assert [row["rounds"] for row in found.rows] == [3, 3]
    assert [row["steps"] for row in found.rows] == [5, 5]
    turns = [name for name, _ in itertools.groupby(journal.read_text().split())]
    # First turns of one and one untimed step, then rounds of which each begins with another one.
    assert turns == ["ours", "peer", "ours", "peer"]
    assert journal.read_text().split() == ["ours"] * 2 + ["peer"] * 5 + ["ours"] * 6 + ["peer"] * 3


def test_a_row_has_what_was_measured():
    candidates = [echo("ours", images=8, mark=True, memory_mib=32), echo("peer", images=8)]
    found = race(candidates, EVER, rounds=2)
    ours, peer = found.rows
    assert ours["name"] == "ours" and ours["parameters"] == 7 and ours["value"] == 1.0
    assert ours["spread"][0] <= ours["milliseconds"] <= ours["spread"][1]
    assert 0 <= ours["milliseconds_without_update"] <= ours["milliseconds"]
    assert ours["images_per_second"] == pytest.approx(8000 / ours["milliseconds"])
    assert ours["times_ours"] == 1
    assert peer["times_ours"] == pytest.approx(peer["milliseconds"] / ours["milliseconds"])
    assert "milliseconds_without_update" not in peer
    assert found.versions == {"echo": "1.2.3"} and not found.left_out and not found.failed


def test_memory_is_counted_beyond_the_state():
    (row,) = race([echo("peer", memory_mib=32)], EVER, rounds=1).rows
    # The state's 32 MiB, the 32 MiB copied in a step, and those from which the state was made.
    assert row["peak_mib"] > 64
    assert 31 < row["extra_mib"] < 70


def test_whoever_cannot_take_part_is_named_and_the_others_go_on():
    candidates = [
        echo("ours"),
        echo("peer", left_out="no licence"),
        echo("other", dies="out of ink"),
        Candidate("third", "tests.benchmarks.no_such_module", {}),
    ]
    found = race(candidates, EVER, rounds=2)
    assert [row["name"] for row in found.rows] == ["ours"]
    assert found.left_out[:2] == ["peer: no licence", "other: its process ended: out of ink"]
    assert "no_such_module" in found.left_out[2]
    assert not found.failed


def test_ours_must_not_fail():
    found = race([echo("ours", dies="out of ink"), echo("peer")], EVER, rounds=2)
    assert found.failed == ["ours: its process ended: out of ink"]
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
    found = race(candidates, EVER, rounds=1)
    assert len(found.failed) == 3
    assert found.failed[0].startswith("other loss: its first step gave 3, that of ours 2;")
    assert found.failed[1].startswith("no loss: ")
    assert found.failed[2].startswith("other net: has 8 parameters, ours 7;")
    assert found.rows[3]["value"] is None  # JSON has no NaN


def test_no_turn_is_begun_when_the_time_is_up():
    found = race([echo("ours"), echo("peer")], -1)
    assert not found.rows
    assert found.left_out == [f"{n}: the time was up before its turn" for n in ("ours", "peer")]


def test_a_silent_process_is_ended(monkeypatch):
    monkeypatch.setattr(process, "ANSWER_S", 0)
    silent = echo("peer", silent=True)
    with pytest.raises(WorkerError, match="gave no answer in 0 s"), Process(silent):
        pass


def test_a_profile_is_asked_for_by_steps():
    with Process(echo("ours")) as running:
        assert running.ask(profile=3)["profile"] == {"op": 3.0}


class Clock:
    """Time that passes only where it is slept away."""

    def __init__(self):
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def rested(monkeypatch, *cpu_seconds: float) -> float:
    """Let a process that takes so much CPU time, and then no more, come to rest; return when."""
    clock, counts = Clock(), iter(cpu_seconds)
    last = cpu_seconds[-1]
    monkeypatch.setattr(process, "time", clock)
    monkeypatch.setattr(process, "cpu_seconds", lambda pid: next(counts, last))
    resting = object.__new__(Process)
    resting._process = SimpleNamespace(pid=1)
    resting.come_to_rest()
    return clock.now


def test_a_process_is_waited_for_until_it_rests(monkeypatch):
    assert rested(monkeypatch, 0.5, 0.5) == process.GLANCE_S
    assert rested(monkeypatch, 0.5, 0.51, 0.52, 0.52, 9.0) == 3 * process.GLANCE_S


def test_whoever_never_rests_is_not_waited_for_long(monkeypatch):
    slept = rested(monkeypatch, *range(1000))
    assert process.REST_S <= slept < process.REST_S + 2 * process.GLANCE_S


# A process that waits for its end, and a child of it that computes for a while and waits, too.
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


def test_the_time_of_children_counts():
    command = [sys.executable, "-c", PARENT, CHILD, "0.5"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, **pipes) as parent:
        assert parent.stdout.readline() == b"done\n"
        assert process.cpu_seconds(parent.pid) > 0.45  # the system counts hundredths
        parent.stdin.close()
        parent.wait()
        assert process.cpu_seconds(parent.pid) == 0


def test_those_that_work_ahead_rest_after_each_turn(monkeypatch):
    resting = []
    monkeypatch.setattr(Process, "come_to_rest", lambda self: resting.append(self))
    steady = replace(echo("ours"), steady=True)
    race([steady, echo("peer")], EVER, rounds=2)
    assert len(resting) == 2 and len(set(resting)) == 1
