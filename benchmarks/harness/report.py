# SPDX-License-Identifier: Apache-2.0
"""Run a benchmark from its options, and write its tables, JSON file and chart."""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.harness import baselines, chart, timing
from benchmarks.harness.baselines import ROOT
from benchmarks.harness.process import CORES, Candidate
from benchmarks.harness.timing import Race, Result
from launch.config.paths import home_path
from launch.environment.provenance import cpu_model

SECONDS, QUICK_SECONDS = 390.0, 40.0
# Each column is a triple: heading, key of the value in a result row, and format string.
COLUMNS = (
    ("ms", "milliseconds", "{:,.1f}"),
    ("quartiles", "spread", "{0[0]:,.1f} to {0[1]:,.1f}"),
    ("ms without update", "milliseconds_without_update", "{:,.1f}"),
    ("images/s", "images_per_second", "{:,.1f}"),
    ("peak MiB", "peak_mib", "{:,.0f}"),
    ("extra MiB", "extra_mib", "{:,.0f}"),
    ("steps", "steps", "{}"),
    ("x ours", "times_ours", "{:.2f}"),
    ("x ours without update", "times_ours_without_update", "{:.2f}"),
)
RATE_COLUMNS = (
    ("images/s", "images_per_second", "{:,.0f}"),
    ("quartiles", "images_per_second_spread", "{0[0]:,.0f} to {0[1]:,.0f}"),
    ("peak MiB", "peak_mib", "{:,.0f}"),
    ("turns", "steps", "{}"),
    ("speed-up of ours", "times_ours", "{:.2f}"),
)
LEGEND = (
    "ms: median milliseconds per step. extra MiB: peak memory beyond the libraries, weights, "
    "gradients and momentum. x ours: time of this row divided by the time of the first row whose "
    "name begins with 'ours'."
)
RATE_LEGEND = (
    "images/s: median rate. speed-up of ours: rate of the first row whose name begins with 'ours', "
    "divided by the rate of this row."
)


def add_json_option(parser: argparse.ArgumentParser) -> None:
    """Add the option ``--json`` to a parser."""
    parser.add_argument(
        "--json",
        type=home_path,
        help="JSON file to write with the machine description and the result rows",
    )


def add_basic_options(parser: argparse.ArgumentParser, seconds: float) -> None:
    """Add the options ``--json``, ``--plot``, ``--quick`` and ``--seconds`` to a parser.

    ``seconds`` is the default time limit, which the help text of ``--seconds`` states.
    """
    add_json_option(parser)
    parser.add_argument("--plot", type=home_path, help="PNG file to write with a bar chart")
    parser.add_argument(
        "--quick", action="store_true", help="measure less, to finish within a minute"
    )
    parser.add_argument(
        "--seconds",
        type=float,
        help=f"time limit in seconds for the complete benchmark (default: {seconds:.0f})",
    )
    parser.set_defaults(default_seconds=seconds)


def add_options(parser: argparse.ArgumentParser, seconds: float = SECONDS) -> None:
    """Add the options of `add_basic_options`, and ``--only``, ``--torch`` and ``--rounds``."""
    add_basic_options(parser, seconds)
    parser.add_argument(
        "--only",
        default="",
        help="measure only the rows whose name this regular expression matches",
    )
    parser.add_argument(
        "--torch",
        default=os.environ.get("TORCH_PYTHON", ""),
        help="Python interpreter of an environment with PyTorch and NumPy, for the PyTorch rows "
        "(default: the environment variable TORCH_PYTHON)",
    )
    parser.add_argument(
        "--rounds",
        type=int,
        default=timing.ROUNDS,
        help="largest number of rounds; one round times every row once "
        f"(default: {timing.ROUNDS})",
    )


def run(
    title: str,
    groups: Sequence[Sequence[Candidate]],
    arguments: argparse.Namespace,
    *,
    limits: Sequence[str] = (),
    rates: bool = False,
    columns: Sequence[tuple[str, str, str]] = (),
    legend: str = "",
    result_of: Callable[..., Result] = Result,
) -> int:
    """Time one group of implementations after another, and print a result table for each group.

    With ``--json`` or ``--plot``, also write a JSON file or a chart.

    Parameters
    ----------
    limits
        Names of the rows with upper bounds.  Each row of the table also states its speed as a
        fraction of each upper bound.
    rates
        Show images per second instead of milliseconds.
    columns
        Table columns in the format of COLUMNS; empty for the default columns.
    legend
        Explanation of the columns; empty for the default explanation.
    result_of
        Constructor of the `Result` of a candidate; see `timing.race`.

    Returns
    -------
    int
        Exit status: 1 if our own code failed, or if results that must be equal differ; else 0.
    """
    chosen, left_out = choose(groups, arguments.only, arguments.torch)
    if any(candidate.name.startswith("ours") for group in chosen for candidate in group):
        compile_operators()
    seconds = arguments.seconds or (QUICK_SECONDS if arguments.quick else arguments.default_seconds)
    end = time.monotonic() + seconds
    width = max((len(candidate.name) for group in chosen for candidate in group), default=0)
    print(f"{title}; {CORES} cores, {cpu_model()}")
    for sentence in left_out:
        print(f"left out: {sentence}")
    shown = tuple(columns) or (RATE_COLUMNS if rates else COLUMNS)
    shown += tuple((f"of {name}", f"of {name}", "{:.2f}") for name in limits)
    races: list[Race] = []
    for number, group in enumerate(chosen):
        remaining_rows = sum(map(len, chosen[number:]))
        print(f"\n{len(group)} of {sum(map(len, chosen))} rows, first result of each:", flush=True)
        race = timing.race(
            group,
            (end - time.monotonic()) * len(group) / remaining_rows,
            rounds=arguments.rounds,
            result_of=result_of,
            show=lambda row: _print_line(first_turn_line(row, width)),
            progress=_show_progress,
        )
        _show_progress("")
        add_rates(race.rows, limits)
        print("\n" + "\n".join(table(race.rows, width, shown)))
        for sentence in race.left_out:
            print(f"left out: {sentence}")
        sys.stdout.flush()
        races.append(race)
    print(f"\n{legend or (RATE_LEGEND if rates else LEGEND)}")
    failed = [sentence for race in races for sentence in race.failed]
    for sentence in failed:
        print(f"failed: {sentence}", file=sys.stderr)
    if arguments.json:
        left_out += [sentence for race in races for sentence in race.left_out]
        write_json(arguments.json, races, left_out)
    if arguments.plot:
        filled = [race.rows for race in races if race.rows]
        print(chart.draw(filled, title, arguments.plot, rates) or f"chart: {arguments.plot}")
    return 1 if failed else 0


