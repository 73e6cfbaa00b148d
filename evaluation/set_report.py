# SPDX-License-Identifier: Apache-2.0
"""All results of one verification set: with and without mirror images, with 95 % intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from evaluation.intervals import RateInterval, rate_interval
from evaluation.roc import FARS, RocPoint, roc_points
from evaluation.verification import (
    FOLDS,
    MIN_FALSE_ACCEPTS,
    classify_pairs,
    cosine_threshold,
    pair_distances,
    verify,
)

if TYPE_CHECKING:
    from evaluation.embedding import FlippedEmbeddings
    from evaluation.people import People


def report_set(
    embeddings: FlippedEmbeddings, issame: np.ndarray, people: People, fars: Sequence[float] = FARS
) -> dict[str, Any]:
    """Score P pairs with and without mirror images.

    Parameters
    ----------
    embeddings
        Embeddings of the 2 P images and of their mirror images.
    issame
        True for each pair that shows one person, (P,) bool.
    people
        People, or groups of linked images (see `evaluation.people.find_groups`).  The intervals
        treat two pairs that share a person or group as dependent.
    fars
        False accept rates at which the true accept rate is computed.

    Outputs
    -------
    Result of `score_embeddings` for the sums of the embeddings of image and mirror image;
    ``no_flip``, the result for the images alone; and the number of ``people`` or ``groups``.
    """
    plain_norms = np.linalg.norm(embeddings.plain, axis=1)
    return {
        **score_embeddings(embeddings.sums, embeddings.norms, issame, people=people, fars=fars),
        "no_flip": score_embeddings(
            embeddings.plain, plain_norms, issame, people=people, fars=fars
        ),
        people.kind: int(people.numbers.max()) + 1,
    }


def score_embeddings(
    embeddings: np.ndarray,
    norms: np.ndarray,
    issame: np.ndarray,
    *,
    people: People,
    fars: Sequence[float] = FARS,
) -> dict[str, Any]:
    """Score the raw embeddings (2 P, E) of P pairs.

    Outputs
    -------
    Result of `evaluation.verification.verify`; ``accuracy_interval``, the ends of the 95 % interval
    of the accuracy; and ``roc``, one dict for each rate of ``fars``.  Each of these dicts has the
    fields of `evaluation.roc.RocPoint`, with a cosine as threshold; ``tar_interval``, the ends of
    the 95 % interval of the TAR; and ``negatives``, the number of different-person pairs.
    """
    result = verify(embeddings, issame, fars=fars, norms=norms)
    distances = pair_distances(embeddings)
    sides = people.numbers.reshape(-1, 2)
    interval = rate_interval(classify_pairs(distances, issame), sides, folds=FOLDS)
    assert interval is not None  # `verify` refuses a set without pairs
    result["accuracy_interval"] = [interval.low, interval.high]
    result["roc"] = [
        _describe(point, distances, issame, sides)
        for point in find_roc_points(distances, issame, fars)
    ]
    return result


def find_roc_points(
    distances: np.ndarray, issame: np.ndarray, fars: Sequence[float]
) -> list[RocPoint]:
    """Return the ROC points of P pairs; the score of a pair is its negated squared distance.

    The TAR of a point is None if there are fewer than ``MIN_FALSE_ACCEPTS / far`` different-person
    pairs, or no same-person pairs.
    """
    negatives = np.sort(-distances[~issame])[::-1]
    points = roc_points(-distances[issame], negatives, len(negatives), fars)
    # The factor tolerates rounding: MIN_FALSE_ACCEPTS / far may be slightly above an integer.
    return [
        point
        if len(negatives) * (1 + 1e-9) >= MIN_FALSE_ACCEPTS / point.far
        else replace(point, tar=None, threshold=None, false_accepts=None)
        for point in points
    ]


def _describe(
    point: RocPoint, distances: np.ndarray, issame: np.ndarray, sides: np.ndarray
) -> dict[str, Any]:
    found: RateInterval | None = None
    entry = asdict(point)
    if point.threshold is not None:
        found = rate_interval(-distances[issame] > point.threshold, sides[issame])
        entry["threshold"] = cosine_threshold(-point.threshold)
    return {
        **entry,
        "tar_interval": [found.low, found.high] if found else None,
        "negatives": int(np.count_nonzero(~issame)),
    }
