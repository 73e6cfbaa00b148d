# SPDX-License-Identifier: Apache-2.0
"""Command ``unpack``: write a record set to one folder of images per identity."""

from __future__ import annotations

import argparse

import numpy as np

from launch.config.printable_text import printable
from tools.data.commands.set_options import DRY_RUN_TEXT, add_output, add_set
from tools.data.output_folder import check_output, explained_writing, make_output
from tools.data.progress import Progress
from tools.data.record_sets import estimate_bytes, opened
from tools.data.unpacking import STATE_FOLDER, check_state, folder_names, unpack

HELP = "write the images of a record set to one folder per identity"
_SHOWN_FOLDERS = 3


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    add_set(parser)
    add_output(parser)


def run(options: argparse.Namespace) -> int:
    """Run the command."""
    out = options.out
    folder = options.set if options.set.is_dir() else options.set.parent
    with opened([options.set]) as found:
        names = folder_names(found)
        own = (STATE_FOLDER, *names) if (out / STATE_FOLDER).is_dir() else ()
        check_output(out, [folder], own=own)
        check_state(out, found)
        if options.dry_run:
            print(DRY_RUN_TEXT)
        else:
            make_output(out)
            progress = Progress()
            try:
                with explained_writing(out):
                    unpack(out, found, progress)
            finally:
                progress.clear()
        records = found.records
        present = np.unique(records.labels).tolist()
        shown = ", ".join(printable(names[label]) for label in present[:_SHOWN_FOLDERS])
        size = estimate_bytes(records, np.arange(len(records)))
        print(
            f"{printable(out)}: {len(records)} images in {len(present)} folders ({shown}"
            f"{', ...' * (len(present) > _SHOWN_FOLDERS)}), about {size / 1e6:.1f} MB"
        )
    return 0
