# SPDX-License-Identifier: Apache-2.0
"""Hold out some identities of a record set, and make verification pairs of their images.

python tools/hold_out_people.py RECORDS OUT

Holds out every N-th identity (``--every N``).  Writes a record set of the other identities to OUT,
verification pairs of the held-out identities to OUT/held_out.bin, and the label of each image of
these pairs to OUT/held_out.people.txt.  Tune hyperparameters on these pairs, and keep the final
verification set for the final result.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from evaluation.pairs import write_pairs
from evaluation.people import write_people
from launch.config.paths import home_path
from pipeline.records.open import RecordSet, open_records
from pipeline.records.reader import RecordReader
from pipeline.records.writer import write_record_set

FOLDS = 10


def main() -> int:
    """Run the tool with the arguments of the command line, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("records", type=home_path, help="folder with train.rec, or a .rec file")
    parser.add_argument("out", type=home_path, help="folder for the results")
    parser.add_argument(
        "--every", type=int, default=5, help="hold out every N-th person (default: N = 5)"
    )
    parser.add_argument(
        "--pairs", type=int, default=1000, help="number of pairs in held_out.bin (default: 1000)"
    )
    arguments = parser.parse_args()
    try:
        hold_out(arguments.records, arguments.out, arguments.every, arguments.pairs)
    except (ValueError, OSError) as error:
        print(f"hold_out_people: {error}", file=sys.stderr)
        return 2
    return 0


def hold_out(source: Path, out: Path, every: int, pairs: int) -> None:
    """Split a record set by identity into training images and verification pairs; write both.

    Half of the pairs show the same person twice.  The pairs form ten folds for cross-validation,
    and no person is in two folds.

    Parameters
    ----------
    source
        Folder with train.rec, or a .rec file.
    out
        Output folder.
    every
        N, to hold out every N-th person.
    pairs
        Number of pairs, rounded down to a multiple of ten.

    Raises
    ------
    ValueError
        If an argument is out of range, or fewer than two people per fold would be held out.
    """
    if every < 2:
        raise ValueError(f"--every: must be at least 2, got {every}; 5 is usual")
    if pairs < 2 * FOLDS:
        raise ValueError(f"--pairs: must be at least {2 * FOLDS}, got {pairs}; 1000 is usual")
    out.mkdir(parents=True, exist_ok=True)
    records = open_records(source, out)
    for notice in records.notices:
        print(f"hold_out_people: {notice}", file=sys.stderr)
    people = np.unique(records.labels)
    held = people[every - 1 :: every]
    if len(held) < 2 * FOLDS:
        raise ValueError(
            f"{source}: at least {2 * FOLDS} people must be held out (two per fold), got "
            f"{len(held)} of {len(people)} people; lower --every"
        )
    kept = np.setdiff1d(people, held)
    write_record_set(out, _images_of(records, kept), len(kept), records.image_size)
    rows, same = _pairs(records, held, pairs)
    images = [jpeg.tobytes() for jpeg in RecordReader(records).read(np.array(rows))]
    write_people(out / "held_out.bin", records.labels[rows])
    write_pairs(out / "held_out.bin", images, same)
    print(f"{out}: {len(kept)} people for training, {len(held)} other people in {len(same)} pairs")


def _images_of(records: RecordSet, people: np.ndarray) -> Iterator[tuple[int, bytes]]:
    reader = RecordReader(records)
    for label, person in enumerate(people):
        for jpeg in reader.read(np.flatnonzero(records.labels == person)):
            yield label, jpeg.tobytes()


def _pairs(records: RecordSet, people: np.ndarray, pairs: int) -> tuple[list[int], list[bool]]:
    """Choose pairs; return the rows of their images, and whether each pair shows one person."""
    generator = np.random.default_rng(1)
    rows: list[int] = []
    same: list[bool] = []
    for fold in np.array_split(generator.permutation(people), FOLDS):
        members = [np.flatnonzero(records.labels == person) for person in fold]
        for i in range(pairs // FOLDS):
            a, b = generator.permutation(len(members))[:2]
            is_same = i % 2 == 0
            if is_same:
                # Adjacent images are often frames of one video, so a pair consists of an image
                # from the first third of the person's images and one from the last third.
                third = max(1, len(members[a]) // 3)
                pair = [
                    generator.choice(members[a][:third]),
                    generator.choice(members[a][-third:]),
                ]
            else:
                pair = [generator.choice(members[a]), generator.choice(members[b])]
            rows += [int(row) for row in pair]
            same.append(is_same)
    return rows, same


if __name__ == "__main__":
    sys.exit(main())
