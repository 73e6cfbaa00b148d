# SPDX-License-Identifier: Apache-2.0
"""Measure the images/s of the fastest device that a loader can feed without delays.

    python benchmarks/feed_rate.py

A simulated device takes a batch, sleeps for the duration of a training step, and takes the next
batch.  A bisection finds the feed rate: the highest images/s at which the device spends less than
3 % of its time waiting for batches.  The benchmark also measures the loader's own rate: the
images/s when batches are taken without a pause.  During all measurements, matrix products keep
``--load`` cores busy, as the CPU work of training would.  DataLoaders with 0 workers are not
measured: they prepare a batch only when it is requested, so a device would wait for every batch.
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
from benchmarks.harness.feed_search import (
    MAX_INTERVAL_FACTOR,
    MAX_WAITING_FRACTION,
    PRECISION_FRACTION,
    Trial,
    search,
)
from benchmarks.harness.process import CORES, Candidate, WorkerError
from benchmarks.harness.timing import Result, quartiles
from launch.config.paths import home_path

# A measurement of the loader's own rate takes a multiple of 16 batches, because loaders decode
# several batches at a time.
GROUP_BATCHES = 16
TRIAL_S, QUICK_TRIAL_S = 1.0, 0.4
QUICK_PRECISION_FRACTION = 0.05
SETTLE_FRACTION = 0.25  # Ratio of untimed warm-up batches to timed batches.
MIN_TRIAL_BATCHES = 3
OWN_RATE_FRACTION = 0.3
SECONDS, QUICK_SECONDS = 560.0, 34.0
MIN_ROUNDS, QUICK_ROUNDS = 3, 1
TURNS_FRACTION = 0.65  # Fraction of the time limit that is left for measurements after start-up.
ROW_TRIALS = 25
# A feed rate above the loader's own rate times this factor shows that the machine's speed changed.
MAX_FEED_RATIO = 1.03
UNFED_KINDS = ("transforms", "synthetic", "raw", "dali", "native", "convert")
SLOW_KINDS = ("random-dali", "window", "blocks", "cache", "ffcv")
COLUMNS = (
    ("images/s", "images_per_second", "{:,.0f}"),
    ("quartiles", "images_per_second_spread", "{0[0]:,.0f} to {0[1]:,.0f}"),
    ("own rate", "own_images_per_second", "{:,.0f}"),
    ("quartiles", "own_spread", "{0[0]:,.0f} to {0[1]:,.0f}"),
    ("of own rate", "of_own", "{:.2f}"),
    ("quartiles", "of_own_spread", "{0[0]:.2f} to {0[1]:.2f}"),
    ("waiting", "waiting", "{:.1%}"),
    ("rounds", "rounds", "{}"),
    ("trials", "trials", "{}"),
    ("cut short", "cut_short", "{}"),
    ("speed-up of ours", "times_ours", "{:.2f}"),
    ("", "note", "{}"),
)
LEGEND = (
    "images/s: median over the rounds of the highest rate at which a loader can feed a device. "
    "own rate: rate of the loader without pauses between batches. waiting: fraction of the "
    "device's time that it spends waiting for batches. cut short: number of searches for the feed "
    "rate that reached their time limit. speed-up of ours: images/s of the first row divided by "
    "images/s of this row."
)
# Python program that keeps one core busy with matrix products until its parent process ends.
BUSY_SCRIPT = """
import os, sys
import numpy
first, second, out = (numpy.ones((512, 512), numpy.float32) for _ in range(3))
while os.getppid() == int(sys.argv[1]):
    numpy.dot(first, second, out=out)
