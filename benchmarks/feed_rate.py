# SPDX-License-Identifier: Apache-2.0
"""How fast a device may be that a loader keeps fed:  python benchmarks/feed_rate.py

A stub of a device takes a batch, sleeps as long as it would compute, and takes the next one.  The
feed rate is the highest rate at which it waits less than 3 % of its time, found by bisection; it
is compared with what the loader gives, just before and after, where batches are taken as fast as
they come.  Meanwhile ``--load`` cores are kept busy with matrix products, as the host's own part of
training does.  Loaders without workers have no row: they make a batch when they are asked for it,
and so feed 3 % of their own rate.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import loader_throughput
from benchmarks.harness import record_set, report
from benchmarks.harness.feed_search import PRECISION, SHARE, SPAN, Probe, search
from benchmarks.harness.process import CORES, Candidate, WorkerError
from benchmarks.harness.timing import Result, quartiles
from launch.config.paths import home_path

GROUP = 16  # batches: ours makes them in groups, of which whole ones are to be measured
PROBE_S, QUICK_PROBE_S = 1.0, 0.4
QUICK_PRECISION = 0.05
SETTLE = 0.25  # of a probe goes before it: prefetch queues were emptied, and fill again
LEAST = 3  # batches of a probe
OWN_SHARE = 0.3  # of a probe's time is for the own rate, before it and after it
SECONDS, QUICK_SECONDS = 560.0, 34.0  # of a whole run, if not told otherwise
LEAST_ROUNDS, QUICK_ROUNDS = 3, 1  # that there is time for
TURNS_SHARE = 0.65  # of the time is for so many turns of all rows, if need be; the rest, starts
ROW_PROBES = 25  # for as many as these, and a start, there must be time for each row
NOISE = 1.03  # nobody feeds more than it gives: where it seems so, the machine changed meanwhile
NOT_FED = (
    "transforms",
    "synthetic",
    "raw",
    "dali",
    "native",
    "convert",
)  # kinds that have no row here
SLOWER = ("random-dali", "window", "blocks", "cache", "ffcv")  # kinds that --quick leaves out
COLUMNS = (
    ("images/s", "images_per_second", "{:,.0f}"),
    ("quartiles", "images_per_second_spread", "{0[0]:,.0f} to {0[1]:,.0f}"),
    ("own rate", "own_images_per_second", "{:,.0f}"),
    ("quartiles", "own_spread", "{0[0]:,.0f} to {0[1]:,.0f}"),
    ("of own", "of_own", "{:.2f}"),
    ("quartiles", "of_own_spread", "{0[0]:.2f} to {0[1]:.2f}"),
    ("waiting", "waiting", "{:.1%}"),
    ("rounds", "rounds", "{}"),
    ("probes", "probes", "{}"),
    ("cut short", "cut_short", "{}"),
    ("ours is", "times_ours", "{:.2f} times"),
    ("", "note", "{}"),
)
# Single-threaded products of matrices until the process that started it is gone.
BUSY = """
import os, sys
import numpy
first, second, out = (numpy.ones((512, 512), numpy.float32) for _ in range(3))
while os.getppid() == int(sys.argv[1]):
    numpy.dot(first, second, out=out)
