# SPDX-License-Identifier: Apache-2.0
"""Steps and arguments that the commands on record sets share."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

from launch.config.paths import home_path
from launch.config.printable_text import printable
from tools.data.output_folder import check_output, make_output
from tools.data.progress import Progress
from tools.data.record_sets import (
    NamedSet,
    Selection,
    check_sources,
    estimate_bytes,
    write_selection,
)

LABELS = {
    "stacked": "the sets hold different people",
    "shared": "equal labels mean the same person in all sets",
    "names": "equal names in identities.json mean the same person in all sets",
}
"""Values of ``--labels``, and their meanings."""
DRY_RUN_TEXT = "dry run: nothing is written"


def add_set(parser: argparse.ArgumentParser) -> None:
    """Add the argument SET, the record set to read."""
    parser.add_argument(
        "set", type=home_path, metavar="SET", help="folder with train.rec, or a .rec file"
    )


def add_merge(parser: argparse.ArgumentParser, labels: Sequence[str]) -> None:
    """Add the arguments of a command that merges record sets.

    The arguments are SET (one or more record sets to read), OUT, --dry-run and --labels.
    ``labels`` are the choices of --labels, keys of LABELS; the first choice is the default.
    """
    parser.add_argument(
        "sets",
        type=home_path,
        nargs="+",
        metavar="SET",
        help="folders with train.rec, or .rec files",
    )
    add_output(parser)
    meanings = "; ".join(f"{name}: {LABELS[name]}" for name in labels)
    parser.add_argument(
        "--labels", choices=labels, default=labels[0], help=f"{meanings} (default: {labels[0]})"
    )


def add_seed(parser: argparse.ArgumentParser) -> None:
    """Add the argument --seed; `check_seed` checks its value."""
    parser.add_argument("--seed", type=int, default=1, help="random seed (default: 1)")


def check_seed(options: argparse.Namespace) -> None:
    """Raise ValueError if --seed is out of range."""
    require_number("--seed", options.seed, 0, 1 << 62)


def add_output(parser: argparse.ArgumentParser) -> None:
    """Add the arguments OUT and --dry-run."""
    parser.add_argument("out", type=home_path, metavar="OUT", help="new or empty folder")
    parser.add_argument(
        "--dry-run", action="store_true", help="print what would be written, and write nothing"
    )


def check_set_output(out: Path, sources: Sequence[Path]) -> None:
    """Check the source sets, and check OUT, which must not be in the folder of a source set."""
    check_sources(sources)
    check_output(out, [source if source.is_dir() else source.parent for source in sources])


def write_or_describe(
    options: argparse.Namespace,
    opened_set: NamedSet,
    selection: Selection,
    write_more: Callable[[Path], Sequence[str]] = lambda folder: (),
) -> None:
    """Write a selection to OUT unless ``--dry-run`` is given; print one line about the new set.

    ``write_more`` writes further files to a folder, and returns their names.
    """
    if options.dry_run:
        print(DRY_RUN_TEXT)
    else:
        make_output(options.out)
        progress = Progress()
        try:
            write_selection(options.out, opened_set, selection, progress, write_more)
        finally:
            progress.clear()
    size = estimate_bytes(opened_set.records, selection.rows)
    print(
        f"{printable(options.out)}: {len(selection.rows)} of {len(opened_set.records)} images, "
        f"{len(selection.names)} identities, about {size / 1e6:.1f} MB"
    )


def require_number(name: str, value: int | None, least: int, most: int) -> None:
    """Raise ValueError if an option is given but its value is not from ``least`` to ``most``."""
    if value is not None and not least <= value <= most:
        raise ValueError(
            f"{name}: must be in {least} .. {most}, got {value}; choose another number"
        )
