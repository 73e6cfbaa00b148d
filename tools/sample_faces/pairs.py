# SPDX-License-Identifier: Apache-2.0
"""Choose the pairs of images for the sample verification set."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tools.sample_faces.people import Person, look_distance

FOLDS = 10
LOOKS_PER_FOLD = 2
# In a pair of two different people, the second person is chosen among this many people of the fold:
# those whose looks (skin, hair) are most similar to the look of the first person.
NEAREST_PEOPLE = 4


@dataclass(frozen=True)
class Pair:
    """Two images, each as (person number, image number), and whether they show the same person."""

    first: tuple[int, int]
    second: tuple[int, int]
    same: bool


def fold_of(position: int, count: int) -> int:
    """Return the fold (0 to FOLDS - 1) of the person at `position` (from 0) among `count` people.

    The numbers of people per fold differ by at most one.
    """
    return position * FOLDS // count


def look_number_of(position: int, count: int, looks: int) -> int:
    """Return the number of the look (skin, hair) of a person in the verification set.

    The people of a fold share LOOKS_PER_FOLD looks, so that different people often look alike.

    Parameters
    ----------
    position
        Position of the person among the people of the verification set, from 0 to count - 1.
    count
        Number of people in the verification set.
    looks
        Number of looks.
    """
    return (LOOKS_PER_FOLD * fold_of(position, count) + position % LOOKS_PER_FOLD) % looks


def choose_pairs(
    numbers: list[int], person_of: Callable[[int], Person], count: int, seed: int
) -> list[Pair]:
    """Choose the pairs of the verification set; return them fold by fold.

    In half of the pairs of a fold, both images show the same person.  No image is in two pairs.
    With at least `2 * FOLDS` people, each person is in one fold only.  With fewer people, each fold
    uses all people.

    Parameters
    ----------
    numbers
        Numbers that identify the people; at least two people.
    person_of
        Function that returns the person with a given number.
    count
        Number of pairs, a multiple of 20.
    seed
        Random seed.
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
            other = rng.choice(similar_people(one, members, person_of))
            pairs.append(Pair(next_image(one), next_image(int(other)), False))
    return pairs


def similar_people(
    number: int, members: list[int], person_of: Callable[[int], Person]
) -> list[int]:
    """Return the people of `members` who look most similar to person `number`, nearest first.

    There are at most NEAREST_PEOPLE of them, and person `number` is not among them.
    """
    look = person_of(number).look
    others = [m for m in members if m != number]
    return sorted(others, key=lambda m: look_distance(look, person_of(m).look))[:NEAREST_PEOPLE]
