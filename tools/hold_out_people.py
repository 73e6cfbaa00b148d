# SPDX-License-Identifier: Apache-2.0
"""Hold people of a record set out, to tune on:  python tools/hold_out_people.py RECORDS OUT

Writes OUT/train.rec, .idx and property without every ``--every``-th person, and OUT/held_out.bin
with pairs of those people.  What is tuned on held_out.bin has not seen the pairs that the result
will be measured on.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from evaluation.pairs import write_pairs
from launch.config.paths import home_path
from pipeline.records.open import RecordSet, open_records
from pipeline.records.reader import RecordReader
from pipeline.records.writer import write_record_set

FOLDS = 10


def main() -> int:
    """Run the command line; return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("records", type=home_path, help="folder with train.rec, or a .rec")
    parser.add_argument("out", type=home_path, help="folder for the two new sets")
    parser.add_argument("--every", type=int, default=5, help="hold out every n-th person (5)")
    parser.add_argument("--pairs", type=int, default=1000, help="pairs of held_out.bin (1000)")
    arguments = parser.parse_args()
    try:
        hold_out(arguments.records, arguments.out, arguments.every, arguments.pairs)
    except (ValueError, OSError) as error:
        print(f"hold_out_people: {error}", file=sys.stderr)
        return 2
    return 0


def hold_out(source: Path, out: Path, every: int, pairs: int) -> None:
    """Split a set by person; half of the pairs are of one person, folds share no person."""
    if every < 2 or pairs < 2 * FOLDS:
        raise ValueError(
            f"--every must be at least 2 and --pairs at least {2 * FOLDS}, got "
            f"{every} and {pairs}"
        )
    out.mkdir(parents=True, exist_ok=True)
    records = open_records(source, out)
    for notice in records.notices:
        print(f"hold_out_people: {notice}", file=sys.stderr)
    people = np.unique(records.labels)
    held = people[every - 1 :: every]
    if len(held) < 2 * FOLDS:
        raise ValueError(
            f"{source}: {len(held)} of {len(people)} people would be held out, {2 * FOLDS} are "
            "needed (two per fold); lower --every"
        )
    kept = np.setdiff1d(people, held)
    write_record_set(out, _kept(records, kept), len(kept), records.image_size)
    images, same = _pairs(records, held, pairs)
    write_pairs(out / "held_out.bin", images, same)
    print(f"{out}: {len(kept)} people to train on, {len(held)} held out in {len(same)} pairs")


def _kept(records: RecordSet, people: np.ndarray) -> Iterator[tuple[int, bytes]]:
    reader = RecordReader(records)
    for label, person in enumerate(people):
        for jpeg in reader.read(np.flatnonzero(records.labels == person)):
            yield label, jpeg.tobytes()


def _pairs(records: RecordSet, people: np.ndarray, pairs: int) -> tuple[list[bytes], list[bool]]:
    generator = np.random.default_rng(1)
    reader = RecordReader(records)
    rows: list[int] = []
    same: list[bool] = []
    for fold in np.array_split(generator.permutation(people), FOLDS):
        members = [np.flatnonzero(records.labels == person) for person in fold]
        for i in range(pairs // FOLDS):
            a, b = generator.permutation(len(members))[:2]
            like = i % 2 == 0
            if like:
                # Neighbours in the set are often frames of one film: take the two from the
                # first and the last third of the person's images.
                third = max(1, len(members[a]) // 3)
                pair = [
                    generator.choice(members[a][:third]),
                    generator.choice(members[a][-third:]),
                ]
            else:
                pair = [generator.choice(members[a]), generator.choice(members[b])]
            rows += [int(row) for row in pair]
            same.append(like)
    return [jpeg.tobytes() for jpeg in reader.read(np.array(rows))], same


if __name__ == "__main__":
    sys.exit(main())
