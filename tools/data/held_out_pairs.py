# SPDX-License-Identifier: Apache-2.0
"""Make verification pairs of the images of held-out identities."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from evaluation.pairs import write_pairs
from evaluation.people import write_people
from launch.config.printable_text import printable
from pipeline.records.reader import RecordReader

if TYPE_CHECKING:
    from pipeline.records.open import RecordSet

FOLDS = 10
_TRIES = 20  # largest number of draws until a pair is found that was not chosen before
_MAX_NAME_LETTERS = 200
_SEED = 1


class ChosenPairs(NamedTuple):
    """Pairs of a verification set."""

    rows: list[int]
    """Rows of the images, two per pair."""
    same: list[bool]
    """Whether each pair shows one person."""
    is_disjoint: bool
    """Whether no person is in two of the ten folds of cross-validation."""


def describe_folds(is_disjoint: bool) -> str:
    """Return a clause that says whether people are in several folds."""
    if is_disjoint:
        return "no person is in two of the ten folds"
    return f"some people are in several folds, because fewer than {2 * FOLDS} people are held out"


def choose_pairs(labels: np.ndarray, count: int) -> ChosenPairs:
    """Choose distinct pairs of images; half of the pairs show one person, the others two people.

    The same labels always give the same pairs.  With at least two people for each of the ten folds,
    no person is in two folds.

    Parameters
    ----------
    labels
        Person of each image, int (N,).
    count
        Number of pairs, rounded down to a multiple of ten.  If there are too few images, the result
        has fewer pairs.
    """
    generator = np.random.default_rng(_SEED)
    people = generator.permutation(np.unique(labels))
    is_disjoint = len(people) >= 2 * FOLDS
    parts = np.array_split(people, FOLDS) if is_disjoint else [people]
    folds = [
        _choose(
            [np.flatnonzero(labels == person) for person in part], count // len(parts), generator
        )
        for part in parts
    ]
    size = min(map(len, folds))
    if not is_disjoint:
        size = size // FOLDS * FOLDS
    pairs = [pair for fold in folds for pair in fold[:size]]
    rows = [row for a, b, _ in pairs for row in (a, b)]
    return ChosenPairs(rows, [same for _, _, same in pairs], is_disjoint)


def _choose(
    members: Sequence[np.ndarray], count: int, generator: np.random.Generator
) -> list[tuple[int, int, bool]]:
    """Choose pairs of images: (row, row, whether the two images show one person).

    ``members`` has the rows of the images of each person.
    """
    several = [rows for rows in members if len(rows) > 1]
    chosen: dict[tuple[int, int], tuple[int, int, bool]] = {}
    for number in range(count):
        same = number % 2 == 0
        if not (several if same else members[1:]):
            break
        for attempt in range(_TRIES):
            is_late = attempt >= _TRIES // 2
            if same:
                a, b = _draw_same(several, generator, far_apart=not is_late)
            else:
                a, b = _draw_two(members, generator)
            if (min(a, b), max(a, b)) not in chosen:
                chosen[min(a, b), max(a, b)] = (a, b, same)
                break
        else:
            break
    return list(chosen.values())


def _draw_same(
    members: Sequence[np.ndarray], generator: np.random.Generator, far_apart: bool
) -> tuple[int, int]:
    """Draw two images of one person.

    Adjacent images are often frames of one video.  With ``far_apart``, the pair therefore has one
    image of the first third of the person's images and one of the last third.
    """
    rows = members[generator.integers(len(members))]
    if not far_apart:
        a, b = generator.permutation(len(rows))[:2]
        return int(rows[a]), int(rows[b])
    third = max(1, len(rows) // 3)
    return int(generator.choice(rows[:third])), int(generator.choice(rows[-third:]))


def _draw_two(members: Sequence[np.ndarray], generator: np.random.Generator) -> tuple[int, int]:
    """Draw one image each of two people."""
    a, b = generator.permutation(len(members))[:2]
    return int(generator.choice(members[a])), int(generator.choice(members[b]))


def write_held_out(
    path: Path, records: RecordSet, chosen: ChosenPairs, names: Sequence[str] | None
) -> None:
    """Write a verification set NAME.bin, and NAME.people.txt beside the set.

    Parameters
    ----------
    path
        File NAME.bin.
    records
        Record set of the images.
    names
        Name of each label.  NAME.people.txt states the label and the name of the person in each
        image.  None: it states only the labels.
    """
    images = [
        jpeg.tobytes()
        for start in range(0, len(chosen.rows), 1024)
        for jpeg in RecordReader(records).read(np.array(chosen.rows[start : start + 1024]))
    ]
    labels = records.labels[chosen.rows].tolist()
    lines = [
        f"{label} {printable(names[label])[:_MAX_NAME_LETTERS]}" if names else str(label)
        for label in labels
    ]
    write_people(path, lines)
    write_pairs(path, images, chosen.same)
