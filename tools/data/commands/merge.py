# SPDX-License-Identifier: Apache-2.0
"""Command ``merge``: merge several record sets into one set, sorted by identity."""

from __future__ import annotations

import argparse

import numpy as np

from tools.data.commands.set_options import (
    LABELS,
    add_merge,
    check_set_output,
    write_or_describe,
)
from tools.data.record_sets import opened, select

HELP = "merge record sets into one set, sorted by identity"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    add_merge(parser, tuple(LABELS))


def run(options: argparse.Namespace) -> int:
    """Run the command."""
    check_set_output(options.out, options.sets)
    with opened(options.sets, options.labels) as found:
        selection = select(found, np.arange(len(found.records)))
        write_or_describe(options, found, selection)
    return 0
