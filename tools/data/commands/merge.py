# SPDX-License-Identifier: Apache-2.0
"""Command ``merge``: merge several record sets into one set, sorted by identity."""

from __future__ import annotations

import argparse

import numpy as np

from tools.data.commands.set_options import (
    add_output,
    add_sets,
    check_set_output,
    write_or_describe,
)
from tools.data.record_sets import opened, select

HELP = "merge record sets into one set, sorted by identity"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    add_sets(parser)
    add_output(parser)
    parser.add_argument(
        "--labels",
        choices=("stacked", "shared", "names"),
        default="stacked",
        help="stacked: the sets hold different people; shared: a label is the same person in all "
        "sets; names: a name in identities.json is the same person in all sets "
        "(default: stacked)",
    )


def run(options: argparse.Namespace) -> int:
    """Run the command."""
    check_set_output(options.out, options.sets)
    with opened(options.sets, options.labels) as found:
        selection = select(found, np.arange(len(found.records)))
        write_or_describe(options, found, selection)
    return 0
