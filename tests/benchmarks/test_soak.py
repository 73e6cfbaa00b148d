# SPDX-License-Identifier: Apache-2.0
"""Leaks are reported, resources that come and go are not; the script runs several kinds."""

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
NOTHING_LEFT = {"left_over": ""}


def sentences(samples: list[Sample]) -> list[str]:
    return failures(NOTHING_LEFT | changes(samples, SECONDS))


def samples(resident=lambda at: 500 * MIB, descriptors=lambda at: 40, threads=lambda at: 20):
    return [Sample(at, resident(at), descriptors(at), threads(at)) for at in range(SECONDS)]


def test_constant_resources_are_no_failure():
    assert sentences(samples()) == []


def test_growth_in_the_warm_up_is_no_failure():
    warm = {"descriptors": lambda at: min(40, at), "threads": lambda at: min(20, at)}
    assert sentences(samples(lambda at: min(100, 1 + at) * MIB, **warm)) == []


def test_resources_that_come_and_go_are_no_failure():
    found = samples(lambda at: (500 + at % 8) * MIB, lambda at: 40 + at % 7, lambda at: 20 + at % 3)
    assert sentences(found) == []


@pytest.mark.parametrize("what", ["descriptors", "threads"])
@pytest.mark.parametrize("at_once", [True, False])
def test_a_leak_is_reported(what, at_once):
    def grows(at: int) -> int:
        return 30 + at % 5 + (at > 300 if at_once else at // 100)

    (sentence,) = sentences(samples(**{what: grows}))
    assert sentence.startswith(f"the number of {what} grows from 3")


def test_growing_memory_is_reported():
    (sentence,) = sentences(samples(lambda at: 500 * MIB + at * MIB // 40))
    assert sentence.startswith("resident memory changes by 2.")


def test_resources_that_stopped_loaders_leave_are_reported():
    row = NOTHING_LEFT | changes(samples(), SECONDS) | {"left_over": "2 threads"}
    assert failures(row) == ["stopped loaders leave resources behind: 2 threads"]


class Clock:
    """Clock that only ``sleep`` advances."""

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
def clock(monkeypatch):
    """Return a simulated clock for the soak."""
    simulated = Clock()
    monkeypatch.setattr(soak, "SAMPLE_S", 0.01)
    monkeypatch.setattr(soak, "time", simulated)
    return simulated


def test_a_loader_that_leaks_descriptors_fails(clock, capsys):
    opened: list[int] = []

    def leak() -> None:
        opened.append(os.open("/dev/null", os.O_RDONLY))

    try:
        row = soak.watch(loads(clock, leak), 4, 0.2) | NOTHING_LEFT
    finally:
        for file in opened:
            os.close(file)
    assert row["descriptors_end"] > row["descriptors_warm"] + 50
    assert any(sentence.startswith("the number of descriptors grows") for sentence in failures(row))
    assert "descriptors" in capsys.readouterr().out


def test_a_loader_that_leaks_threads_fails(clock):
    over, started = threading.Event(), []

    def leak() -> None:
        started.append(threading.Thread(target=over.wait))
        started[-1].start()

    try:
        row = soak.watch(loads(clock, leak), 4, 0.2) | NOTHING_LEFT
    finally:
        over.set()
        for thread in started:
            thread.join()
    assert row["threads_end"] > row["threads_warm"] + 50
    assert any(sentence.startswith("the number of threads grows") for sentence in failures(row))


def test_several_kinds_run_one_after_the_other(tiny_records, tmp_path):
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
    # Memory may still grow at the end of so short a run.
    assert done.returncode == (1 if any(row["failures"] for row in rows) else 0)
