# SPDX-License-Identifier: Apache-2.0
"""Face verification: accuracy over folds, and true accept rate at a given false accept rate.

The protocol is that of InsightFace's `verification.py` (the restricted setting of LFW), so that
results compare with InsightFace's published accuracies.  The pairs are split into ten folds in the
order of the file.  The distance of a pair is the squared Euclidean distance between its two
normalised embeddings.  A fold is scored at the threshold that is best on the nine other folds.

Huang et al., "Labeled Faces in the Wild", 2007.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from evaluation.roc_curve import area_under_curve, compute_roc_curve, equal_error_rate

# Squared distances 0, 0.01, ..., 3.99.  np.arange gives the thresholds of InsightFace bit for bit;
# np.linspace would not.
THRESHOLDS = np.arange(0, 4, 0.01)
FOLDS = 10
MIN_FALSE_ACCEPTS = 10
"""The TAR at a FAR is computed only if the FAR allows at least this many false accepts."""


def verify(
    embeddings: np.ndarray,
    issame: np.ndarray,
    nfolds: int = FOLDS,
    fars: Sequence[float] = (1e-3,),
    norms: np.ndarray | None = None,
) -> dict[str, Any]:
    """Score P pairs of embeddings with the ten-fold protocol of InsightFace.

    Parameters
    ----------
    embeddings
        One embedding for each image, usually the sum of the embeddings of the image and of its
        mirror image.  `verify` scales each to length 1.
    issame
        True for each pair that shows one person, False for each pair that shows two people.
    nfolds
        Number of folds; a fold is a contiguous block of pairs.
    fars
        False accept rates at which the true accept rate is computed.
    norms
        L2 norms of embeddings as the network returns them, not of their sums; for example
        `evaluation.embedding.FlippedEmbeddings.norms`.  The mean of these norms is the result
        `xnorm`.  None: the result `xnorm` is None.

    Inputs
    ------
    embeddings (2P, E) float, issame (P,) bool, norms (any shape) float.

    Outputs
    -------
    A dict: `accuracy` and `accuracy_std`, mean and standard deviation over the folds;
    `best_threshold`, the mean of the folds' thresholds, a squared distance from 0 to 4;
    `tar_at_far_<far>` for each rate in `fars`, the true accept rate that `tar_at_far` returns, or
    None; `eer` and `auc`, the equal error rate and the area under the ROC curve, or None if
    same-person or different-person pairs are missing; `xnorm`, the mean of `norms` or None;
    `pairs`, the number of pairs.

    Raises
    ------
    ValueError
        If shapes do not match, if there are fewer pairs than folds, or if an embedding is zero or
        not finite.
    """
    issame = np.asarray(issame)
    if issame.ndim != 1 or issame.dtype != np.bool_:
        raise ValueError(
            "verify: issame must be a bool array of shape (P,), got dtype "
            f"{issame.dtype} and shape {issame.shape}; convert issame"
        )
    distances = pair_distances(embeddings)
    if len(distances) != len(issame):
        raise ValueError(
            f"verify: there must be two embeddings for every pair, got {2 * len(distances)} "
            f"embeddings and {len(issame)} pairs; pass one embedding for each image"
        )
    accuracies, thresholds = fold_accuracies(distances, issame, nfolds)
    result: dict[str, Any] = {
        "accuracy": float(accuracies.mean()),
        "accuracy_std": float(accuracies.std()),
        "best_threshold": float(thresholds.mean()),
    }
    for far in fars:
        result[f"tar_at_far_{format_far(far)}"] = tar_at_far(distances, issame, far)
    result["eer"] = result["auc"] = None
    if issame.any() and not issame.all():
        curve = compute_roc_curve(-distances, issame)
        result["eer"], result["auc"] = equal_error_rate(curve), area_under_curve(curve)
    result["xnorm"] = None if norms is None else float(np.mean(norms, dtype=np.float64))
    result["pairs"] = len(issame)
    return result


def pair_distances(embeddings: np.ndarray) -> np.ndarray:
    """Normalise P pairs of embeddings, (2P, E); return the squared distance of each pair, (P,)."""
    embeddings = np.asarray(embeddings, dtype=np.float64)
    if embeddings.ndim != 2 or len(embeddings) % 2 or not embeddings.size:
        raise ValueError(
            "verify: embeddings must have the shape (2P, E), two rows per pair, got shape "
            f"{embeddings.shape}; pass one row per image"
        )
    # Refuse NaN: comparisons with NaN are false, so a pair with NaN would count as two people.
    finite = np.isfinite(embeddings).all(axis=1)
    if not finite.all():
        raise _bad_row(int(np.argmin(finite)), "is not finite", "NaN or infinity", len(embeddings))
    norms = np.linalg.norm(embeddings, axis=1, keepdims=True)
    if not norms.all():
        raise _bad_row(int(np.argmin(norms)), "cannot be normalised", "L2 norm 0", len(embeddings))
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
    """Score each fold of P pairs at the threshold that is best on all other folds.

    A pair is accepted if its distance is below the threshold.  Among equally good thresholds the
    smallest is selected.  The numbers of pairs in two folds differ by at most one, and
    the larger folds come first, as in scikit-learn's KFold without shuffling.

    Inputs
    ------
    distances (P,) float, issame (P,) bool.

    Outputs
    -------
    The accuracy of each fold and its threshold, two float64 arrays (nfolds,).
    """
    pairs = len(distances)
    if not 2 <= nfolds <= pairs:
        raise ValueError(
            "verify: the number of folds must be from 2 to the number of pairs, got "
            f"{nfolds} folds for {pairs} pairs; use {FOLDS} folds and a set of at least {FOLDS} "
            "pairs"
        )
    sizes = np.full(nfolds, pairs // nfolds)
    sizes[: pairs % nfolds] += 1
    fold = np.repeat(np.arange(nfolds), sizes)

    # Index of the smallest threshold that accepts each pair.
    first = np.searchsorted(THRESHOLDS, distances, side="right")
    # Each threshold's gain in correctly classified pairs over the next smaller threshold, per fold.
    # A newly accepted same-person pair adds 1, a newly accepted different-person pair subtracts 1.
    # The additional last column holds the pairs that no threshold accepts.
    gains = np.zeros((nfolds, len(THRESHOLDS) + 1), dtype=np.int64)
    np.add.at(gains, (fold, first), np.where(issame, 1, -1))
    negatives = np.bincount(fold, weights=~issame, minlength=nfolds).astype(np.int64)
    correct = negatives[:, None] + np.cumsum(gains, axis=1)[:, :-1]

    others = correct.sum(axis=0) - correct
    chosen = np.argmax(others, axis=1)
    return correct[np.arange(nfolds), chosen] / sizes, THRESHOLDS[chosen]


def classify_pairs(distances: np.ndarray, issame: np.ndarray, nfolds: int = FOLDS) -> np.ndarray:
    """Classify P pairs with the thresholds of `fold_accuracies`; return which are correct.

    Inputs
    ------
    distances (P,) float, issame (P,) bool.

    Outputs
    -------
    (P,) bool, True for each pair that is classified correctly.
    """
    _, thresholds = fold_accuracies(distances, issame, nfolds)
    # array_split puts the larger folds first, as fold_accuracies does.
    folds = np.array_split(np.arange(len(issame)), nfolds)
    limit = np.concatenate([np.full(len(f), t) for f, t in zip(folds, thresholds, strict=True)])
    return (distances < limit) == issame


def best_threshold(distances: np.ndarray, issame: np.ndarray) -> float:
    """Return the smallest of those THRESHOLDS that reach the highest accuracy on P pairs."""
    first = np.searchsorted(THRESHOLDS, distances, side="right")
    gains = np.bincount(first, np.where(issame, 1, -1), len(THRESHOLDS) + 1)[:-1]
    return float(THRESHOLDS[np.argmax(np.cumsum(gains))])


def cosine_threshold(distance: float) -> float:
    """Return the cosine of two unit vectors with this squared Euclidean distance."""
    return 1 - distance / 2


def tar_at_far(distances: np.ndarray, issame: np.ndarray, far: float) -> float | None:
    """Return the true accept rate at a false accept rate of at most `far`, or None.

    A pair is accepted if its distance is below the threshold.  The threshold is not one of
    THRESHOLDS: it is the largest distance of a different-person pair that, used as the threshold,
    gives a false accept rate of at most `far`.  The result is None if there are no same-person
    pairs, or if the number of different-person pairs is below ``MIN_FALSE_ACCEPTS / far``, because
    the rate would then depend on very few pairs.

    Inputs
    ------
    distances (P,) float, issame (P,) bool.
    """
    if not 0 < far <= 1:
        raise ValueError(
            f"verify: a false accept rate must be above 0 and at most 1, got {far}; try 1e-3"
        )
    positives, negatives = distances[issame], np.sort(distances[~issame])
    # The factor tolerates rounding: MIN_FALSE_ACCEPTS / far may be slightly above an integer.
    if not len(positives) or len(negatives) * (1 + 1e-9) < MIN_FALSE_ACCEPTS / far:
        return None
    allowed = int(far * len(negatives)) + 1
    while allowed / len(negatives) > far:
        allowed -= 1
    if allowed >= len(negatives):
        return 1.0
    # This threshold accepts `allowed` different-person pairs, or fewer if distances are equal.
    return float(np.mean(positives < negatives[allowed]))


def format_far(far: float) -> str:
    """Format a false accept rate for the keys of results: 0.001 gives "1e-3"."""
    mantissa, exponent = f"{far:e}".split("e")
    digits = mantissa.rstrip("0").rstrip(".")
    return f"{digits}e{int(exponent)}"
