# SPDX-License-Identifier: Apache-2.0
"""Command ``show-bin``: print what a verification set contains."""

from __future__ import annotations

import argparse
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from atomic_write import atomic_write
from evaluation.distinct import find_distinct
from evaluation.pairs import Image, Pairs, read_pairs
from evaluation.people import People, find_people
from image_headers import stored_size
from launch.config.paths import home_path
from launch.config.printable_text import printable
from tools.data.contact_sheet import choose_tiles, draw_contact_sheet
from tools.data.output_folder import explained_writing
from tools.data.protocol_pairs import FOLDS, unbalanced_folds
from tools.data.set_findings import decode_tile

HELP = "print what a verification set contains, and draw a contact sheet of its pairs"
SAME_COLOUR, DIFFERENT_COLOUR = (0, 160, 0), (0, 0, 220)
"""BGR colours of the frames around pairs of one person, and around pairs of two people."""
_MAGIC = {b"\xff\xd8": "JPEG", b"\x89P": "PNG", b"BM": "BMP", b"RI": "WebP"}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument("set", type=home_path, metavar="BIN", help="verification set, a .bin file")
    parser.add_argument(
        "--contact-sheet",
        type=home_path,
        metavar="FILE.png",
        help="new file: image of at most 72 pairs, framed green (one person) or red (two people)",
    )


def run(options: argparse.Namespace) -> int:
    """Run the command; return 0."""
    sheet = options.contact_sheet
    if sheet is not None:
        _check_sheet(sheet)
    pairs = read_pairs(options.set)
    for line in _describe(pairs, find_people(pairs)):
        print(line)
    if sheet is not None:
        image = _draw(pairs)
        with explained_writing(sheet), atomic_write(sheet) as file:
            file.write(image)
        print(f"contact sheet: {printable(sheet)}")
    return 0


def _check_sheet(path: Path) -> None:
    if os.path.lexists(path) or not path.absolute().parent.is_dir():
        problem = "an existing file" if os.path.lexists(path) else "a file in a missing folder"
        raise ValueError(
            f"--contact-sheet: must be a new file in a folder that exists, got {problem}: "
            f"{printable(path)}; choose another name"
        )


def _describe(pairs: Pairs, people: People) -> Iterator[str]:
    same = pairs.issame.tolist()
    first, _ = find_distinct(pairs.images)
    size_mb = sum(len(bytes(pairs.images[index])) for index in first) / 1e6
    yield f"{printable(pairs.path)}: {len(pairs)} pairs, {sum(same)} of one person"
    yield f"{len(first)} distinct images, {size_mb:.1f} MB"
    for name, count in Counter(_kind(pairs.images[index]) for index in first).most_common(5):
        yield f"{count} images: {name}"
    count = len(np.unique(people.numbers))
    if people.kind == "people":
        yield f"{count} people, as the file beside the set names them"
    else:
        yield (
            f"{count} groups of images linked by pairs of one person; no file beside the set names "
            "the people"
        )
    yield f"{people_in_several_folds(people.numbers)} of them in several of {FOLDS} folds"
    unbalanced = unbalanced_folds(same)
    if unbalanced:
        yield f"{unbalanced} of {FOLDS} folds lack pairs of one person, or lack pairs of two people"


def _kind(image: Image) -> str:
    """Return the format and the size of an image."""
    if isinstance(image, np.ndarray) and image.ndim == 3:
        return f"pixels {image.shape[0]}x{image.shape[1]}"
    data = image if isinstance(image, bytes) else image.tobytes()
    size = stored_size(data)
    return f"{_MAGIC.get(data[:2], 'other')} {f'{size[0]}x{size[1]}' if size else 'without a size'}"


def people_in_several_folds(numbers: np.ndarray) -> int:
    """Count the people whose images are in several of ten consecutive folds.

    Parameters
    ----------
    numbers
        Number of the person in each image, (2 P,) int; each of the P pairs has two images.
    """
    pairs = len(numbers) // 2
    folds = np.repeat(np.arange(pairs) * FOLDS // max(pairs, 1), 2)
    found = np.unique(np.stack([numbers, folds], axis=1), axis=0)[:, 0]
    return int(np.sum(np.unique(found, return_counts=True)[1] > 1))


def _draw(pairs: Pairs) -> bytes:
    chosen = choose_tiles(2 * len(pairs))
    indices = sorted({index // 2 for index in chosen})[: len(chosen) // 2 or 1]
    tiles = [image for pair in indices for image in (2 * pair, 2 * pair + 1)]
    colours = [SAME_COLOUR if pairs.issame[image // 2] else DIFFERENT_COLOUR for image in tiles]
    title = f"{len(indices)} of {len(pairs)} pairs; green: one person"
    return draw_contact_sheet(title, tiles, lambda image: decode_tile(pairs.images[image]), colours)
