# SPDX-License-Identifier: Apache-2.0
"""Options for the results of a command: JSON, Markdown and LaTeX files."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from atomic_write import atomic_write
from evaluation.commands.options import check_output_file
from evaluation.tables import Table, format_latex, format_markdown, format_rate, format_text
from launch.config.paths import expand_home

FORMATS: dict[str, Callable[[Table], str]] = {"markdown": format_markdown, "latex": format_latex}


def add_report_options(parser: argparse.ArgumentParser) -> None:
    """Add the options ``--json``, ``--markdown`` and ``--latex``."""
    for name, form, what in (
        ("json", "JSON", "results"),
        ("markdown", "Markdown", "tables"),
        ("latex", "LaTeX", "tables (for the package booktabs)"),
    ):
        parser.add_argument(
            f"--{name}",
            type=expand_home,
            metavar="FILE",
            help=f"also write the {what} to this {form} file",
        )


def check_report_options(options: argparse.Namespace) -> None:
    """Raise ValueError unless the output files differ and lie in existing folders."""
    paths: dict[Path, str] = {}
    for name in ("json", "markdown", "latex"):
        path = getattr(options, name)
        if not path:
            continue
        check_output_file(f"--{name}", path)
        other = paths.setdefault(Path(path).resolve(), name)
        if other != name:
            raise ValueError(
                f"--{name}: must name another file than --{other}, got {path} twice; correct one "
                "of the options"
            )


def write_report(
    options: argparse.Namespace, report: dict[str, Any], tables: Sequence[Table]
) -> None:
    """Print tables, and write the files that the options name."""
    print("\n\n".join(format_text(table) for table in tables))
    if options.json:
        _write(options.json, json.dumps(report, indent=2, allow_nan=False))
    for name, form in FORMATS.items():
        if getattr(options, name):
            _write(getattr(options, name), "\n\n".join(form(table) for table in tables))


def _write(path: str, text: str) -> None:
    with atomic_write(path, "w") as file:
        file.write(text + "\n")


def roc_table(title: str, results: dict[str, Sequence[dict[str, Any]]]) -> Table:
    """Return a table of TAR at FAR in percent, one line for each named list of ROC points."""
    fars = [point["far"] for point in next(iter(results.values()))]
    rows = [
        [name, *(format_rate(point["tar"]) for point in points)] for name, points in results.items()
    ]
    return Table(title, ["TAR [%] at FAR", *(f"{far:.0e}" for far in fars)], rows)


def rate_table(title: str, results: dict[str, dict[str, Any]], keys: Sequence[str]) -> Table:
    """Return a table of rates in percent, one line for each named result."""
    rows = [
        [name, *(format_rate(result.get(key)) for key in keys)] for name, result in results.items()
    ]
    return Table(title, ["", *(_heading(key) for key in keys)], rows)


def _heading(key: str) -> str:
    if key.startswith("rank_"):
        return f"rank-{key[5:]} [%]"
    if key.startswith("tpir_at_fpir_"):
        return f"TPIR [%] at FPIR {key[13:]}"
    return {"mean_average_precision": "mAP [%]"}.get(key, key)


def parse_rates(option: str, rates: Sequence[float]) -> list[float]:
    """Return the rates of an option in ascending order; raise ValueError for one out of range."""
    for rate in rates:
        if not 0 < rate < 1:
            raise ValueError(
                f"{option}: each rate must be above 0 and below 1, got {rate}; 1e-4 is usual"
            )
    return sorted(set(rates))


def parse_ranks(option: str, ranks: Sequence[int], highest: int = 1000) -> list[int]:
    """Return the ranks of an option in ascending order; raise ValueError for one out of range."""
    for rank in ranks:
        if not 1 <= rank <= highest:
            raise ValueError(
                f"{option}: each rank must be from 1 to {highest}, got {rank}; 1 is usual"
            )
    return sorted(set(ranks))
