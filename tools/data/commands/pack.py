# SPDX-License-Identifier: Apache-2.0
"""Command ``pack``: pack a folder or a list of images into a record set."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from alignment.options import add_alignment_options, read_rules, refuse_options_without
from launch.config.paths import home_path
from launch.config.printable_text import printable
from tools.data import set_publishing
from tools.data.alignment_choice import read_alignment
from tools.data.commands.image_options import add_coding, add_processes, add_size, check_quality
from tools.data.commands.set_options import DRY_RUN_TEXT, require_number
from tools.data.held_out_pairs import describe_folds
from tools.data.image_fitting import CHANGES, STORED, ImageFormat
from tools.data.image_lists import read_list
from tools.data.image_size import parse_size
from tools.data.image_sources import ImageSources, find_in_folder
from tools.data.output_folder import check_output, make_output
from tools.data.pack_plan import (
    NO_ALIGNMENT,
    TRAIN,
    PackAlignment,
    PackOptions,
    PackPlan,
    make_plan,
)
from tools.data.packing import STATE_FOLDER, Packing
from tools.data.progress import Progress
from tools.data.worker_pool import choose_processes

HELP = "pack a list of images, or a folder with one subfolder per identity, into a record set"
_SHOWN_FILES = 10


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument(
        "source",
        type=home_path,
        metavar="FOLDER",
        help="folder with one folder per identity, or a file that lists images: lines of a path "
        "and a label, a .lst of InsightFace or im2rec, or CSV",
    )
    parser.add_argument("out", type=home_path, metavar="OUT", help="new or empty folder")
    parser.add_argument(
        "--root",
        type=home_path,
        help="folder to which the paths in a list are relative (default: the folder of the list)",
    )
    add_size(parser)
    parser.add_argument(
        "--crop",
        action="store_true",
        help="crop images of another aspect ratio around their centre (default: stretch them)",
    )
    add_coding(parser, "encoded images")
    parser.add_argument(
        "--check-pixels",
        action="store_true",
        help="also decode the JPEGs that are stored unchanged, to find damaged ones",
    )
    parser.add_argument(
        "--val-people",
        type=int,
        default=0,
        metavar="N",
        help="hold N identities out, and write verification pairs of them to held_out.bin",
    )
    parser.add_argument(
        "--val-pairs",
        type=int,
        default=1000,
        help="number of pairs in held_out.bin (default: 1000)",
    )
    parser.add_argument(
        "--align",
        action="store_true",
        help="the images are photographs: align the face in each photograph, as the command align "
        "does, and store the aligned image; images that InsightFace's .lst marks as aligned are "
        "not aligned again",
    )
    add_alignment_options(parser)
    add_processes(parser)
    parser.add_argument(
        "--strict", action="store_true", help="exit with code 2 if a file is no usable image"
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="read and process all images, but write nothing"
    )


def run(options: argparse.Namespace) -> int:
    """Run the command; return 0, or 2 if ``--strict`` is given and a file is unusable."""
    chosen = read_options(options)
    processes = choose_processes(options.processes)
    check_output(options.out, [options.source], own=_own_files(options.out))
    sources = _find_sources(options.source, options.root, options.align)
    alignment = _read_alignment(options, sources)
    plan = make_plan(sources, chosen, alignment)
    if options.dry_run:
        return _run_dry(plan, processes, options)
    report = _find_finished(options.out, plan)
    if report is None:
        report = _pack(plan, options.out, processes)
    print_report(report, options.out)
    return 2 if options.strict and report["rejected"] else 0


def read_options(options: argparse.Namespace) -> PackOptions:
    """Check and return the options on which the content of the set depends.

    Raises
    ------
    ValueError
        If a value is out of range.
    """
    height, width = parse_size(options.size)
    check_quality(options)
    if not options.align:
        refuse_options_without("--align", options)
    elif options.crop:
        raise ValueError(
            "--crop: applies only to images that are not aligned, got --align as well; omit one of "
            "them"
        )
    read_rules(options)
    require_number("--val-people", options.val_people, 0, 1 << 24)
    require_number("--val-pairs", options.val_pairs, set_publishing.MIN_PAIRS, 1 << 20)
    image_format = ImageFormat(
        height, width, options.quality, options.sampling, options.crop, options.check_pixels
    )
    return PackOptions(image_format, options.val_people, options.val_pairs)


def _own_files(out: Path) -> tuple[str, ...]:
    """Return the names that ``out`` may hold because an earlier ``pack`` wrote them; () if none."""
    if (out / STATE_FOLDER).is_dir() or (out / set_publishing.REPORT).is_file():
        return (STATE_FOLDER, *set_publishing.FILES)
    return ()


def _find_sources(source: Path, root: Path | None, align: bool) -> ImageSources:
    if source.is_dir():
        if root is not None:
            raise ValueError(
                f"--root: belongs to a list of images, got the folder {printable(source)}; leave "
                "the option out"
            )
        found = find_in_folder(source)
        if align:
            found.unaligned = np.ones(len(found), dtype=bool)
        return found
    if not source.is_file():
        what = "a special file" if source.exists() else "no such file"
        raise ValueError(
            f"{printable(source)}: must be a folder or a list of images, got {what}; correct the "
            "path"
        )
    return read_list(source, root, align=align)


def _read_alignment(options: argparse.Namespace, sources: ImageSources) -> PackAlignment:
    """Return the plan of the alignment; NO_ALIGNMENT if no image must be aligned.

    If the list of images gives the points of all faces, the function opens no detector and no file
    of points.
    """
    if sources.unaligned is None:
        return NO_ALIGNMENT
    return PackAlignment(*read_alignment(options, sources.without_points(), sources.root))


def _find_finished(out: Path, plan: PackPlan) -> dict[str, Any] | None:
    """Return the report of the set if the same command has already completed it, else None."""
    if (out / STATE_FOLDER).is_dir():
        return None
    report = set_publishing.read_report(out) if out.is_dir() else None
    if report is None:
        return None
    if report.get("plan") != plan.digest:
        raise ValueError(
            f"{printable(out)}: holds a set of other images or with other options, got "
            f"the report {set_publishing.REPORT} of that set; choose another folder"
        )
    print(f"{printable(out)}: the set is already complete")
    return report


def _pack(plan: PackPlan, out: Path, processes: int) -> dict[str, Any]:
    make_output(out)
    progress, packing = Progress(), None
    try:
        packing = Packing(plan, out / STATE_FOLDER)
        if packing.resumed_images:
            print(f"{printable(out)}: resumed after {packing.resumed_images} images")
        packing.run(processes, progress)
        return set_publishing.publish(out, plan, packing)
    except OSError as error:
        raise ValueError(
            f"{printable(out)}: cannot be written, got {error.strerror or error}; remove the "
            "cause and repeat the command, which then resumes"
        ) from None
    finally:
        progress.clear()
        if packing is not None:
            packing.close()


def _run_dry(plan: PackPlan, processes: int, options: argparse.Namespace) -> int:
    progress = Progress()
    packing = Packing(plan, None)
    packing.run(processes, progress)
    progress.clear()
    result = packing.result()
    if not result.images[TRAIN]:
        raise set_publishing.no_image_error(plan, result)
    print(DRY_RUN_TEXT)
    print_report(set_publishing.describe(plan, result), options.out)
    return 2 if options.strict and result.rejected else 0


def print_report(report: dict[str, Any], out: Path) -> None:
    """Print what the command wrote, what was done to the images, and which files are unusable."""
    print(
        f"{printable(out)}: {report['images']} images of {report['identities']} identities, "
        f"{report['height']}x{report['width']} pixels, {report['bytes'] / 1e6:.1f} MB"
    )
    changes = report["changes"]
    for change, text in CHANGES.items():
        if changes.get(change):
            print(f"{changes[change]} images {text}")
    if set(changes) - {STORED}:
        print(
            f"encoded images have JPEG quality {report['jpeg_quality']} and chroma sampling "
            f"{report['chroma_sampling']}"
        )
    _print_held_out(report)
    for reason, count in report["passed_over"].items():
        print(f"passed over: {count} {reason}")
    for name in report["identities_without_image"][:_SHOWN_FILES]:
        print(f"identity without a usable image, left out: {printable(name)}")
    rejected = report["rejected"]
    for path, reason in rejected[:_SHOWN_FILES]:
        print(f"unusable: {printable(path)}: {printable(reason)}")
    if len(rejected) > _SHOWN_FILES:
        print(f"unusable: {len(rejected)} files; {set_publishing.REPORT} lists all")


def _print_held_out(report: dict[str, Any]) -> None:
    held = report.get("held_out")
    if held is None:
        return
    text = f"held out: {len(held['identities'])} identities with {held['images']} images"
    if not held["pairs"]:
        print(f"{text}; too few for {set_publishing.MIN_PAIRS} pairs; held_out.bin is not written")
        return
    folds = describe_folds(held["people_in_one_fold"])
    print(f"{text}, {held['pairs']} pairs in {set_publishing.HELD_OUT}; {folds}")
