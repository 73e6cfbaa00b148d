# SPDX-License-Identifier: Apache-2.0
"""Command ``make-bin``: make NAME.bin from the pairs of a protocol and aligned faces."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from evaluation.groups import groups_path, write_groups
from evaluation.pairs import write_pairs
from evaluation.people import people_path, write_people
from launch.config.paths import home_path
from launch.config.printable_text import printable
from tools.data.commands.image_options import add_size
from tools.data.commands.set_options import DRY_RUN_TEXT
from tools.data.decoder_warnings import DecoderWarnings
from tools.data.image_finder import ImageFinder
from tools.data.image_fitting import ImageFormat
from tools.data.image_size import parse_size
from tools.data.progress import Progress
from tools.data.protocol_files import CFP_KINDS, FORMS, read_protocol
from tools.data.protocol_pairs import FOLDS, ProtocolPair, name_people, unbalanced_folds
from tools.data.rfw_pairs import find_pair_files, name_groups, read_rfw
from tools.data.set_images import SetImages

HELP = "make a verification set NAME.bin from the pairs of a protocol and a folder of aligned faces"
SHOWN_FILES = 10


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument(
        "pairs",
        type=home_path,
        metavar="PAIRS",
        help="file or folder of pairs: pairs.txt of LFW, a _pairs.txt of RFW, a file with two "
        "images and 0 or 1 on each line, the file of CALFW, CPLFW or AgeDB, splits.txt of YouTube "
        "Faces, the folder Protocol of CFP, or the folder txts of RFW",
    )
    parser.add_argument(
        "images", type=home_path, metavar="IMAGES", help="folder of the aligned images"
    )
    parser.add_argument("out", type=home_path, metavar="NAME.bin", help="new file to write")
    parser.add_argument(
        "--protocol", choices=(*FORMS, "cfp"), help="format of PAIRS (default: detected)"
    )
    parser.add_argument(
        "--cfp-pairs",
        choices=CFP_KINDS,
        default=CFP_KINDS[0],
        help="pairs of CFP: frontal with profile (FP, the default), or frontal with frontal (FF)",
    )
    add_size(parser)
    parser.add_argument(
        "--resize",
        action="store_true",
        help="resize aligned faces of other sizes (default: refuse them)",
    )
    parser.add_argument(
        "--crop",
        action="store_true",
        help="with --resize, crop images of another aspect ratio around their centre (default: "
        "stretch them)",
    )
    parser.add_argument(
        "--skip-missing",
        action="store_true",
        help="leave out pairs with a missing image (default: refuse to write the set)",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="read all pairs and images, but write nothing"
    )


def run(options: argparse.Namespace) -> int:
    """Run the command; return 0."""
    size = parse_size(options.size)
    check_new_file(options.out)
    groups = None
    if find_pair_files(options.pairs):
        pairs = read_rfw(options.pairs)
        groups = name_groups(pairs)
    else:
        pairs = read_protocol(options.pairs, options.protocol, options.cfp_pairs)
    people = name_people(pairs)
    _check_stale(people_path(options.out), people)
    _check_stale(groups_path(options.out), groups)
    paths = _find_paths(pairs, options)
    progress = Progress()
    try:
        with DecoderWarnings() as warnings:
            images = SetImages(ImageFormat(*size, crop=options.crop), options.resize, warnings)
            data: list[bytes] = []
            for index, path in enumerate(paths):
                if path is not None:
                    data.append(images.read(path))
                progress("read", index + 1, len(paths))
    finally:
        progress.clear()
    kept = [index for index in range(len(pairs)) if paths[2 * index] is not None]
    same = [pairs[index].same for index in kept]
    names, labels = (
        values and [value for index in kept for value in values[2 * index : 2 * index + 2]]
        for values in (people, groups)
    )
    if options.dry_run:
        print(DRY_RUN_TEXT)
    else:
        _write(options.out, data, same, names)
        if labels is not None:
            write_groups(options.out, labels)
    size_mb = sum(map(len, {id(image): image for image in data}.values())) / 1e6
    print(
        f"{printable(options.out)}: {len(same)} pairs, {sum(same)} of one person, "
        f"{size[0]}x{size[1]} pixels, {size_mb:.1f} MB"
    )
    for line in (*images.describe(), *_describe(len(pairs), same, names, options.out)):
        print(line)
    if labels is not None:
        print(f"{groups_path(options.out).name}: {', '.join(sorted(set(labels)))}")
    return 0


def check_new_file(out: Path) -> None:
    """Raise ValueError unless ``out`` is a new .bin file in a folder with write access."""
    if out.suffix != ".bin":
        raise ValueError(
            f"NAME.bin: must be a file name that ends in .bin, got {printable(out)}; add .bin"
        )
    if os.path.lexists(out):
        raise ValueError(
            f"{printable(out)}: must be a new file, got a name that exists; remove the file, or "
            "choose another name"
        )
    folder = out.absolute().parent
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        raise ValueError(
            f"NAME.bin: must lie in a folder with write access, got {printable(folder)}; create "
            "the folder, or choose another one"
        )


def _check_stale(file: Path, names: Sequence[str] | None) -> None:
    if names is None and os.path.lexists(file):
        raise ValueError(
            f"{printable(file)}: must not exist, got an older file, which would not fit the "
            "new set; remove the file"
        )


def _find_paths(pairs: Sequence[ProtocolPair], options: argparse.Namespace) -> list[Path | None]:
    """Return the files of the images, two per pair; a pair that is left out has None twice."""
    finder = ImageFinder(options.images)
    paths: list[Path | None] = []
    missing: list[str] = []
    for pair in pairs:
        found = [finder.find(pair.one), finder.find(pair.two)]
        missing += [name for name, path in zip(pair[:2], found, strict=True) if path is None]
        paths += found if None not in found else [None, None]
    names = list(dict.fromkeys(missing))
    usable = sum(path is not None for path in paths) // 2
    if names and (not options.skip_missing or not usable):
        advice = "pass --skip-missing to leave out their pairs" if usable else "name their folder"
        raise ValueError(
            f"{printable(options.images)}: must contain the images of the pairs, got {len(names)} "
            f"missing, such as {printable(names[0])}; add the images, or {advice}"
        )
    for name in names[:SHOWN_FILES]:
        print(f"missing: {printable(name)}")
    if len(names) > SHOWN_FILES:
        print(f"missing: {len(names)} images in all")
    return paths


def _write(
    out: Path, images: Sequence[bytes], same: Sequence[bool], people: Sequence[str] | None
) -> None:
    try:
        if people is not None:  # before the set: a killed process leaves no set without this file
            write_people(out, [" ".join(name.split()) or "?" for name in people])
        write_pairs(out, images, same)
    except OSError as error:
        if people is not None:
            people_path(out).unlink(missing_ok=True)
        raise ValueError(
            f"{printable(out)}: cannot be written, got {error.strerror or error}; free space, or "
            "choose another folder"
        ) from None


def _describe(
    count: int, same: Sequence[bool], people: Sequence[str] | None, out: Path
) -> list[str]:
    lines = []
    if len(same) < count:
        lines.append(f"{count - len(same)} of {count} pairs left out, because an image is missing")
    if people is None:
        lines.append("no people file is written: the pairs and the paths do not name the people")
    else:
        lines.append(f"{people_path(out).name}: {len(set(people))} people")
    unbalanced = unbalanced_folds(same)
    if len(same) < FOLDS:
        lines.append(f"warning: verification needs at least {FOLDS} pairs, got {len(same)}")
    elif unbalanced:
        lines.append(
            f"warning: {unbalanced} of {FOLDS} consecutive folds lack pairs of one person, or lack "
            "pairs of two people; the accuracy of such folds means little"
        )
    return lines
