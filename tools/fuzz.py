# SPDX-License-Identifier: Apache-2.0
"""Damage files at random and read them, until a reader fails in an unexpected manner.

python tools/fuzz.py --minutes N [--seed S] [--target NAME ...]
python tools/fuzz.py --target NAME --seed S --case N      (run one case again)

Each target damages files of one kind and reads them: record sets (records), record sets whose
images are checked (check), local copies of remote record sets (remote), the cached index of a
record set (index), verification sets (bin), configurations (yaml), checkpoints (checkpoint), model
files (models) and JPEG images (jpeg).  The target jpeg runs the compiled decoder, built with
sanitizers.  One damaged file or record set is a case.  The code that reads a case may refuse it
with an error of one sentence.

Findings are: any other exception, a crash, a case that takes more than 20 s, a process whose memory
grows by more than 2 GiB, a report of a sanitizer, and pixels that differ from those of
libjpeg-turbo.  At the first finding the program prints how to reproduce it and exits with code 1.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tools.fuzzing import jpeg
from tools.fuzzing.targets import TARGETS
from tools.fuzzing.worker import CASE_LIMIT_S, NUMBER_FILE, REPORT_FILE

SLICE_S = 20.0
"""Longest time in seconds for which a worker process starts new cases.

The next worker process of the same target continues with the next case.
"""
_START_LIMIT_S = 300
_NO_LIMIT = 1 << 40
_SHOWN_CHARACTERS = 6000


class Result(NamedTuple):
    """Result of a worker process."""

    counts: Counter[str]
    """Numbers of cases by outcome: "accepted" or "refused"."""
    next_case: int
    """Number of the case that caused the finding, or else of the first case that did not run."""
    finding: str
    """Description of the finding; empty if there is none."""


def run_worker(
    target: str, seed: int, cases: range, seconds: float, environment: dict[str, str]
) -> Result:
    """Run cases of a target in a worker process for some seconds; return the process's result."""
    with tempfile.TemporaryDirectory(prefix="face-fuzz-") as folder:
        arguments = [target, seed, cases.start, len(cases), seconds, folder]
        command = [sys.executable, "-m", "tools.fuzzing.worker", *map(str, arguments)]
        with Path(folder, "output").open("w+b") as output:
            child = subprocess.Popen(
                command,
                stdout=output,
                stderr=output,
                env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
                cwd=Path(__file__).resolve().parents[1],
            )
            try:
                code = child.wait(seconds + CASE_LIMIT_S + _START_LIMIT_S)
            except subprocess.TimeoutExpired:
                code = None
            finally:
                child.kill()
                child.wait()
            output.seek(max(0, output.tell() - _SHOWN_CHARACTERS))
            tail = output.read().decode(errors="replace")
        report = Path(folder, REPORT_FILE)
        if code == 0 and report.is_file():
            found = json.loads(report.read_text())
            return Result(Counter(found["counts"]), found["next"], found["finding"])
        number = Path(folder, NUMBER_FILE)
        current = int.from_bytes(number.read_bytes(), "little") if number.is_file() else cases.start
        return Result(Counter(), current, f"{_ending(code)}\n{tail}")


def _ending(code: int | None) -> str:
    if code is None:
        return "the process did not end in time"
    if code < 0:
        return f"the process was killed by {signal.Signals(-code).name}"
    return f"the process ended with code {code}"


def fuzz(targets: Sequence[str], seed: int, seconds: float, library_folder: Path) -> int:
    """Run all targets in turn until the time is over; return 0, or 1 at the first finding.

    ``library_folder`` receives the compiled JPEG decoder of the target jpeg.
    """
    end, started = time.monotonic() + seconds, time.monotonic()
    environments: dict[str, dict[str, str]] = {}
    positions = dict.fromkeys(targets, 0)
    totals: dict[str, Counter[str]] = {target: Counter() for target in targets}
    if "jpeg" in targets:
        library = jpeg.build(library_folder, jpeg.best_level())
        environments["jpeg"] = jpeg.sanitizer_environment(library)
    while (remaining := end - time.monotonic()) > 0 or not all(totals.values()):
        for target in targets:
            share = max(1.0, min(SLICE_S, remaining / len(targets)))
            cases = range(positions[target], _NO_LIMIT)
            result = run_worker(target, seed, cases, share, environments.get(target, {}))
            totals[target] += result.counts
            positions[target] = result.next_case
            if result.finding:
                _print_counts(totals, time.monotonic() - started)
                _print_finding(target, seed, result)
                return 1
    _print_counts(totals, time.monotonic() - started)
    return 0


def _print_counts(totals: dict[str, Counter[str]], seconds: float) -> None:
    for target, counts in totals.items():
        print(f"{target:<12}{counts['accepted']:>10} accepted{counts['refused']:>10} refused")
    cases = sum(sum(counts.values()) for counts in totals.values())
    print(f"{cases} cases in {seconds:.0f} s", flush=True)


def _print_finding(target: str, seed: int, result: Result) -> None:
    print(
        f"finding: target {target}, case {result.next_case}: {result.finding}\nreproduce: python "
        f"tools/fuzz.py --target {target} --seed {seed} --case {result.next_case}",
        flush=True,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Return 0 if nothing was found, 1 after a finding, and 2 if the tool itself fails, for example
    because no compiler is installed.
    """
    parser = argparse.ArgumentParser(
        description="Damage files at random and read them, until a reader fails unexpectedly."
    )
    parser.add_argument(
        "--minutes", type=float, default=1.0, help="duration in minutes (default: 1)"
    )
    parser.add_argument("--seed", type=int, default=0, help="random seed (default: 0)")
    parser.add_argument(
        "--target",
        nargs="+",
        choices=[*TARGETS],
        default=[*TARGETS],
        help="kinds of files to damage and read (default: all)",
    )
    parser.add_argument(
        "--case", type=int, help="run only the case with this number, for each target"
    )
    options = parser.parse_args(arguments)
    if not 0 < options.minutes <= 10_000:
        parser.error(
            f"--minutes: must be above 0 and at most 10000, got {options.minutes}; 30 is usual"
        )
    with tempfile.TemporaryDirectory(prefix="face-fuzz-library-") as folder:
        try:
            if options.case is None:
                return fuzz(options.target, options.seed, 60 * options.minutes, Path(folder))
            return run_one(options.target, options.seed, options.case, Path(folder))
        except OSError as error:
            print(f"error: {error}", file=sys.stderr)
            return 2


def run_one(targets: Sequence[str], seed: int, case: int, library_folder: Path) -> int:
    """Run one case of each target; return 0, or 1 after a finding.

    ``library_folder`` receives the compiled JPEG decoder of the target jpeg.
    """
    for target in targets:
        environment = {}
        if target == "jpeg":
            library = jpeg.build(library_folder, jpeg.best_level())
            environment = jpeg.sanitizer_environment(library)
        result = run_worker(target, seed, range(case, case + 1), 60.0, environment)
        if result.finding:
            _print_finding(target, seed, result)
            return 1
        print(f"{target}, case {case}: {', '.join(result.counts)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
