# SPDX-License-Identifier: Apache-2.0
"""Complete ROC curve of verification scores, the area under the curve and the equal error rate.

Fawcett, "An introduction to ROC analysis", Pattern Recognition Letters 27, 2006.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class RocCurve:
    """Rates at all thresholds of a set of P pairs; a pair is accepted if score >= threshold.

    Parameters
    ----------
    thresholds
        The T - 1 distinct scores in descending order, after an infinite first threshold that
        accepts no pair, (T,) float64.
    far
        False accept rate: fraction of the different-person pairs that are accepted, (T,) float64.
    tar
        True accept rate: fraction of the same-person pairs that are accepted, (T,) float64.
    """

    thresholds: np.ndarray
    far: np.ndarray
    tar: np.ndarray


def compute_roc_curve(scores: np.ndarray, issame: np.ndarray) -> RocCurve:
    """Return the ROC curve of P scores; a higher score means that the images are more similar.

    Inputs
    ------
    scores (P,) float, issame (P,) bool.

    Raises
    ------
    ValueError
        If a score is NaN or infinite, or if same-person or different-person pairs are missing.
    """
    scores = np.asarray(scores, np.float64)
    issame = np.asarray(issame, bool)
    if scores.shape != issame.shape or scores.ndim != 1:
        raise ValueError(
            "ROC curve: there must be one score for each pair, got shapes "
            f"{scores.shape} and {issame.shape}; pass two arrays of shape (P,)"
        )
    finite = np.isfinite(scores)
    if not finite.all():
        row = int(np.argmin(finite))
        raise ValueError(
            f"ROC curve: scores must be finite, got {scores[row]} for pair {row}; check the "
            "network's parameters"
        )
    same = int(issame.sum())
    if same in (0, len(issame)):
        raise ValueError(
            "ROC curve: same-person and different-person pairs are necessary, got "
            f"{same} same-person pairs among {len(issame)}; add pairs of the missing kind"
        )
    order = np.argsort(-scores, kind="stable")
    ordered, accepted = scores[order], np.cumsum(issame[order])
    # Position in `ordered` of the last pair with each distinct score.
    last = np.append(np.flatnonzero(np.diff(ordered)), len(ordered) - 1)
    true = accepted[last]
    return RocCurve(
        np.concatenate([[np.inf], ordered[last]]),
        np.concatenate([[0.0], (last + 1 - true) / (len(issame) - same)]),
        np.concatenate([[0.0], true / same]),
    )


def area_under_curve(curve: RocCurve) -> float:
    """Return the area under a ROC curve, with straight lines between its points.

    The area is the probability that a same-person pair has a higher score than a different-person
    pair, plus half of the probability that both scores are equal.
    """
    heights = (curve.tar[1:] + curve.tar[:-1]) / 2
    return float(np.sum(np.diff(curve.far) * heights))


def equal_error_rate(curve: RocCurve) -> float:
    """Return the equal error rate of FVC2000: (FAR + FRR) / 2 where FAR and FRR cross.

    FRR is the false reject rate 1 - TAR.  If no threshold has FAR = FRR, the rates cross
    between two neighbouring thresholds.  The threshold with the smaller FAR + FRR is used, or the
    lower threshold if both sums are equal.

    Maio et al., "FVC2000: Fingerprint verification competition", IEEE TPAMI 24(3), 2002.
    """
    frr = 1 - curve.tar
    # Thresholds descend, so FAR rises.  The tolerance makes equal rates equal despite rounding.
    above = int(np.flatnonzero(curve.far <= frr + 1e-12)[-1])
    if abs(curve.far[above] - frr[above]) <= 1e-12:
        return float(curve.far[above])
    sums = (curve.far + frr)[above : above + 2]
    return float(sums[1] if sums[1] <= sums[0] + 1e-12 else sums[0]) / 2
