# SPDX-License-Identifier: Apache-2.0
"""A loader that leaks is noticed, one that comes and goes is not; the script runs over kinds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from benchmarks import soak
from benchmarks.soak import MIB, Sample, changes, failures

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "soak.py"
SECONDS = 600
CLEAN = {"left_over": ""}


def judged(samples: list[Sample]) -> list[str]:
    return failures(CLEAN | changes(samples, SECONDS))


def samples(resident=lambda at: 500 * MIB, descriptors=lambda at: 40, threads=lambda at: 20):
    return [Sample(at, resident(at), descriptors(at), threads(at)) for at in range(SECONDS)]


def test_what_stays_is_no_failure():
    assert judged(samples()) == []


def test_the_warm_up_may_take_what_it_needs():
    warm = {"descriptors": lambda at: min(40, at), "threads": lambda at: min(20, at)}
    assert judged(samples(lambda at: min(100, 1 + at) * MIB, **warm)) == []


def test_what_comes_and_goes_is_no_failure():
    found = samples(lambda at: (500 + at % 8) * MIB, lambda at: 40 + at % 7, lambda at: 20 + at % 3)
    assert judged(found) == []


@pytest.mark.parametrize("what", ["descriptors", "threads"])
@pytest.mark.parametrize("at_once", [True, False])
def test_a_leak_is_noticed(what, at_once):
    def grows(at: int) -> int:
        return 30 + at % 5 + (at > 300 if at_once else at // 100)

    (sentence,) = judged(samples(**{what: grows}))
    assert sentence.startswith(f"{what} grow, from 3")


def test_memory_that_grows_is_noticed():
    (sentence,) = judged(samples(lambda at: 500 * MIB + at * MIB // 40))
    assert sentence.startswith("resident memory changes by 2.")


def test_what_stopped_loaders_leave_is_noticed():
    row = CLEAN | changes(samples(), SECONDS) | {"left_over": "2 threads"}
    assert failures(row) == ["stopped loaders leave 2 threads"]


class Clock:
    """Time that passes only where something is said to take it."""

    now = 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


class Image:
    def __init__(self, clock: Clock):
        self.clock = clock

    def wait_to_read(self) -> None:
        self.clock.sleep(0.001)


def loads(clock, leak):
    while True:
        leak()
        yield Image(clock)


@pytest.fixture
def quick(monkeypatch):
    """Return the clock of a soak that takes no time."""
    clock = Clock()
    monkeypatch.setattr(soak, "SAMPLE_S", 0.01)
    monkeypatch.setattr(soak, "time", clock)
    return clock


def test_a_loader_that_leaks_descriptors_fails(quick, capsys):
    opened: list[int] = []

    def leak() -> None:
        opened.append(os.open("/dev/null", os.O_RDONLY))

    try:
        row = soak.watched(loads(quick, leak), 4, 0.2) | CLEAN
    finally:
        for file in opened:
            os.close(file)
    assert row["descriptors_end"] > row["descriptors_warm"] + 50
    assert any(sentence.startswith("descriptors grow") for sentence in failures(row))
    assert "descriptors" in capsys.readouterr().out


def test_a_loader_that_leaks_threads_fails(quick):
    over, started = threading.Event(), []

    def leak() -> None:
        started.append(threading.Thread(target=over.wait))
        started[-1].start()

    try:
        row = soak.watched(loads(quick, leak), 4, 0.2) | CLEAN
    finally:
        over.set()
        for thread in started:
            thread.join()
    assert row["threads_end"] > row["threads_warm"] + 50
    assert any(sentence.startswith("threads grow") for sentence in failures(row))


def test_kinds_come_one_after_the_other(tiny_records, tmp_path):
    path = tmp_path / "new" / "rows.json"
    words = ["--kind", "random", "cache", "--minutes", 0.02, "--stops", 1, "--batch", 8]
    words += ["--records", tiny_records, "--json", path]
    done = subprocess.run(
        [sys.executable, *map(str, (SCRIPT, *words))], capture_output=True, text=True
    )
    rows = json.loads(path.read_text())["rows"]
    assert [row["name"] for row in rows] == ["ours random", "ours cache"], done.stderr
    for row in rows:
        for what in ("descriptors", "threads"):
            assert row[f"{what}_warm"] > 0 and row[f"{what}_end"] > 0
    # So short a time may well end before memory is steady.
    assert done.returncode == (1 if any(row["failures"] for row in rows) else 0)
