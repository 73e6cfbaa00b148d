# SPDX-License-Identifier: Apache-2.0
"""Time candidates against each other, interleaved.

No machine is equally fast for minutes, so candidates take turns of about a second in rounds, and
each round begins with another one.  Only the process whose turn it is computes; the others wait.
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
MAX_STEPS = 50  # of a turn
ROUNDS = 15
SAME = 1e-3  # relative difference of the numbers that candidates with the same work give


@dataclass
class Result:
    """What was measured of a candidate so far."""

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
    def expected(self) -> float:
        """Return the seconds that a step takes."""
        return statistics.median(self.seconds)

    @property
    def untimed(self) -> int:
        """Return the steps before the timed ones: a long step runs through the caches anyway."""
        return 1 if self.expected < TURN_S / 2 else 0

    @property
    def needed_s(self) -> float:
        """Return the seconds that must remain for a later turn."""
        return (1 + self.untimed) * self.expected

    def first_turn(self) -> None:
        """Let the candidate do what its row can be shown after."""
        self.turn(steps=1)

    def later_turn(self) -> None:
        """Let the candidate do what it does in a round."""
        self.turn(min(MAX_STEPS, max(1, round(TURN_S / self.expected))), self.untimed)

    def rest(self) -> None:
        """Wait until prefetching ends, which would slow down the next candidate."""
        if self.candidate.steady:
            self.process.come_to_rest()

    def turn(self, steps: int, untimed: int = 1) -> dict[str, Any]:
        """Let the candidate do steps and take down how long they took; return its answer."""
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
        """Return the row of the JSON; ``ours`` is what it is compared with."""
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
    """What came of a group: rows, who was left out and why, what went wrong with ours."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=dict)


def race(
    candidates: Sequence[Candidate],
    seconds: float,
    *,
    rounds: int = ROUNDS,
    result_of: Callable[..., Result] = Result,
    show: Callable[[dict[str, Any]], None] = lambda row: None,
    progress: Callable[[str], None] = lambda text: None,
) -> Race:
    """Time a group of candidates in interleaved rounds.

    Parameters
    ----------
    candidates
        All of them are in memory at once.  What others are compared with is the first whose name
        begins with "ours".
    seconds
        After this time no turn starts; everyone has had one by then, unless the time is up
        before a process is started.
    rounds
        At most as many.
    result_of
        Makes a `Result`, or what measures otherwise, of a candidate, its process and ``progress=``.
    show
        Called with each row as soon as there is one, after the first turn.
    progress
        Called with what is going on.
    """
    end = time.monotonic() + seconds
    found, results = Race(), []

    def lost(candidate: Candidate, reason: str) -> None:
        found.left_out.append(f"{candidate.name}: {reason}")
        if candidate.name.startswith("ours"):
            found.failed.append(found.left_out[-1])

    with ExitStack() as stack:
        for candidate in candidates:
            if time.monotonic() > end:
                found.left_out.append(f"{candidate.name}: the time was up before its turn")
                continue
            progress(f"starting {candidate.name}")
            try:
                process = stack.enter_context(Process(candidate))
                if "left_out" in process.hello:
                    found.left_out.append(f"{candidate.name}: {process.hello['left_out']}")
                    continue
                result = result_of(candidate, process, progress=progress)
                result.first_turn()
                result.rest()
            except WorkerError as error:
                lost(candidate, str(error))
                continue
            found.versions |= process.hello["versions"]
            results.append(result)
            show(result.row())
        found.failed += disagreements(results)
        for number in range(1, rounds):
            for result in rotated(list(results), number):
                if time.monotonic() + result.needed_s > end:
                    continue
                progress(f"round {number + 1} of {rounds}: {result.candidate.name}")
                try:
                    result.later_turn()
                    result.rest()
                except WorkerError as error:
                    results.remove(result)
                    lost(result.candidate, str(error))
    ours = next((r for r in results if r.candidate.name.startswith("ours")), None)
    found.rows = [result.row(ours) for result in results]
    return found


def summarise(seconds: Sequence[float]) -> tuple[float, list[float]]:
    """Return the median and the quartiles, in milliseconds."""
    return quartiles([1000 * value for value in seconds])


def quartiles(values: Sequence[float]) -> tuple[float, list[float]]:
    """Return the median, and the first and the third quartile."""
    if len(values) == 1:
        return values[0], [values[0]] * 2
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return median, [low, high]


def rotated(items: list[Any], number: int) -> list[Any]:
    """Return the items beginning with another one for each number, so that no place is better."""
    start = number % len(items) if items else 0
    return items[start:] + items[:start]


def disagreements(results: Sequence[Result]) -> list[str]:
    """Return a sentence for each candidate that does not do the work of the first of its kind."""
    sentences = []
    same = [r for r in results if r.candidate.same_value]
    for result in same[1:]:
        first = same[0]
        if not abs(result.value - first.value) <= SAME * abs(first.value):  # not true for NaN
            sentences.append(
                f"{result.candidate.name}: its first step gave {result.value:.6g}, that of "
                f"{first.candidate.name} {first.value:.6g}; they must do the same"
            )
    same = [r for r in results if r.candidate.same_size]
    for result in same[1:]:
        size, of_first = (r.process.hello["parameters"] for r in (result, same[0]))
        if size != of_first:
            sentences.append(
                f"{result.candidate.name}: has {size:,} parameters, {same[0].candidate.name} "
                f"{of_first:,}; they must be the same network"
            )
    return sentences
