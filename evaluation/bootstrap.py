# SPDX-License-Identifier: Apache-2.0
"""Is one network better than another on a set of pairs? Paired bootstrap over people.

Pairs of one person are not independent, so people are drawn, not pairs: a pair counts as often as
both of its people were drawn.  Both networks are scored on the same draws.
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
    """Accuracy of a network less that of a base, with the bounds that 95 % of the draws lie in."""

    difference: float
    low: float
    high: float
    people: int


def people_of(pairs: Pairs) -> np.ndarray:
    """Return the person of each image, (2 P,) int, as far as the pairs tell.

    Images are of one person if they are the same image or stand in a pair of one person, or are
    linked by such ones.  Somebody whose images are not all linked counts as several people.
    """
    keys = [_key(image) for image in pairs.images]
    above: dict[bytes, bytes] = {key: key for key in keys}

    def root(key: bytes) -> bytes:
        while above[key] != key:
            above[key] = above[above[key]]
            key = above[key]
        return key

    for pair in np.flatnonzero(pairs.issame):
        above[root(keys[2 * pair])] = root(keys[2 * pair + 1])
    found: dict[bytes, int] = {}
    return np.array([found.setdefault(root(key), len(found)) for key in keys])


def _key(image: Image) -> bytes:
    return hashlib.sha256(
        np.ascontiguousarray(image).tobytes() if isinstance(image, np.ndarray) else image
    ).digest()


def right_pairs(embeddings: np.ndarray, issame: np.ndarray, nfolds: int = FOLDS) -> np.ndarray:
    """Return which pairs are told rightly, (P,) bool, by the thresholds of `fold_accuracies`."""
    distances = pair_distances(embeddings)
    _, thresholds = fold_accuracies(distances, issame, nfolds)
    folds = np.array_split(np.arange(len(issame)), nfolds)  # the larger ones first, as there
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
        Which pairs each of them tells rightly, (P,) bool.
    people
        Person of each image, (2 P,).
    draws
        Resamples.

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
