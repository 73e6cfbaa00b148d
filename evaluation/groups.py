# SPDX-License-Identifier: Apache-2.0
"""Error rates by group, for example by the groups African, Asian, Caucasian and Indian of RFW.

Wang et al., "Racial Faces in the Wild", ICCV 2019.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from atomic_write import atomic_write
from evaluation.distinct import find_distinct
from evaluation.pairs import Pairs, PairsError, name_image
from evaluation.people import people_path, read_names
from evaluation.threshold_transfer import errors_at

MAX_GROUPS = 64
BLOCK_IMAGES = 1024
"""Number of images that `count_matches` compares with all images at a time."""


class Groups(NamedTuple):
    """Groups of the images of a verification set of P pairs.

    Parameters
    ----------
    names
        Names of the G groups, sorted.
    numbers
        Index in `names` of each image's group, (2 P,) int.
    people
        Index of each image's person, (2 P,) int; None if NAME.people.txt does not exist.
    mixed
        The people whose images are in several groups: for each, the name of the person and the
        names of the groups.
    """

    names: Sequence[str]
    numbers: np.ndarray
    people: np.ndarray | None
    mixed: Sequence[tuple[str, Sequence[str]]]


def groups_path(path: str | os.PathLike[str]) -> Path:
    """Return the path of NAME.groups.txt beside the verification set NAME.bin."""
    return Path(path).with_suffix(".groups.txt")


def write_groups(path: str | os.PathLike[str], names: Iterable[str]) -> None:
    """Write NAME.groups.txt beside the verification set NAME.bin.

    Parameters
    ----------
    path
        File of the set, NAME.bin.
    names
        Name of the group of each image, two per pair, in the order of the pairs.
    """
    with atomic_write(groups_path(path), "w") as file:
        file.writelines(f"{name}\n" for name in names)


def find_groups_of(pairs: Pairs) -> Groups | None:
    """Read NAME.groups.txt beside NAME.bin; return None if the file does not exist.

    The file has one line per image with the name of the image's group, two lines per pair, in the
    order of the pairs.

    Raises
    ------
    PairsError
        If the file cannot be read, does not have one line per image, or has an empty line, or if
        the number of groups is not from 2 to MAX_GROUPS.
    """
    path = groups_path(pairs.path)
    if not os.path.lexists(path):
        return None
    labels = read_names(path, len(pairs.images), "group")
    names = sorted(set(labels))
    if not 2 <= len(names) <= MAX_GROUPS:
        raise PairsError(
            f"{path}: must name from 2 to {MAX_GROUPS} groups, got {len(names)}; write the group "
            "of each image, or remove the file"
        )
    position = {name: number for number, name in enumerate(names)}
    numbers = np.array([position[label] for label in labels])
    people = _read_people_names(pairs)
    if people is None:
        return Groups(names, numbers, None, _mixed_pairs(pairs, labels))
    position = {name: number for number, name in enumerate(dict.fromkeys(people))}
    return Groups(
        names, numbers, np.array([position[name] for name in people]), _mixed(people, labels)
    )


def _read_people_names(pairs: Pairs) -> Sequence[str] | None:
    path = people_path(pairs.path)
    return read_names(path, len(pairs.images), "person") if os.path.lexists(path) else None


def _mixed(people: Sequence[str], labels: Sequence[str]) -> Sequence[tuple[str, Sequence[str]]]:
    found: dict[str, set[str]] = {}
    for person, label in zip(people, labels, strict=True):
        found.setdefault(person, set()).add(label)
    return [(person, sorted(groups)) for person, groups in found.items() if len(groups) > 1]


def _mixed_pairs(pairs: Pairs, labels: Sequence[str]) -> Sequence[tuple[str, Sequence[str]]]:
    """Return the person and both groups of each same-person pair whose images differ in group.

    The person's name is unknown; the name of the first image of the pair identifies the person.
    """
    return [
        (f"the person of {name_image(2 * pair)}", sorted(labels[2 * pair : 2 * pair + 2]))
        for pair in map(int, np.flatnonzero(pairs.issame))
        if labels[2 * pair] != labels[2 * pair + 1]
    ]


def group_errors(
    threshold: float,
    distances: np.ndarray,
    issame: np.ndarray,
    *,
    groups: Groups,
    people: np.ndarray,
) -> dict[str, dict[str, Any]]:
    """Return the error rates of the pairs within each group, at one threshold for all groups.

    Parameters
    ----------
    threshold
        Squared distance; a pair is accepted if its distance is smaller.
    distances, issame
        Squared distance of each pair, and whether the pair shows one person, (P,) each.
    people
        For each image of each pair, the index of its person or of its group of linked images (see
        `evaluation.people.find_groups`), (P, 2) int.

    Outputs
    -------
    Dict from the name of each group that contains a pair to the result of
    `evaluation.threshold_transfer.errors_at`.
    """
    sides = groups.numbers.reshape(-1, 2)
    found = {}
    for number, name in enumerate(groups.names):
        inside = (sides == number).all(axis=1)
        if inside.any():
            found[name] = errors_at(threshold, distances[inside], issame[inside], people[inside])
    return found


def cross_group_rates(
    threshold: float,
    distances: np.ndarray,
    pairs: Pairs,
    *,
    groups: Groups,
    embeddings: np.ndarray,
) -> dict[str, Any]:
    """Return the false match rate of each pair of groups, at one threshold for all groups.

    If the people are known, the rate is over all pairs of distinct images that show
    different people.  Otherwise the rate is over the different-person pairs of the set.

    Parameters
    ----------
    threshold
        Squared distance; a pair is accepted if its distance is smaller.
    distances
        Squared distances of the P pairs, (P,).
    embeddings
        Raw embeddings of the 2 P images, (2 P, E).

    Outputs
    -------
    ``groups``, the names of the G groups; ``pairs`` and ``false_matches``, for each pair of groups
    the number of different-person pairs and the number of those that are accepted, each as G lists
    of G numbers; ``fmr``, ``false_matches`` divided by ``pairs``, or None for 0 pairs; ``of``, the
    pairs that the rate is over: "all images" or "the set's pairs".
    """
    count = len(groups.names)
    if groups.people is None:
        sides = groups.numbers.reshape(-1, 2)[~pairs.issame]
        accepted = distances[~pairs.issame] < threshold
        totals, matches = np.zeros((2, count, count), np.int64)
        np.add.at(totals, (sides[:, 0], sides[:, 1]), 1)
        np.add.at(matches, (sides[:, 0], sides[:, 1]), accepted)
        totals, matches = (_both_orders(counts) for counts in (totals, matches))
    else:
        first, _ = find_distinct(pairs.images)
        units = np.asarray(embeddings[first], np.float32)
        units = units / np.linalg.norm(units, axis=1, keepdims=True)
        totals, matches = count_matches(
            units, groups.numbers[first], groups.people[first], threshold, count
        )
    return {
        "groups": list(groups.names),
        "of": "the set's pairs" if groups.people is None else "all images",
        "pairs": totals.tolist(),
        "false_matches": matches.tolist(),
        "fmr": [
            [match / total if total else None for match, total in zip(*row, strict=True)]
            for row in zip(matches.tolist(), totals.tolist(), strict=True)
        ],
    }


def _both_orders(counts: np.ndarray) -> np.ndarray:
    """Add the counts of (a, b) and (b, a) for different groups; leave those of (a, a) unchanged."""
    return counts + counts.T - np.diag(np.diag(counts))


def count_matches(
    units: np.ndarray, groups: np.ndarray, people: np.ndarray, threshold: float, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """For each pair of groups, count the pairs of images of two people, and the accepted ones.

    Parameters
    ----------
    units
        Embeddings of length 1 of n images, (n, E) float32.
    groups, people
        Index of each image's group, and of each image's person, (n,) int each.
    threshold
        Squared distance; a pair is accepted if its distance is smaller.
    count
        Number of groups G.

    Outputs
    -------
    Two symmetric int64 arrays (G, G): the numbers of pairs, and the numbers of accepted pairs.
    """
    member = np.eye(count, dtype=np.float32)[groups]  # (n, G)
    totals, matches = np.zeros((2, count, count), np.int64)
    for rows in _blocks(len(units)):
        differ = (people[rows, None] != people).astype(np.float32)
        accepted = (2 - 2 * (units[rows] @ units.T) < threshold) * differ
        # The products in float32 count at most n images, so they are exact for n up to 2^24.
        # Counts of pairs can be larger, so they are computed in int64.
        totals += member[rows].T.astype(np.int64) @ (differ @ member).astype(np.int64)
        matches += member[rows].T.astype(np.int64) @ (accepted @ member).astype(np.int64)
    # Both orders of each pair were counted, so a diagonal cell counts each of its pairs twice.
    halved = np.where(np.eye(count, dtype=bool), 2, 1)
    return totals // halved, matches // halved


def _blocks(count: int) -> Iterator[slice]:
    for start in range(0, count, BLOCK_IMAGES):
        yield slice(start, start + BLOCK_IMAGES)
