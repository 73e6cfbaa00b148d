# SPDX-License-Identifier: Apache-2.0
"""Time several implementations alternately, so that the machine's changing speed affects all alike.

The speed of a machine changes within minutes.  So each implementation (candidate) is timed in
turns of about a second.  In each round every candidate has one turn, and each round starts with a
different candidate.  Each candidate has a process; only one process computes at a time, and the
other processes wait.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from benchmarks.harness.process import Candidate, Process, WorkerError

TURN_S = 1.0
MAX_TURN_STEPS = 50
ROUNDS = 15
VALUE_TOLERANCE_FRACTION = 1e-3


@dataclass
class Result:
    """Measurements of one implementation over all periods in which it was timed.

    Parameters
    ----------
    seconds
        Seconds of each step.  If `Candidate.steady` is set, the list has one value per turn, the
        mean over the steps of the turn.
    without_update
        Seconds from the start of each step to the start of its weight update; empty if the steps do
        not mark the start of the update.
    value
        Value that the first step returned, such as the loss.
    peak_mib, extra_mib
        Peak resident memory in MiB, and the part of it that is neither libraries nor
        `Work.state_bytes`.
    progress
        Function that shows what the benchmark is doing.
    """

    candidate: Candidate
    process: Process
    seconds: list[float] = field(default_factory=list)
    without_update: list[float] = field(default_factory=list)
    rounds: int = 0
    value: float = 0.0
    peak_mib: float = 0.0
    extra_mib: float = 0.0
    progress: Callable[[str], None] = lambda text: None

    @property
    def step_s(self) -> float:
        """Return the median seconds of a step."""
        return statistics.median(self.seconds)

    @property
    def untimed_steps(self) -> int:
        """Return the number of warm-up steps per turn: 1, or 0 if a step is long."""
        return 1 if self.step_s < TURN_S / 2 else 0

    @property
    def needed_s(self) -> float:
        """Return the minimum seconds of a turn: those of the warm-up steps and one timed step."""
        return (1 + self.untimed_steps) * self.step_s

    def first_turn(self) -> None:
        """Run one warm-up step and one timed step."""
        self.turn(steps=1)

    def later_turn(self) -> None:
        """Run the warm-up steps, then timed steps for about TURN_S seconds."""
        self.turn(min(MAX_TURN_STEPS, max(1, round(TURN_S / self.step_s))), self.untimed_steps)

    def wait_until_idle(self) -> None:
        """Wait until the process stops prefetching, which would slow down the next process."""
        if self.candidate.steady:
            self.process.wait_until_idle()

    def turn(self, steps: int, untimed: int = 1) -> dict[str, Any]:
        """Run untimed steps and timed steps, record the times, and return all measured values."""
        answer = self.process.ask(steps=steps, untimed=untimed)
        seconds = answer["seconds"]
        self.seconds += [statistics.fmean(seconds)] if self.candidate.steady else seconds
        self.without_update += answer["seconds_without_update"]
        if not self.rounds:
            self.value = answer["value"]
        self.rounds += 1
        self.peak_mib, self.extra_mib = answer["peak_mib"], answer["extra_mib"]
        return answer

    def row(self, ours: Result | None = None) -> dict[str, Any]:
        """Return the measurements as a result row, compared with ``ours`` if it is given."""
        median, spread = summarise(self.seconds)
        row: dict[str, Any] = {
            "name": self.candidate.name,
            "milliseconds": median,
            "spread": spread,
        }
        if self.without_update:
            row["milliseconds_without_update"] = summarise(self.without_update)[0]
        if self.candidate.images:
            row["images_per_second"] = 1000 * self.candidate.images / median
        row |= {"peak_mib": self.peak_mib, "extra_mib": self.extra_mib}
        row["parameters"] = self.process.hello["parameters"]
        row["value"] = self.value if math.isfinite(self.value) else None  # JSON has no NaN
        row |= {"steps": len(self.seconds), "rounds": self.rounds}
        if ours:
            row["times_ours"] = median / summarise(ours.seconds)[0]
            if self.without_update and ours.without_update:
                base = summarise(ours.without_update)[0]
                row["times_ours_without_update"] = row["milliseconds_without_update"] / base
        return row


@dataclass
class Race:
    """Results of timing a group of implementations (candidates).

    Parameters
    ----------
    rows
        Rows of the JSON file, one for each measured candidate.
    left_out
        A message for each candidate without a row.
    failed
        A message for each candidate of our own code that failed, and for each candidate whose
        value or number of parameters must equal that of the first candidate but differs from it.
    versions
        Versions of the libraries by library name.
    """

    rows: list[dict[str, Any]] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=dict)

    def leave_out(self, candidate: Candidate, error: WorkerError) -> None:
        """Record that a candidate has no result row because its process failed."""
        self.left_out.append(f"{candidate.name}: {error}")
        if candidate.name.startswith("ours"):
            self.failed.append(self.left_out[-1])


def race(
    candidates: Sequence[Candidate],
    seconds: float,
    *,
    rounds: int = ROUNDS,
    result_of: Callable[..., Result] = Result,
    show: Callable[[dict[str, Any]], None] = lambda row: None,
    progress: Callable[[str], None] = lambda text: None,
) -> Race:
    """Time a group of implementations alternately, each for about a second at a time.

    Parameters
    ----------
    candidates
        Implementations to time; all their processes are in memory at once.  The first one whose
        name begins with "ours" is the reference: the result row of each candidate states the
        candidate's time relative to that of the reference.
    seconds
        Time limit in seconds, after which no process is started and no candidate is timed again.
    rounds
        Largest number of rounds; in a round, each candidate is timed once.
    result_of
        Constructor of a `Result`, called with a candidate, its process and the keyword
        ``progress``.
    show
        Function that gets the first result of a candidate, as a dict; it is called as soon as the
        candidate has been timed for the first time.
    progress
        Function that shows what the benchmark is doing.
    """
    end = time.monotonic() + seconds
    found, results = Race(), list[Result]()
    with ExitStack() as stack:
        for candidate in candidates:
            if time.monotonic() > end:
                found.left_out.append(
                    f"{candidate.name}: the time limit was reached before its first step"
                )
                continue
            progress(f"starting {candidate.name}")
            try:
                process = stack.enter_context(Process(candidate))
                if "left_out" in process.hello:
                    found.left_out.append(f"{candidate.name}: {process.hello['left_out']}")
                    continue
                result = result_of(candidate, process, progress=progress)
                result.first_turn()
                result.wait_until_idle()
            except WorkerError as error:
                found.leave_out(candidate, error)
                continue
            found.versions |= process.hello["versions"]
            results.append(result)
            show(result.row())
        found.failed += disagreements(results)
        for number in range(1, rounds):
            for result in rotated(results, number):
                if time.monotonic() + result.needed_s <= end:
                    progress(f"round {number + 1} of {rounds}: {result.candidate.name}")
                    _run_later_turn(found, results, result)
    ours = next((r for r in results if r.candidate.name.startswith("ours")), None)
    found.rows = [result.row(ours) for result in results]
    return found


def _run_later_turn(found: Race, results: list[Result], result: Result) -> None:
    """Time a candidate again; remove its result from ``results`` if its process fails."""
    try:
        result.later_turn()
        result.wait_until_idle()
    except WorkerError as error:
        results.remove(result)
        found.leave_out(result.candidate, error)


def summarise(seconds: Sequence[float]) -> tuple[float, list[float]]:
    """Return the median of the times, and a list of their quartiles 1 and 3, in milliseconds."""
    return quartiles([1000 * value for value in seconds])


def quartiles(values: Sequence[float]) -> tuple[float, list[float]]:
    """Return the median of the values, and a list of their quartiles 1 and 3."""
    if len(values) == 1:
        return values[0], [values[0]] * 2
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return median, [low, high]


def rotated(items: Sequence[Any], number: int) -> list[Any]:
    """Return the items rotated, so that item ``number`` (modulo the number of items) is first."""
    start = number % len(items) if items else 0
    return [*items[start:], *items[:start]]


def disagreements(results: Sequence[Result]) -> list[str]:
    """Return a message for each implementation that does not do the same work as the first one.

    All candidates with the flag `same_value` must return equal values from the first step.  All
    candidates with the flag `same_size` must have equally many parameters.
    """
    sentences = []
    same = [r for r in results if r.candidate.same_value]
    for result in same[1:]:
        first = same[0]
        difference = abs(result.value - first.value)
        # This condition also holds if the difference is NaN; "difference > ..." would not.
        if not difference <= VALUE_TOLERANCE_FRACTION * abs(first.value):
            sentences.append(
                f"{result.candidate.name}: the first step returned {result.value:.6g}, that of "
                f"{first.candidate.name} returned {first.value:.6g}; both values must be equal"
            )
    same = [r for r in results if r.candidate.same_size]
    for result in same[1:]:
        size, first_size = (r.process.hello["parameters"] for r in (result, same[0]))
        if size != first_size:
            sentences.append(
                f"{result.candidate.name}: the network has {size:,} parameters, that of "
                f"{same[0].candidate.name} has {first_size:,}; both must be the same network"
            )
    return sentences
