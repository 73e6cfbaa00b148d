# SPDX-License-Identifier: Apache-2.0
"""Command ``filter``: keep or drop identities and images of a record set."""

from __future__ import annotations

import argparse

import numpy as np

from tools.data.commands.set_options import (
    add_output,
    add_set,
    check_set_output,
    require_number,
    write_or_describe,
)
from tools.data.name_lists import find_identities, find_keys
from tools.data.record_sets import opened, select

HELP = "keep or drop identities and images of a record set"
_LIST = "LIST: entries separated by commas, or @FILE, a file with one entry per line"
_MOST = 1 << 31


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    add_set(parser)
    add_output(parser)
    parser.add_argument(
        "--min-images", type=int, metavar="N", help="keep identities with at least N images"
    )
    parser.add_argument(
        "--max-images", type=int, metavar="N", help="keep identities with at most N images"
    )
    what = (
        "identities: names if the set has identities.json, else labels and ranges of labels, such "
        f"as 3,7,10-20; {_LIST}"
    )
    parser.add_argument("--identities", metavar="LIST", help=f"keep only these {what}")
    parser.add_argument("--drop-identities", metavar="LIST", help=f"drop these {what}")
    what = f"images: keys in the .idx and ranges of keys, such as 3,7,10-20; {_LIST}"
    parser.add_argument("--keys", metavar="LIST", help=f"keep only these {what}")
    parser.add_argument("--drop-keys", metavar="LIST", help=f"drop these {what}")


def run(options: argparse.Namespace) -> int:
    """Run the command: apply the lists of identities and keys, then --min-images and --max-images.

    The number of images of an identity includes only the images that the lists keep.
    """
    require_number("--min-images", options.min_images, 1, _MOST)
    require_number("--max-images", options.max_images, 1, _MOST)
    check_set_output(options.out, [options.set])
    with opened([options.set]) as found:
        records = found.records
        keep = np.ones(len(records), dtype=bool)
        for option, name, is_kept in (
            (options.identities, "--identities", True),
            (options.drop_identities, "--drop-identities", False),
        ):
            if option is not None:
                labels = find_identities(option, name, found)
                keep &= np.isin(records.labels, labels) == is_kept
        for option, name, is_kept in (
            (options.keys, "--keys", True),
            (options.drop_keys, "--drop-keys", False),
        ):
            if option is not None:
                keep &= np.isin(records.keys, find_keys(option, name, records)) == is_kept
        counts = np.bincount(records.labels[keep], minlength=records.num_classes)[records.labels]
        if options.min_images is not None:
            keep &= counts >= options.min_images
        if options.max_images is not None:
            keep &= counts <= options.max_images
        write_or_describe(options, found, select(found, np.flatnonzero(keep)))
    return 0
