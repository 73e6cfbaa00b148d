# SPDX-License-Identifier: Apache-2.0
"""Paired bootstrap over people: compare two networks on one set of pairs.

Pairs of one person are not independent, so the bootstrap draws people instead of pairs.  The weight
of a pair is the product of the counts of its two people.  Both networks use the same draws.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from evaluation.verification import FOLDS, fold_accuracies, pair_distances

if TYPE_CHECKING:
    from evaluation.pairs import Image, Pairs


class Difference(NamedTuple):
    """Difference of two accuracies (network - baseline), with the interval of 95 % of the draws."""

    difference: float
    low: float
    high: float
    people: int


def find_people(pairs: Pairs) -> np.ndarray:
    """Return a person number for each image, (2 P,) int.

    Identical images and the images of a same-person pair get one number, and so do images linked by
    a chain of them.  A person without links between all images counts as several people.
    """
    keys = [_key(image) for image in pairs.images]
    parent: dict[bytes, bytes] = {key: key for key in keys}

    def root(key: bytes) -> bytes:
        while parent[key] != key:
            parent[key] = parent[parent[key]]
            key = parent[key]
        return key

    for pair in np.flatnonzero(pairs.issame):
        parent[root(keys[2 * pair])] = root(keys[2 * pair + 1])
    found: dict[bytes, int] = {}
    return np.array([found.setdefault(root(key), len(found)) for key in keys])


def _key(image: Image) -> bytes:
    return hashlib.sha256(
        np.ascontiguousarray(image).tobytes() if isinstance(image, np.ndarray) else image
    ).digest()


def find_correct_pairs(
    embeddings: np.ndarray, issame: np.ndarray, nfolds: int = FOLDS
) -> np.ndarray:
    """Return which pairs are classified correctly, (P,) bool.

    The thresholds are those of `fold_accuracies`.
    """
    distances = pair_distances(embeddings)
    _, thresholds = fold_accuracies(distances, issame, nfolds)
    # array_split puts the larger folds first, as fold_accuracies does.
    folds = np.array_split(np.arange(len(issame)), nfolds)
    limit = np.concatenate([np.full(len(f), t) for f, t in zip(folds, thresholds, strict=True)])
    return (distances < limit) == issame


def paired_difference(
    base: np.ndarray,
    other: np.ndarray,
    people: Sequence[int] | np.ndarray,
    draws: int = 10_000,
    seed: int = 0,
) -> Difference:
    """Compare two networks on the same pairs.

    Parameters
    ----------
    base, other
        Pairs that each network classifies correctly, (P,) bool.
    people
        Person number of each image, (2 P,).
    draws
        Number of resamples.

    Notes
    -----
    Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapters 8 and 13: percentiles
    of the resampled difference.
    """
    people = np.asarray(people)
    first, second = people[0::2], people[1::2]
    gain = other.astype(np.float64) - base
    count = int(people.max()) + 1
    generator = np.random.default_rng(seed)
    found = np.empty(draws)
    for draw in range(draws):
        times = np.bincount(generator.integers(0, count, count), minlength=count)
        weight = np.where(first == second, times[first], times[first] * times[second])
        found[draw] = weight @ gain / max(weight.sum(), 1)
    low, high = np.percentile(found, [2.5, 97.5])
    return Difference(float(gain.mean()), float(low), float(high), count)
