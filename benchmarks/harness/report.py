# SPDX-License-Identifier: Apache-2.0
"""What the benchmarks share towards the user: options, table, JSON, chart."""

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
from typing import Any

from benchmarks.harness import baselines, chart, timing
from benchmarks.harness.baselines import ROOT
from benchmarks.harness.process import CORES, Candidate
from benchmarks.harness.timing import Race, Result
from launch.config.paths import home_path
from launch.environment.provenance import cpu_model

SECONDS, QUICK_SECONDS = 390.0, 40.0
COLUMNS = (  # heading, key, form
    ("ms", "milliseconds", "{:,.1f}"),
    ("quartiles", "spread", "{0[0]:,.1f} to {0[1]:,.1f}"),
    ("ms but update", "milliseconds_without_update", "{:,.1f}"),
    ("images/s", "images_per_second", "{:,.1f}"),
    ("peak MiB", "peak_mib", "{:,.0f}"),
    ("extra MiB", "extra_mib", "{:,.0f}"),
    ("steps", "steps", "{}"),
    ("x ours", "times_ours", "{:.2f}"),
    ("x but update", "times_ours_without_update", "{:.2f}"),
)
RATE_COLUMNS = (
    ("images/s", "images_per_second", "{:,.0f}"),
    ("quartiles", "images_per_second_spread", "{0[0]:,.0f} to {0[1]:,.0f}"),
    ("peak MiB", "peak_mib", "{:,.0f}"),
    ("turns", "steps", "{}"),
    ("ours is", "times_ours", "{:.2f} times"),
)
LEGEND = (
    "extra: peak over weights, gradients and momentum; x ours: so many times the time of ours"
    " (the first row)"
)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that all benchmarks have."""
    parser.add_argument("--json", type=home_path, help="write machine and rows here")
    parser.add_argument("--plot", type=home_path, help="draw the rows here, as PNG")
    parser.add_argument("--quick", action="store_true", help="be done within a minute")
    parser.add_argument("--only", default="", help="rows whose name has this regular expression")
    parser.add_argument(
        "--torch",
        default=os.environ.get("TORCH_PYTHON", ""),
        help="interpreter of an environment with PyTorch and NumPy (TORCH_PYTHON)",
    )
    parser.add_argument("--rounds", type=int, default=timing.ROUNDS, help="at most as many")
    parser.add_argument("--seconds", type=float, help=f"for the whole run ({SECONDS:.0f})")


def run(
    title: str,
    groups: Sequence[Sequence[Candidate]],
    arguments: argparse.Namespace,
    *,
    limits: Sequence[str] = (),
    rates: bool = False,
    columns: Sequence[tuple[str, str, str]] = (),
    result_of: Callable[..., Result] = Result,
) -> int:
    """Time the groups one after the other, print and write what the options ask for.

    Parameters
    ----------
    limits
        Names of upper bounds that every row is also given as a share of.
    rates
        Show images per second in the place of milliseconds.
    columns
        Of the table, as COLUMNS has them, in the place of the usual ones.
    result_of
        What measures a candidate: see `timing.race`.

    Returns
    -------
    int
        Exit status: 1 if one of ours failed or candidates do not do the same work.
    """
    chosen, left_out = choose(groups, arguments.only, arguments.torch)
    if any(candidate.name.startswith("ours") for group in chosen for candidate in group):
        compile_operators()
    end = time.monotonic() + (arguments.seconds or (QUICK_SECONDS if arguments.quick else SECONDS))
    width = max((len(candidate.name) for group in chosen for candidate in group), default=0)
    print(f"{title}; {CORES} cores, {cpu_model()}")
    for sentence in left_out:
        print(f"left out: {sentence}")
    races: list[Race] = []
    for number, group in enumerate(chosen):
        share = len(group) / sum(map(len, chosen[number:]))
        print(f"\nfirst look at {len(group)} of {sum(map(len, chosen))} rows:", flush=True)
        races.append(
            timing.race(
                group,
                (end - time.monotonic()) * share,
                rounds=arguments.rounds,
                result_of=result_of,
                show=lambda row: _show(first_look(row, width)),
                progress=_progress,
            )
        )
        _progress("")
        compare(races[-1].rows, limits)
        shown = tuple(columns) or (RATE_COLUMNS if rates else COLUMNS)
        shown += tuple((f"of {name}", f"of {name}", "{:.2f}") for name in limits)
        print("\n" + "\n".join(table(races[-1].rows, width, shown)))
        for sentence in races[-1].left_out:
            print(f"left out: {sentence}")
        sys.stdout.flush()
    if not rates:
        print(f"\n{LEGEND}")
    failed = [sentence for race in races for sentence in race.failed]
    for sentence in failed:
        print(f"failed: {sentence}", file=sys.stderr)
    if arguments.json:
        versions = {k: v for race in races for k, v in race.versions.items()}
        found = {
            "machine": machine(versions),
            "rows": [row for race in races for row in race.rows],
            "left_out": left_out + [sentence for race in races for sentence in race.left_out],
        }
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(found, indent=1) + "\n")
    if arguments.plot:
        filled = [race.rows for race in races if race.rows]
        print(chart.draw(filled, title, arguments.plot, rates) or f"chart: {arguments.plot}")
    return 1 if failed else 0


def choose(
    groups: Sequence[Sequence[Candidate]], only: str, torch: str
) -> tuple[list[list[Candidate]], list[str]]:
    """Return the groups without what was not asked for or is not available, and why not."""
    chosen = [
        [candidate for candidate in group if re.search(only, candidate.name)] for group in groups
    ]
    needed = {candidate.needs for group in chosen for candidate in group}
    missing = {}
    if "torch" in needed and not torch:
        missing["torch"] = "torch: no interpreter with PyTorch; give one: --torch PYTHON"
    here = needed & {"gluonfr", "simplejpeg"}
    if here and (why := baselines.install()):
        missing |= {name: f"{name}: {why}" for name in here}
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
    """Compile ours where that was not done yet, so that nobody's time runs meanwhile.

    Raises
    ------
    SystemExit
        If that fails: there is nothing to compare then.
    """
    _progress("compiling the operators")
    command = [sys.executable, "-c", "import ops; ops.use('native')"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    _progress("")
    if done.returncode:
        raise SystemExit((done.stderr.strip() or "ops.use failed").splitlines()[-1])


def compare(rows: Sequence[dict[str, Any]], limits: Sequence[str]) -> None:
    """Give every row its rate with its spread, and what share of each limit that is."""
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
    """Return the lines of the table; columns that no row has are left out."""
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


def first_look(row: dict[str, Any], width: int) -> str:
    """Return the line of a row of which one step was timed."""
    if "images_per_second" in row:
        return f"{row['name']:{width}}  {row['images_per_second']:10,.1f} images/s"
    return f"{row['name']:{width}}  {row['milliseconds']:10,.1f} ms"


def machine(versions: dict[str, str]) -> dict[str, Any]:
    """Describe the machine without naming it."""
    with open("/proc/meminfo") as lines:
        kib = next(int(line.split()[1]) for line in lines if line.startswith("MemTotal:"))
    return {
        "cpu": cpu_model(),
        "cores": CORES,
        "memory_mib": kib // 1024,
        "system": f"{platform.system()} {platform.machine()}",
        "versions": {"python": platform.python_version(), **dict(sorted(versions.items()))},
    }


def _show(line: str) -> None:
    _progress("")
    print(line, flush=True)


def _progress(text: str) -> None:
    """Show what is going on where someone watches: on a terminal, in one line."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)