"""


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    report.add_options(parser)
    parser.add_argument("--records", type=home_path, help="a record set of your own")
    parser.add_argument("--batch", type=int, default=128, help="images of a batch (128)")
    parser.add_argument("--load", type=int, default=1, help="cores kept busy meanwhile (1)")
    parser.add_argument(
        "--probe-s", type=float, help=f"seconds of a probe ({PROBE_S}, less if rows are many)"
    )
    arguments = parser.parse_args()
    arguments.seconds = arguments.seconds or (QUICK_SECONDS if arguments.quick else SECONDS)
    with record_set.prepared(arguments.records, arguments.batch) as (*files, batch):
        candidates = group(*files, batch, arguments.quick)
        chosen, _ = report.choose([candidates], arguments.only, arguments.torch)
        row_s = arguments.seconds / max(1, sum(map(len, chosen)))
        probe_s = QUICK_PROBE_S if arguments.quick else PROBE_S
        probe_s = max(QUICK_PROBE_S, min(probe_s, row_s / ROW_PROBES))
        rounds = min(arguments.rounds, QUICK_ROUNDS if arguments.quick else LEAST_ROUNDS)
        result_of = partial(
            FeedResult,
            probe_s=arguments.probe_s or probe_s,
            precision=QUICK_PRECISION if arguments.quick else PRECISION,
            turn_most_s=TURNS_SHARE * row_s / rounds,
            load=arguments.load,
        )
        title = f"feed rates beside {arguments.load} busy cores"
        with busy_cores(arguments.load):
            return report.run(
                title, [candidates], arguments, rates=True, columns=COLUMNS, result_of=result_of
            )


def group(records: Path, image_rec: Path, batch: int, quick: bool = False) -> list[Candidate]:
    """Return the loaders, ours by random access first; their steps are single batches.

    Parameters
    ----------
    records, image_rec, batch
        As `record_set.prepared` yields them.
    quick
        Only the rows without which the others mean nothing.
    """
    candidates = [
        replace(candidate, settings=candidate.settings | {"batches": 1}, images=batch)
        for candidate in loader_throughput.group(records, image_rec, batch)
        if candidate.settings["kind"] not in (NOT_FED + SLOWER if quick else NOT_FED)
    ]

    def has_row(candidate: Candidate) -> bool:
        workers = candidate.settings["workers"]
        # MXNet's iterator does with more threads what it does with one.
        as_many_as_cores = quick or candidate.settings["kind"] == "iterator"
        return candidate.name.startswith("ours") or (
            workers == CORES if as_many_as_cores else workers > 0
        )

    return [candidate for candidate in candidates if has_row(candidate)]


@contextmanager
def busy_cores(count: int) -> Iterator[None]:
    """Keep some cores busy with float32 matrix products, each by a process of one thread.

    Raises
    ------
    SystemExit
        If one of them ended early: what was measured beside it means something else then.
    """
    threads = {f"{library}_NUM_THREADS": "1" for library in ("OMP", "OPENBLAS", "MKL")}
    command = [sys.executable, "-c", BUSY, str(os.getpid())]
    running = [subprocess.Popen(command, env={**os.environ, **threads}) for _ in range(count)]
    try:
        yield
        if any(process.poll() is not None for process in running):
            raise SystemExit("a process that kept a core busy has ended")
    finally:
        for process in running:
            process.kill()
            process.wait()


@dataclass
class FeedResult(Result):
    """What was measured of a loader so far; `seconds` are those from batch to batch at feed rate.

    Parameters
    ----------
    probe_s
        Seconds of a probe; it is longer where LEAST batches take longer.
    precision
        Of the interval between batches, as a share of it.
    turn_most_s
        Seconds after which a turn does without this precision.
    load
        Cores that were kept busy, for the row.
    """

    probe_s: float = PROBE_S
    precision: float = PRECISION
    turn_most_s: float = math.inf
    load: int = 0
    own: list[float] = field(default_factory=list)
    best: list[Probe] = field(default_factory=list)
    probes: int = 0
    cut_short: int = 0  # turns
    batch_s: float = 0.0  # as fast as they come
    turn_s: float = 0.0

    @property
    def needed_s(self) -> float:
        """Return the seconds that must remain for a later turn: those of the last one."""
        return self.turn_s

    def first_turn(self) -> None:
        """Measure own rate and feed rate for the first time."""
        self.batch_s = self._take(GROUP).batch_s
        self._both()

    def later_turn(self) -> None:
        """Measure both again."""
        self._both()

    def row(self, ours: Result | None = None) -> dict[str, Any]:
        """Return the row of the JSON."""
        batch = self.candidate.images
        own = [batch / seconds for seconds in self.own]
        shares = [own_s / s for own_s, s in zip(self.own, self.seconds, strict=True)]
        row = super().row(ours) | {"load": self.load, "probes": self.probes}
        row["cut_short"] = self.cut_short
        row["own_images_per_second"], row["own_spread"] = quartiles(own)
        row["of_own"], row["of_own_spread"] = quartiles(shares)
        row["waiting"] = statistics.median(found.share for found in self.best)
        row["noise"] = row["of_own"] > NOISE
        if row["noise"]:
            row["note"] = f"noise: fed {row['of_own'] - 1:.0%} more than it gives"
        return row

    def _both(self) -> None:
        """Find the feed rate, and the own rate next to the probe that found it."""
        start = time.monotonic()
        own, tried = [self._own()], list[Probe]()
        of_own = 1 - SHARE  # the best that there could be, in batches' time
        if self.best:
            pairs = zip(self.best, self.own, strict=True)
            of_own = statistics.median(best.interval / own_s for best, own_s in pairs)

        def probe(interval: float) -> Probe:
            tried.append(self._probe(interval))
            own.append(self._own())
            return tried[-1]

        def late() -> bool:
            return time.monotonic() > start + self.turn_most_s

        guess = of_own * own[0]
        best = search(probe, guess, self.precision, late)
        self.cut_short += late()
        if best is None:
            slowest = self.candidate.images / (SPAN * guess)
            raise WorkerError(f"waits {SHARE:.0%} of the time even at {slowest:,.1f} images/s")
        place = tried.index(best)
        self.best.append(best)
        self.own.append((own[place] + own[place + 1]) / 2)
        self.seconds.append(best.batch_s)
        self.rounds += 1
        self.turn_s = time.monotonic() - start

    def _own(self) -> float:
        """Return the seconds per batch where batches are taken as fast as they come."""
        groups = OWN_SHARE * self.probe_s / (GROUP * self.batch_s)
        self.batch_s = self._take(GROUP * max(1, round(groups))).batch_s
        return self.batch_s

    def _probe(self, interval: float) -> Probe:
        self.probes += 1
        rate = self.candidate.images / interval
        self.progress(f"{self.candidate.name}: probe {self.probes}, {rate:,.0f} images/s")
        batches = max(LEAST, math.ceil(self.probe_s / max(interval, self.batch_s)))
        return self._take(batches, math.ceil(SETTLE * batches), interval)

    def _take(self, batches: int, untimed: int = 0, interval: float = 0.0) -> Probe:
        """Let the device take batches; it stops where it has waited too long already."""
        request = {"steps": batches, "untimed": untimed, "interval": interval}
        if interval:
            request["most_s"] = SHARE / (1 - SHARE) * batches * interval
        answer = self.process.ask(**request)
        self.peak_mib, self.extra_mib = answer["peak_mib"], answer["extra_mib"]
        seconds = answer["seconds"]
        return Probe(interval, sum(seconds), answer["elapsed"], len(seconds))


if __name__ == "__main__":
    sys.exit(main())
