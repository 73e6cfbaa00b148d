# SPDX-License-Identifier: Apache-2.0
"""Command ``check``: find damaged images, wrong labels and duplicates in a record set."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

from launch.config.paths import home_path
from launch.config.printable_text import printable
from tools.data.check_report import (
    MAX_PRINTED_FINDINGS,
    clean_line,
    finding_lines,
    require_folder,
    summary_lines,
    write_report,
)
from tools.data.decode_check import default_threads
from tools.data.findings import OPTIONAL_KINDS
from tools.data.near_duplicates import HASH_BITS, MAX_DISTANCE_BITS
from tools.data.output_folder import explained_writing
from tools.data.progress import Progress
from tools.data.record_check import CheckedSet, check_set
from tools.data.record_sets import check_sources

HELP = "find damaged images, wrong labels, duplicates and faulty index lines in a record set"
_MAX_THREADS = 1024


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command to a parser."""
    parser.add_argument(
        "set", type=home_path, metavar="SET", help="folder with train.rec, or a .rec file"
    )
    parser.add_argument(
        "--out",
        type=home_path,
        metavar="OUT",
        help="new folder for report.txt, report.json and the clean set: a link to the .rec, an "
        ".idx without the faulty records, and a property file (default: print the findings)",
    )
    parser.add_argument(
        "--near-duplicates",
        action="store_true",
        help="also find images that look the same: at most "
        f"{MAX_DISTANCE_BITS} of {HASH_BITS} bits of their perceptual hashes differ",
    )
    parser.add_argument(
        "--leave-out",
        nargs="+",
        default=[],
        choices=OPTIONAL_KINDS,
        metavar="KIND",
        help="also leave images with findings of these kinds out of the .idx of the clean set: "
        + ", ".join(OPTIONAL_KINDS),
    )
    parser.add_argument(
        "--strict", action="store_true", help="exit with code 2 if there are findings"
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="check, print the findings and write no file"
    )
    parser.add_argument(
        "--threads", type=int, metavar="N", help="decoder threads (default: one per core)"
    )


def run(options: argparse.Namespace) -> int:
    """Check a set; return 0, or 2 if ``--strict`` is given and there are findings."""
    threads = default_threads() if options.threads is None else options.threads
    if not 1 <= threads <= _MAX_THREADS:
        raise ValueError(
            f"--threads: must be in 1..{_MAX_THREADS}, got {threads}; give one per core"
        )
    if "near_duplicate" in options.leave_out and not options.near_duplicates:
        raise ValueError(
            "--leave-out: near_duplicate needs the option --near-duplicates, got none; add it"
        )
    check_sources([options.set])
    if options.out is not None:
        require_folder(options.out, options.set)
    checked = _check(options, threads)
    writes = options.out is not None and not options.dry_run
    if writes:
        with explained_writing(options.out):
            write_report(options.out, checked)
    _print(checked, options.out, writes)
    return 2 if options.strict and len(checked.findings) else 0


def _check(options: argparse.Namespace, threads: int) -> CheckedSet:
    progress = Progress()
    try:
        return check_set(
            options.set,
            threads=threads,
            near_duplicates=options.near_duplicates,
            leave_out=options.leave_out,
            progress=partial(progress, "checked"),
        )
    finally:
        progress.clear()


def _print(checked: CheckedSet, out: Path | None, is_written: bool) -> None:
    for line in summary_lines(checked):
        print(line)
    if is_written:
        print(f"{clean_line(checked)}; report in {printable(out)}")
        return
    for line in finding_lines(checked, MAX_PRINTED_FINDINGS):
        print(line)
    if out is not None:
        print(f"{clean_line(checked)}; dry run: {printable(out)} is not written")
