# SPDX-License-Identifier: Apache-2.0
"""Verification: do two embeddings show one person? Accuracy over folds and TAR at a given FAR.

The protocol is that of LFW's restricted setting as InsightFace's `verification.py` carries it out,
so that its published accuracies compare: ten folds in the order of the file, squared Euclidean
distance of unit vectors, the threshold of a fold chosen on the nine others.

Huang et al., "Labeled Faces in the Wild", 2007.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

# np.arange, not linspace, and without 4: InsightFace's thresholds to the last bit.
THRESHOLDS = np.arange(0, 4, 0.01)
FOLDS = 10


def verify(
    embeddings: np.ndarray,
    issame: np.ndarray,
    nfolds: int = FOLDS,
    fars: Sequence[float] = (1e-3,),
    norms: np.ndarray | None = None,
) -> dict[str, Any]:
    """Score pairs of embeddings.

    Parameters
    ----------
    embeddings
        Raw embeddings, each the sum of an image's and its mirror's; normalised here.
    issame
        Whether a pair shows one person.
    nfolds
        Number of folds, contiguous and in the order of the pairs.
    fars
        False accept rates at which the true accept rate is wanted.
    norms
        Lengths of the raw embeddings before the sum, for `xnorm`.

    Inputs
    ------
    embeddings (2P, E) float, issame (P,) bool, norms (any shape) float.

    Outputs
    -------
    A dict: `accuracy` and `accuracy_std`, mean and standard deviation over the folds;
    `best_threshold`, the mean of the folds' thresholds, a squared distance from 0 to 4;
    `tar_at_far_<far>` for every far, None where `tar_at_far` is not defined; `xnorm`, the mean of
    `norms` or None; `pairs`.

    Raises
    ------
    ValueError
        If shapes do not fit, pairs are fewer than folds, or an embedding is zero or not finite.
    """
    issame = np.asarray(issame)
    if issame.ndim != 1 or issame.dtype != np.bool_:
        raise ValueError(
            f"verify: issame must be (P,) bool, got {issame.shape} {issame.dtype}; convert it first"
        )
    distances = pair_distances(embeddings)
    if len(distances) != len(issame):
        raise ValueError(
            f"verify: there must be two embeddings for every pair, got {2 * len(distances)} "
            f"embeddings and {len(issame)} pairs; hand over those of all images, in order"
        )
    accuracies, thresholds = fold_accuracies(distances, issame, nfolds)
    result: dict[str, Any] = {
        "accuracy": float(accuracies.mean()),
        "accuracy_std": float(accuracies.std()),
        "best_threshold": float(thresholds.mean()),
    }
    for far in fars:
        result[f"tar_at_far_{format_far(far)}"] = tar_at_far(distances, issame, far)
    result["xnorm"] = None if norms is None else float(np.mean(norms, dtype=np.float64))
    result["pairs"] = len(issame)
    return result


def pair_distances(embeddings: np.ndarray) -> np.ndarray:
    """Normalise embeddings (2P, E) and return the squared distance within every pair, (P,)."""
    embeddings = np.asarray(embeddings, dtype=np.float64)
    if embeddings.ndim != 2 or len(embeddings) % 2 or not embeddings.size:
        raise ValueError(
            f"verify: embeddings must be (2P, E), two rows per pair, got {embeddings.shape}; hand "
            "over one row per image"
        )
    # A diverged net must not score: NaN compares false, so that all pairs would count as different.
    finite = np.isfinite(embeddings).all(axis=1)
    if not finite.all():
        raise _bad_row(int(np.argmin(finite)), "is not finite", "NaN or infinity", len(embeddings))
    norms = np.linalg.norm(embeddings, axis=1, keepdims=True)
    if not norms.all():
        raise _bad_row(int(np.argmin(norms)), "has no direction", "length 0", len(embeddings))
    unit = embeddings / norms
    return np.square(unit[0::2] - unit[1::2]).sum(axis=1)


def _bad_row(row: int, problem: str, got: str, rows: int) -> ValueError:
    return ValueError(
        f"verify: the embedding of image {row % 2} of pair {row // 2} (of {rows // 2}) {problem}, "
        f"got {got}; check the network's parameters and the learning rate"
    )


def fold_accuracies(
    distances: np.ndarray, issame: np.ndarray, nfolds: int = FOLDS
) -> tuple[np.ndarray, np.ndarray]:
    """Return every fold's accuracy and the threshold that the other folds chose for it.

    A pair is accepted where its distance is less than the threshold. Of thresholds that are equally
    good the least is taken. Fold sizes differ by one at most, the larger ones first, as in
    scikit-learn's KFold without shuffling.

    Inputs
    ------
    distances (P,) float, issame (P,) bool.

    Outputs
    -------
    accuracies (nfolds,), thresholds (nfolds,), both float64.
    """
    pairs = len(distances)
    if not 2 <= nfolds <= pairs:
        raise ValueError(
            f"verify: folds must be from 2 to the number of pairs, got {nfolds} folds for {pairs} "
            f"pairs; take a set of at least {max(nfolds, 2)} pairs, and {FOLDS} folds are usual"
        )
    sizes = np.full(nfolds, pairs // nfolds)
    sizes[: pairs % nfolds] += 1
    fold = np.repeat(np.arange(nfolds), sizes)

    # The first threshold above a distance; from there on the pair is accepted.
    first = np.searchsorted(THRESHOLDS, distances, side="right")
    columns = len(THRESHOLDS) + 1  # the last one: accepted by none
    # Accepting gains a pair of one person and loses one of two; (nfolds, thresholds).
    gains = np.zeros((nfolds, columns), dtype=np.int64)
    np.add.at(gains, (fold, first), np.where(issame, 1, -1))
    negatives = np.bincount(fold, weights=~issame, minlength=nfolds).astype(np.int64)
    correct = negatives[:, None] + np.cumsum(gains, axis=1)[:, :-1]

    others = correct.sum(axis=0) - correct
    chosen = np.argmax(others, axis=1)
    return correct[np.arange(nfolds), chosen] / sizes, THRESHOLDS[chosen]


def tar_at_far(distances: np.ndarray, issame: np.ndarray, far: float) -> float | None:
    """Share of same pairs accepted at the largest threshold that accepts at most `far` of the rest.

    Exact over all pairs: the threshold is a distance that occurs, not one of a grid. None where
    there are no same pairs, or fewer than 10 / far different ones: the tail is then a handful of
    pairs, and the number noise.

    Inputs
    ------
    distances (P,) float, issame (P,) bool.
    """
    if not 0 < far <= 1:
        raise ValueError(
            f"verify: a false accept rate is above 0 and at most 1, got {far}; try 1e-3"
        )
    positives, negatives = distances[issame], np.sort(distances[~issame])
    # Room for rounding: 10 / 0.0003 may come out a hair above the whole number.
    if not len(positives) or len(negatives) * (1 + 1e-9) < 10 / far:
        return None
    allowed = int(far * len(negatives)) + 1
    while allowed / len(negatives) > far:
        allowed -= 1
    if allowed >= len(negatives):
        return 1.0
    # "Less than the distance of the first one too many" accepts `allowed` of them, fewer with ties.
    return float(np.mean(positives < negatives[allowed]))


def format_far(far: float) -> str:
    """Write a rate as the keys of results do: 0.001 as "1e-3"."""
    mantissa, exponent = f"{far:e}".split("e")
    digits = mantissa.rstrip("0").rstrip(".")
    return f"{digits}e{int(exponent)}"