def write_json(path: Path, races: Sequence[Race], left_out: Sequence[str]) -> None:
    """Write the machine description, the rows and the reasons for missing rows to a JSON file."""
    versions = {name: version for race in races for name, version in race.versions.items()}
    found = {
        "machine": machine(versions),
        "rows": [row for race in races for row in race.rows],
        "left_out": list(left_out),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found, indent=1) + "\n")


def choose(
    groups: Sequence[Sequence[Candidate]], only: str, torch: str
) -> tuple[list[list[Candidate]], list[str]]:
    """Select the implementations that the user requests and whose packages are available.

    Parameters
    ----------
    only
        Regular expression that must match a part of the name of an implementation.
    torch
        Python interpreter with PyTorch; empty if there is none.

    Returns
    -------
    tuple
        Groups of the selected implementations, and a message for each missing package.
    """
    chosen = [
        [candidate for candidate in group if re.search(only, candidate.name)] for group in groups
    ]
    needed = {candidate.needs for group in chosen for candidate in group}
    missing = {}
    if "torch" in needed and not torch:
        missing["torch"] = "torch: no interpreter with PyTorch is given; add --torch PYTHON"
    installable = needed & {"gluonfr", "simplejpeg"}
    if installable and (reason := baselines.install()):
        missing |= {name: f"{name}: {reason}" for name in installable}
    chosen = [
        [
            replace(candidate, python=torch) if candidate.needs == "torch" else candidate
            for candidate in group
            if candidate.needs not in missing
        ]
        for group in chosen
    ]
    return [group for group in chosen if group], list(missing.values())


def compile_operators() -> None:
    """Compile the operators of ops/ before the timing starts, if they are not compiled yet.

    Raises
    ------
    SystemExit
        If the compilation fails.
    """
    _show_progress("compiling the operators")
    command = [sys.executable, "-c", "import ops; ops.use('native')"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    _show_progress("")
    if done.returncode:
        raise SystemExit(
            (done.stderr.strip() or "the compilation of the operators failed").splitlines()[-1]
        )


def add_rates(rows: Sequence[dict[str, Any]], limits: Sequence[str]) -> None:
    """Add to each row the quartiles of its images/s and its speed relative to each upper bound."""
    found = {row["name"]: row["milliseconds"] for row in rows}
    for row in rows:
        if "images_per_second" in row:
            images = row["images_per_second"] * row["milliseconds"]
            low, high = row["spread"]
            row["images_per_second_spread"] = [images / high, images / low]
        for name in limits:
            if name in found:
                row[f"of {name}"] = found[name] / row["milliseconds"]


def table(
    rows: Sequence[dict[str, Any]], width: int, shown: Sequence[tuple[str, str, str]] = COLUMNS
) -> list[str]:
    """Format the rows as a table and return its lines; a column without values is left out."""
    columns = [column for column in shown if any(column[1] in row for row in rows)]
    cells = [[heading for heading, _, _ in columns]]
    cells += [
        [form.format(row[key]) if key in row else "" for _, key, form in columns] for row in rows
    ]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    names = ["", *(row["name"] for row in rows)]
    return [
        f"{name:{width}}  " + "  ".join(f"{c:>{w}}" for c, w in zip(line, widths, strict=True))
        for name, line in zip(names, cells, strict=True)
        if rows
    ]


def first_turn_line(row: dict[str, Any], width: int) -> str:
    """Return the line to print after the first measurement of a row: name, and rate or time."""
    if "images_per_second" in row:
        return f"{row['name']:{width}}  {row['images_per_second']:10,.1f} images/s"
    return f"{row['name']:{width}}  {row['milliseconds']:10,.1f} ms"


def machine(versions: dict[str, str]) -> dict[str, Any]:
    """Return a description of the machine (CPU, memory, versions) without its host name."""
    with open("/proc/meminfo") as lines:
        kib = next(int(line.split()[1]) for line in lines if line.startswith("MemTotal:"))
    return {
        "cpu": cpu_model(),
        "cores": CORES,
        "memory_mib": kib // 1024,
        "system": f"{platform.system()} {platform.machine()}",
        "versions": {"python": platform.python_version(), **dict(sorted(versions.items()))},
    }


def _print_line(line: str) -> None:
    _show_progress("")
    print(line, flush=True)


def _show_progress(text: str) -> None:
    """Replace the progress line by ``text``, if stderr is a terminal."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)
