# SPDX-License-Identifier: Apache-2.0
"""Command ``check-bin``: find damaged images and contradictory pairs in verification sets."""

from __future__ import annotations

import argparse

from evaluation.pairs import find_sets, read_pairs
from launch.config.paths import expand_home
from launch.config.printable_text import printable
from tools.data.decoder_warnings import DecoderWarnings
from tools.data.progress import Progress
from tools.data.set_findings import check_images, find_findings

HELP = "find damaged images and contradictory pairs in verification sets"
DEFAULT_SHOWN = 50


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument(
        "sets", nargs="+", type=expand_home, metavar="BIN", help=".bin files, or folders of them"
    )
    parser.add_argument(
        "--show",
        type=int,
        default=DEFAULT_SHOWN,
        metavar="N",
        help=f"largest number of findings to print for each set (default: {DEFAULT_SHOWN})",
    )
    parser.add_argument(
        "--strict", action="store_true", help="exit with code 2 if there is a finding"
    )


def run(options: argparse.Namespace) -> int:
    """Run the command; return 0, or 2 if ``--strict`` is given and there is a finding."""
    if options.show < 0:
        raise ValueError(f"--show: must be at least 0, got {options.show}; 50 is usual")
    total = 0
    for path in find_sets(options.sets).values():
        pairs = read_pairs(path)
        progress = Progress()
        with DecoderWarnings() as warnings:
            images = check_images(pairs, warnings, progress)
        progress.clear()
        findings = list(find_findings(pairs, images))
        for finding in findings[: options.show]:
            print(f"{printable(path)}: {printable(finding)}")
        if len(findings) > options.show:
            print(f"{printable(path)}: {len(findings) - options.show} further findings")
        print(
            f"{printable(path)}: {len(pairs)} pairs, {len(images.sizes)} distinct images, "
            f"{len(findings)} findings"
        )
        total += len(findings)
    return 2 if options.strict and total else 0
