# SPDX-License-Identifier: Apache-2.0
"""Choose who is compared with whom in the sample verification set."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tools.sample_faces.people import Person, look_distance

FOLDS = 10
LOOKS_PER_FOLD = 2
NEAREST = 4  # an impostor is one of this many people of the fold who look most alike


@dataclass(frozen=True)
class Pair:
    """Two images, each (person number, image number), and whether they show one person."""

    first: tuple[int, int]
    second: tuple[int, int]
    same: bool


def fold_of(position: int, count: int) -> int:
    """Return the fold of the person at a position among count; folds are equal within one."""
    return position * FOLDS // count


def look_number_of(position: int, count: int, looks: int) -> int:
    """Return the look of a person of the verification set: few looks in a fold, so all match."""
    return (LOOKS_PER_FOLD * fold_of(position, count) + position % LOOKS_PER_FOLD) % looks


def choose_pairs(
    numbers: list[int], person_of: Callable[[int], Person], count: int, seed: int
) -> list[Pair]:
    """Return pairs in fold order; a fold is half like, half unlike, and has its own people.

    Every image is used once. With fewer than two people for each fold, all folds share all people.

    Parameters
    ----------
    numbers
        Numbers of the people to choose from, at least 2.
    person_of
        From the number to the person.
    count
        Number of pairs, a multiple of 20.
    seed
        Seed of the choice.
    """
    rng = np.random.default_rng([seed, 4])
    used = dict.fromkeys(numbers, 0)

    def next_image(number: int) -> tuple[int, int]:
        used[number] += 1
        return number, used[number] - 1

    pairs = []
    for fold in range(FOLDS):
        members = [n for i, n in enumerate(numbers) if fold_of(i, len(numbers)) == fold]
        if len(numbers) < 2 * FOLDS:
            members = numbers
        half = count // FOLDS // 2
        for turn in range(half):
            one = members[turn % len(members)]
            pairs.append(Pair(next_image(one), next_image(one), True))
        for turn in range(half):
            one = members[turn % len(members)]
            other = rng.choice(most_alike(one, members, person_of))
            pairs.append(Pair(next_image(one), next_image(int(other)), False))
    return pairs


def most_alike(number: int, members: list[int], person_of: Callable[[int], Person]) -> list[int]:
    """Return the NEAREST members, other than the person, by skin and hair."""
    look = person_of(number).look
    others = [m for m in members if m != number]
    return sorted(others, key=lambda m: look_distance(look, person_of(m).look))[:NEAREST]