"""


def main() -> int:
    """Parse the command line, run the benchmark and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    report.add_options(parser, SECONDS)
    parser.add_argument(
        "--records", type=home_path, help="folder of the record set (default: synthetic)"
    )
    parser.add_argument("--batch", type=int, default=128, help="images per batch (default: 128)")
    parser.add_argument(
        "--load",
        type=int,
        default=1,
        help="number of CPU cores to keep busy during the measurement (default: 1)",
    )
    parser.add_argument(
        "--trial-s",
        type=float,
        help=f"seconds to test one rate (default: {TRIAL_S}, less if there are many rows)",
    )
    arguments = parser.parse_args()
    arguments.seconds = arguments.seconds or (QUICK_SECONDS if arguments.quick else SECONDS)
    with record_set.prepared_set(arguments.records, arguments.batch) as (records, rec, batch):
        candidates = group(records, rec, batch, arguments.quick)
        chosen, _ = report.choose([candidates], arguments.only, arguments.torch)
        row_s = arguments.seconds / max(1, sum(map(len, chosen)))
        trial_s = QUICK_TRIAL_S if arguments.quick else TRIAL_S
        trial_s = max(QUICK_TRIAL_S, min(trial_s, row_s / ROW_TRIALS))
        rounds = min(arguments.rounds, QUICK_ROUNDS if arguments.quick else MIN_ROUNDS)
        result_of = partial(
            FeedResult,
            trial_s=arguments.trial_s or trial_s,
            precision=QUICK_PRECISION_FRACTION if arguments.quick else PRECISION_FRACTION,
            max_turn_s=TURNS_FRACTION * row_s / rounds,
            load=arguments.load,
        )
        with busy_cores(arguments.load):
            return report.run(
                f"feed rates of loaders while {arguments.load} cores are kept busy",
                [candidates],
                arguments,
                rates=True,
                columns=COLUMNS,
                legend=LEGEND,
                result_of=result_of,
            )


def group(records: Path, image_rec: Path, batch: int, quick: bool = False) -> list[Candidate]:
    """Return a `Candidate` for each loader, our random-access loader first.

    A step of a candidate takes one batch.

    Parameters
    ----------
    records, image_rec, batch
        Folder of the record set, path of its .rec, and batch size, as `record_set.prepared_set`
        yields them.
    quick
        Omit slow loaders, and baselines with fewer or more workers than CPU cores.
    """
    candidates = [
        replace(candidate, settings=candidate.settings | {"batches": 1}, images=batch)
        for candidate in loader_throughput.group(records, image_rec, batch)
        if candidate.settings["kind"] not in (UNFED_KINDS + SLOW_KINDS if quick else UNFED_KINDS)
    ]

    def has_row(candidate: Candidate) -> bool:
        workers = candidate.settings["workers"]
        # MXNet's iterator is measured with one thread count: more threads do not make it faster.
        all_cores_only = quick or candidate.settings["kind"] == "iterator"
        return candidate.name.startswith("ours") or (
            workers == CORES if all_cores_only else workers > 0
        )

    return [candidate for candidate in candidates if has_row(candidate)]


@contextmanager
def busy_cores(count: int) -> Iterator[None]:
    """Keep ``count`` cores busy while the body of the ``with`` statement runs.

    For each core, one single-threaded process computes float32 matrix products.

    Raises
    ------
    SystemExit
        If one of the processes ended early, which makes the measurement useless.
    """
    threads = {f"{library}_NUM_THREADS": "1" for library in ("OMP", "OPENBLAS", "MKL")}
    command = [sys.executable, "-c", BUSY_SCRIPT, str(os.getpid())]
    running = [subprocess.Popen(command, env={**os.environ, **threads}) for _ in range(count)]
    try:
        yield
        if any(process.poll() is not None for process in running):
            raise SystemExit(
                "feed_rate: a background process that keeps a core busy has ended early, so the "
                "result is useless; run the benchmark again"
            )
    finally:
        for process in running:
            process.kill()
            process.wait()


