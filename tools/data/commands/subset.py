# SPDX-License-Identifier: Apache-2.0
"""Command ``subset``: draw a random part of a record set."""

from __future__ import annotations

import argparse

import numpy as np

from tools.data.commands.set_options import (
    add_output,
    add_seed,
    add_set,
    check_seed,
    check_set_output,
    require_number,
    write_or_describe,
)
from tools.data.record_sets import opened, select

HELP = "draw some identities of a record set at random, some images of each identity, or both"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    add_set(parser)
    add_output(parser)
    parser.add_argument("--people", type=int, metavar="N", help="draw N identities")
    parser.add_argument(
        "--images-per-person", type=int, metavar="N", help="draw at most N images of each identity"
    )
    add_seed(parser)


def run(options: argparse.Namespace) -> int:
    """Run the command."""
    if options.people is None and options.images_per_person is None:
        raise ValueError(
            "subset: needs --people or --images-per-person, got neither; give at least one of them"
        )
    require_number("--people", options.people, 1, 1 << 31)
    require_number("--images-per-person", options.images_per_person, 1, 1 << 31)
    check_seed(options)
    check_set_output(options.out, [options.set])
    with opened([options.set]) as found:
        labels = found.records.labels
        rows = np.arange(len(labels))
        generator = np.random.default_rng(options.seed)
        if options.people is not None:
            people = np.unique(labels)
            if options.people > len(people):
                raise ValueError(
                    f"--people: the set has {len(people)} identities with images, got "
                    f"{options.people}; choose a smaller number"
                )
            rows = rows[np.isin(labels, generator.permutation(people)[: options.people])]
        if options.images_per_person is not None:
            rows = draw_of_each(labels[rows], options.images_per_person, generator, rows)
        write_or_describe(options, found, select(found, rows))
    return 0


def draw_of_each(
    labels: np.ndarray, count: int, generator: np.random.Generator, rows: np.ndarray
) -> np.ndarray:
    """Draw at random at most ``count`` rows of each label; return all drawn rows, ascending.

    ``labels`` (N,) are the labels of ``rows`` (N,).
    """
    order = generator.permutation(len(rows))
    order = order[np.argsort(labels[order], kind="stable")]
    is_first = np.diff(labels[order], prepend=-1) != 0
    starts = np.flatnonzero(is_first)
    rank = np.arange(len(order)) - starts[np.cumsum(is_first) - 1]
    return np.sort(rows[order[rank < count]])
