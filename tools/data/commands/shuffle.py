# SPDX-License-Identifier: Apache-2.0
"""Command ``shuffle``: merge record sets into one set in random order."""

from __future__ import annotations

import argparse
import signal
import sys

import numpy as np

from launch.config.printable_text import printable
from tools.data.commands.set_options import (
    DRY_RUN_TEXT,
    add_merge,
    add_seed,
    check_seed,
    check_set_output,
)
from tools.data.output_folder import explained_writing
from tools.data.progress import Progress
from tools.data.record_sets import estimate_bytes, opened
from tools.data.shuffling import MEMORY_MIB, MIB, shuffle

HELP = (
    "merge record sets into one set in random order, without a header record, for runs with the "
    "setting data.reader=window"
)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    add_merge(parser, ("stacked", "shared"))
    add_seed(parser)
    parser.add_argument(
        "--memory-mib",
        type=int,
        default=MEMORY_MIB,
        help="MiB of memory for images; the index of the records needs additional memory "
        f"(default: {MEMORY_MIB})",
    )


def run(options: argparse.Namespace) -> int:
    """Run the command."""
    check_seed(options)
    check_set_output(options.out, options.sets)
    if options.dry_run:
        with opened(options.sets, options.labels) as found:
            count = len(found.records)
            size = estimate_bytes(found.records, np.arange(count))
        print(f"{DRY_RUN_TEXT}\n{printable(options.out)}: {count} images, {size / 1e6:.1f} MB")
        return 0
    # On SIGTERM, SystemExit is raised, so that unfinished files are removed.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    progress = Progress()
    try:
        with explained_writing(options.out):
            count = shuffle(
                options.sets,
                options.out,
                seed=options.seed,
                labels=options.labels,
                memory_bytes=options.memory_mib * MIB,
                progress=progress,
            )
    finally:
        progress.clear()
    print(f"{printable(options.out)}: {count} images in random order")
    return 0