@dataclass
class FeedResult(Result):
    """Measurements of how fast a loader can feed a simulated device.

    The feed rate is the highest rate at which the device hardly waits for batches.  The own rate is
    the rate at which batches are taken without a pause.  `seconds` holds the seconds per batch at
    the feed rate, one value per round.

    Parameters
    ----------
    trial_s
        Seconds of a trial, which tests one rate.  A trial takes at least MIN_TRIAL_BATCHES batches.
    precision
        Relative precision of the seconds per batch.  A search for the feed rate ends when it has
        reached this precision.
    max_turn_s
        Time limit of a search in seconds; at the limit, the best rate found so far is the result.
    load
        Number of cores that are kept busy.
    own
        Seconds per batch at the own rate, one value per round.
    best
        Trial at the feed rate, one per round.
    cut_short
        Number of searches that ended at the time limit `max_turn_s`.
    batch_s
        Seconds per batch in the last measurement of the own rate.
    turn_s
        Duration of the last search in seconds.
    """

    trial_s: float = TRIAL_S
    precision: float = PRECISION_FRACTION
    max_turn_s: float = math.inf
    load: int = 0
    own: list[float] = field(default_factory=list)
    best: list[Trial] = field(default_factory=list)
    trials: int = 0
    cut_short: int = 0
    batch_s: float = 0.0
    turn_s: float = 0.0

    @property
    def needed_s(self) -> float:
        """Return the duration of the last search in seconds, as an estimate for the next search."""
        return self.turn_s

    def first_turn(self) -> None:
        """Measure the loader's own rate and its feed rate for the first time."""
        self.batch_s = self._take(GROUP_BATCHES).batch_s
        self._measure()

    def later_turn(self) -> None:
        """Measure the loader's own rate and its feed rate again."""
        self._measure()

    def row(self, ours: Result | None = None) -> dict[str, Any]:
        """Return the measurements as a result row, compared with ``ours`` if it is given."""
        batch = self.candidate.images
        own = [batch / seconds for seconds in self.own]
        ratios = [own_s / s for own_s, s in zip(self.own, self.seconds, strict=True)]
        row = super().row(ours) | {"load": self.load, "trials": self.trials}
        row["cut_short"] = self.cut_short
        row["own_images_per_second"], row["own_spread"] = quartiles(own)
        row["of_own"], row["of_own_spread"] = quartiles(ratios)
        row["waiting"] = statistics.median(found.waiting_fraction for found in self.best)
        row["noise"] = row["of_own"] > MAX_FEED_RATIO
        if row["noise"]:
            row["note"] = (
                f"noise: the feed rate is {row['of_own'] - 1:.0%} above the loader's own rate"
            )
        return row

    def _measure(self) -> None:
        """Search for the feed rate; measure the loader's own rate before and after each trial.

        The recorded own rate is the mean of the measurements before and after the best trial.
        """
        start = time.monotonic()
        own, trials = [self._measure_own()], list[Trial]()
        # The search starts at a guess of the interval.  In the first round, the guess assumes that
        # batches arrive at the loader's own rate.  Later rounds use the results of earlier rounds.
        ratio = 1 - MAX_WAITING_FRACTION
        if self.best:
            pairs = zip(self.best, self.own, strict=True)
            ratio = statistics.median(best.interval / own_s for best, own_s in pairs)

        def trial(interval: float) -> Trial:
            trials.append(self._trial(interval))
            own.append(self._measure_own())
            return trials[-1]

        def out_of_time() -> bool:
            return time.monotonic() > start + self.max_turn_s

        guess = ratio * own[0]
        best = search(trial, guess, self.precision, out_of_time)
        self.cut_short += out_of_time()
        if best is None:
            slowest = self.candidate.images / (MAX_INTERVAL_FACTOR * guess)
            raise WorkerError(
                f"the loader cannot feed a device: even at {slowest:,.1f} images/s, the device "
                f"waits for batches for {MAX_WAITING_FRACTION:.0%} of its time or more"
            )
        place = trials.index(best)
        self.best.append(best)
        self.own.append((own[place] + own[place + 1]) / 2)
        self.seconds.append(best.batch_s)
        self.rounds += 1
        self.turn_s = time.monotonic() - start

    def _measure_own(self) -> float:
        """Measure the seconds per batch when batches are taken without a pause."""
        groups = OWN_RATE_FRACTION * self.trial_s / (GROUP_BATCHES * self.batch_s)
        self.batch_s = self._take(GROUP_BATCHES * max(1, round(groups))).batch_s
        return self.batch_s

    def _trial(self, interval: float) -> Trial:
        self.trials += 1
        rate = self.candidate.images / interval
        self.progress(f"{self.candidate.name}: trial {self.trials}, {rate:,.0f} images/s")
        count = math.ceil(self.trial_s / max(interval, self.batch_s))
        batches = max(MIN_TRIAL_BATCHES, count)
        return self._take(batches, math.ceil(SETTLE_FRACTION * batches), interval)

    def _take(self, batches: int, untimed: int = 0, interval: float = 0.0) -> Trial:
        """Take ``batches`` batches and time them, with ``interval`` seconds of sleep after each.

        ``untimed`` additional batches are taken first and not timed.  If the interval is not 0, the
        measurement stops as soon as the device has waited so long that the trial must fail.
        """
        request = {"steps": batches, "untimed": untimed, "interval": interval}
        if interval:
            max_ratio = MAX_WAITING_FRACTION / (1 - MAX_WAITING_FRACTION)
            request["most_s"] = max_ratio * batches * interval
        answer = self.process.ask(**request)
        self.peak_mib, self.extra_mib = answer["peak_mib"], answer["extra_mib"]
        seconds = answer["seconds"]
        return Trial(interval, sum(seconds), answer["elapsed"], len(seconds))


if __name__ == "__main__":
    sys.exit(main())
