# SPDX-License-Identifier: Apache-2.0
"""Command ``split``: hold out identities of a record set, and make verification pairs of them."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from evaluation.people import people_path
from launch.config.printable_text import printable
from tools.data.commands.set_options import (
    add_output,
    add_set,
    check_set_output,
    require_number,
    write_or_describe,
)
from tools.data.held_out_pairs import choose_pairs, describe_folds, write_held_out
from tools.data.pack_plan import choose_held
from tools.data.record_sets import opened, select
from tools.data.set_publishing import HELD_OUT, MIN_PAIRS

HELP = "hold out identities of a record set, and make verification pairs of their images"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    add_set(parser)
    add_output(parser)
    parser.add_argument(
        "--every", type=int, metavar="N", help="hold out every N-th identity (default: 5)"
    )
    parser.add_argument(
        "--val-people", type=int, metavar="N", help="hold out N identities, drawn at random"
    )
    parser.add_argument(
        "--pairs", type=int, default=1000, help="number of pairs in held_out.bin (default: 1000)"
    )


def run(options: argparse.Namespace) -> int:
    """Run the command: write a set of the remaining identities, and pairs of the held-out ones."""
    if options.every is not None and options.val_people is not None:
        raise ValueError(
            f"--every: excludes --val-people, got {options.every} and {options.val_people}; give "
            "one of them"
        )
    require_number("--every", options.every, 2, 1 << 31)
    require_number("--val-people", options.val_people, 2, 1 << 31)
    require_number("--pairs", options.pairs, MIN_PAIRS, 1 << 20)
    check_set_output(options.out, [options.set])
    with opened([options.set]) as found:
        records = found.records
        held = _choose(records.labels, options)
        is_held = np.isin(records.labels, held)
        held_rows = np.flatnonzero(is_held)
        chosen = choose_pairs(records.labels[held_rows], options.pairs)
        if len(chosen.same) < MIN_PAIRS:
            raise ValueError(
                f"{printable(records.name)}: at least {MIN_PAIRS} pairs of held-out images are "
                f"needed, got {len(chosen.same)} pairs of {len(held)} identities; hold out "
                "more identities"
            )
        chosen = chosen._replace(rows=held_rows[chosen.rows].tolist())
        selection = select(found, np.flatnonzero(~is_held))

        def write_pairs(folder: Path) -> list[str]:
            names = found.names if found.has_names else None
            write_held_out(folder / HELD_OUT, records, chosen, names)
            return [HELD_OUT, people_path(HELD_OUT).name]

        write_or_describe(options, found, selection, write_pairs)
        print(
            f"{printable(options.out / HELD_OUT)}: {len(chosen.same)} pairs of {len(held)} "
            f"identities that are not in the set; {describe_folds(chosen.is_disjoint)}"
        )
    return 0


def _choose(labels: np.ndarray, options: argparse.Namespace) -> np.ndarray:
    """Return the labels of the held-out identities."""
    if options.val_people is not None:
        return choose_held(labels, options.val_people)
    return np.unique(labels)[(options.every or 5) - 1 :: options.every or 5]
