# SPDX-License-Identifier: Apache-2.0
"""Command ``align``: make aligned faces from photographs."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from alignment.options import add_alignment_options, read_rules
from evaluation.image_files import CONTACT_SHEET
from launch.config.paths import home_path
from launch.config.printable_text import printable
from tools.data.alignment_choice import read_alignment
from tools.data.alignment_journal import FILE_NAME, AlignmentJournal
from tools.data.alignment_report import LIST, describe, write_contact_sheet, write_list
from tools.data.commands.image_options import add_coding, add_processes, add_size, check_quality
from tools.data.commands.set_options import DRY_RUN_TEXT
from tools.data.folder_alignment import WRITTEN, FolderAlignment, ImageCoding, Row
from tools.data.image_size import parse_size
from tools.data.output_folder import check_output, make_output
from tools.data.photographs import count_other_files, find_photographs
from tools.data.progress import Progress
from tools.data.worker_pool import choose_processes

HELP = (
    "find the face in each photograph of a folder, and align the face to InsightFace's five points"
)
_JOURNAL_VERSION = 1


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument(
        "folder",
        type=home_path,
        metavar="FOLDER",
        help="folder of photographs, which is searched with its subfolders",
    )
    parser.add_argument(
        "out",
        type=home_path,
        metavar="OUT",
        help="new or empty folder for the aligned images, which get the relative paths of their "
        "photographs; if an interrupted command is repeated, it continues",
    )
    add_alignment_options(parser)
    add_size(parser)
    add_coding(parser, "aligned images")
    add_processes(parser)
    parser.add_argument(
        "--strict", action="store_true", help="exit with code 2 if a photograph is left out"
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="align all photographs, but write nothing"
    )


def run(options: argparse.Namespace) -> int:
    """Run the command; return 0, or 2 if ``--strict`` is given and a photograph is left out."""
    work, settings, processes = _read_options(options)
    progress = Progress()
    try:
        if options.dry_run:
            rows = work.run(processes, None, None, progress)
        else:
            rows = _align(work, settings, processes, options.out, progress)
    finally:
        progress.clear()
    _print_report(rows, work, options)
    written = sum(row["status"] in WRITTEN for row in rows)
    if not written:
        raise ValueError(
            f"{printable(options.folder)}: at least one photograph must be aligned, got none of "
            f"{len(rows)}; see the reasons above"
        )
    return 2 if options.strict and written < len(rows) else 0


def _read_options(
    options: argparse.Namespace,
) -> tuple[FolderAlignment, dict[str, Any], int]:
    """Check the options and find the photographs, before anything is written."""
    read_rules(options)
    size = parse_size(options.size)
    check_quality(options)
    processes = choose_processes(options.processes)
    paths = find_photographs(options.folder)
    own = os.listdir(options.out) if (options.out / FILE_NAME).is_file() else ()
    check_output(options.out, [options.folder], own=own)
    plan, choice = read_alignment(options, paths, options.folder)
    coding = ImageCoding(size, options.quality, options.sampling)
    settings = {
        "version": _JOURNAL_VERSION,
        "folder": os.path.abspath(options.folder),
        "points": choice.pop("points"),
        "size": list(size),
        "quality": options.quality,
        "sampling": options.sampling,
        **choice,
    }
    return FolderAlignment(options.folder, paths, plan, coding), settings, processes


def _align(
    work: FolderAlignment,
    settings: dict[str, Any],
    processes: int,
    out: Path,
    progress: Progress,
) -> list[Row]:
    make_output(out)
    try:
        journal = AlignmentJournal(out, settings)
        try:
            if journal.rows:
                print(f"{printable(out)}: continued after {len(journal.rows)} photographs")
                _remove_leftovers(out, work.paths)
            rows = work.run(processes, out, journal, progress)
            write_list(out / LIST, rows)
            if any(row["status"] in WRITTEN for row in rows):
                write_contact_sheet(out, rows)
            return rows
        finally:
            journal.close()
    except OSError as error:
        raise ValueError(
            f"{printable(out)}: cannot be written, got {error.strerror or error}; remove the "
            "cause and repeat the command, which then continues"
        ) from None


def _remove_leftovers(out: Path, paths: Sequence[str]) -> None:
    """Remove the temporary files that a killed command left beside the aligned images."""
    for folder in {out / os.path.dirname(path) for path in paths}:
        if folder.is_dir():
            make_output(folder)


def _print_report(rows: Sequence[Row], work: FolderAlignment, options: argparse.Namespace) -> None:
    if options.dry_run:
        print(DRY_RUN_TEXT)
    height, width = work.coding.image_size
    written = sum(row["status"] in WRITTEN for row in rows)
    print(
        f"{printable(options.out)}: {written} of {len(rows)} photographs yield images of "
        f"{height}x{width} pixels, JPEG quality {work.coding.quality}, chroma sampling "
        f"{work.coding.sampling}"
    )
    for line in describe(rows):
        print(line)
    others = count_other_files(options.folder)
    if others:
        print(f"passed over: {others} files without a suffix of an image format")
    if not options.dry_run:
        print(f"list of all photographs: {LIST}; contact sheet: {CONTACT_SHEET}")
