# SPDX-License-Identifier: Apache-2.0
"""Rivals take turns, rows say what was measured, and whoever cannot take part is named."""

from __future__ import annotations

import itertools
import subprocess
import sys
import time
from dataclasses import replace

import pytest

from benchmarks import process, timing
from benchmarks.process import Process, Rival, WorkerError
from benchmarks.timing import race, rotated, summarise

ECHO = "tests.benchmarks.echo_steps"


def echo(name: str, images: int = 0, same_value=False, same_size=False, **settings) -> Rival:
    return Rival(name, ECHO, settings, images=images, same_value=same_value, same_size=same_size)


def test_median_and_quartiles():
    assert summarise([0.004]) == (4.0, [4.0, 4.0])
    assert summarise([0.005, 0.001, 0.003, 0.002, 0.004]) == (3.0, [2.0, 4.0])


def test_every_place_in_a_round_is_everyones():
    firsts = [rotated(["a", "b", "c"], number)[0] for number in range(4)]
    assert firsts == ["a", "b", "c", "a"]
    assert rotated([], 3) == []


def test_turns_are_interleaved(tmp_path, monkeypatch):
    monkeypatch.setattr(timing, "MAX_STEPS", 2)
    journal = tmp_path / "journal"
    rivals = [echo(n, journal=str(journal), word=n) for n in ("ours", "peer")]
    shown = []
    found = race(rivals, 60, rounds=3, show=lambda row: shown.append(row["name"]))
    assert shown == ["ours", "peer"]  # before the rounds
    assert [row["rounds"] for row in found.rows] == [3, 3]
    assert [row["steps"] for row in found.rows] == [5, 5]
    turns = [name for name, _ in itertools.groupby(journal.read_text().split())]
    # First turns of one and one untimed step, then rounds of which each begins with another one.
    assert turns == ["ours", "peer", "ours", "peer"]
    assert journal.read_text().split() == ["ours"] * 2 + ["peer"] * 5 + ["ours"] * 6 + ["peer"] * 3


def test_a_row_has_what_was_measured():
    rivals = [echo("ours", images=8, mark=True, memory_mib=32), echo("peer", images=8)]
    found = race(rivals, 60, rounds=2)
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
    (row,) = race([echo("peer", memory_mib=32)], 60, rounds=1).rows
    # The state's 32 MiB, the 32 MiB copied in a step, and those from which the state was made.
    assert row["peak_mib"] > 64
    assert 31 < row["extra_mib"] < 70


def test_whoever_cannot_take_part_is_named_and_the_others_go_on():
    rivals = [
        echo("ours"),
        echo("peer", left_out="no licence"),
        echo("other", dies="out of ink"),
        Rival("third", "tests.benchmarks.no_such_module", {}),
    ]
    found = race(rivals, 60, rounds=2)
    assert [row["name"] for row in found.rows] == ["ours"]
    assert found.left_out[:2] == ["peer: no licence", "other: its process ended: out of ink"]
    assert "no_such_module" in found.left_out[2]
    assert not found.failed


def test_ours_must_not_fail():
    found = race([echo("ours", dies="out of ink"), echo("peer")], 60, rounds=2)
    assert found.failed == ["ours: its process ended: out of ink"]
    assert [row["name"] for row in found.rows] == ["peer"]
    assert "times_ours" not in found.rows[0]


def test_rivals_with_the_same_work_must_agree():
    rivals = [
        echo("ours", same_value=True, same_size=True, value=2.0),
        echo("equal", same_value=True, same_size=True, value=2.001),
        echo("other loss", same_value=True, value=3.0),
        echo("no loss", same_value=True, value=float("nan")),
        echo("other net", same_size=True, parameters=8),
        echo("free", value=9.0, parameters=9),
    ]
    found = race(rivals, 60, rounds=1)
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
    with pytest.raises(WorkerError, match="gave no answer in 0 s"), Process(echo("peer")):
        pass


def test_a_profile_is_asked_for_by_steps():
    with Process(echo("ours")) as running:
        assert running.ask(profile=3)["profile"] == {"op": 3.0}


BUSY = """
import subprocess, sys, time
end = time.monotonic() + float(sys.argv[1])
work = f"import time\\nwhile time.monotonic() < {end}: pass"
child = subprocess.Popen([sys.executable, "-c", work])
print("begun", flush=True)
time.sleep(60)
"""


def test_a_process_is_waited_for_until_it_and_its_children_rest(monkeypatch):
    resting = object.__new__(Process)
    with subprocess.Popen([sys.executable, "-c", BUSY, "0.7"], stdout=subprocess.PIPE) as busy:
        resting._process, begun = busy, time.monotonic()
        busy.stdout.readline()
        resting.come_to_rest()
        assert time.monotonic() - begun > 0.5
        assert process.cpu_seconds(busy.pid) > 0.2
        busy.kill()
    assert process.cpu_seconds(busy.pid) == 0


def test_whoever_never_rests_is_not_waited_for_long(monkeypatch):
    monkeypatch.setattr(process, "REST_S", 0.1)
    resting = object.__new__(Process)
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as busy:
        resting._process = busy
        resting.come_to_rest()
        assert busy.poll() is None
        busy.kill()


def test_those_that_work_ahead_rest_after_each_turn(monkeypatch):
    rested = []
    monkeypatch.setattr(Process, "come_to_rest", lambda self: rested.append(self))
    steady = replace(echo("ours"), steady=True)
    race([steady, echo("peer")], 60, rounds=2)
    assert len(rested) == 2 and len(set(rested)) == 1
