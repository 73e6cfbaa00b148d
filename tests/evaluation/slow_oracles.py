# SPDX-License-Identifier: Apache-2.0
"""Slow oracles for identification, ROC and templates: float64, loops, and no shared code."""

from __future__ import annotations

import numpy as np


def unit(rows) -> np.ndarray:
    rows = np.asarray(rows, np.float64)
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def cosine(one, two) -> float:
    return float(unit(one) @ unit(two))


def tar(genuine, impostors, far: float) -> float:
    """Return the best true accept rate of any threshold with a false accept rate of at most far."""
    best = 0.0
    for threshold in [*impostors, *genuine]:
        false = sum(score > threshold for score in impostors) / len(impostors)
        if false <= far:
            best = max(best, sum(score > threshold for score in genuine) / len(genuine))
    return best


def rank(mate: float, others) -> int:
    """Return the rank of a mate; a score within 1e-6 of the mate's counts as a tie."""
    return 1 + sum(other >= mate - 1e-6 for other in others)


def average_precision(scores, is_mate) -> float:
    """Return the average precision of one probe; mates stand after others of equal scores."""
    order = sorted(range(len(scores)), key=lambda i: (-scores[i], is_mate[i]))
    found, values = 0, []
    for place, index in enumerate(order, 1):
        if is_mate[index]:
            found += 1
            values.append(found / place)
    return float(np.mean(values))


def template(embeddings, templates, media, wanted: int, weights) -> np.ndarray:
    """Return the sum over the media of the mean weighted embedding, of length 1."""
    total = np.zeros(embeddings.shape[1])
    rows = [i for i in range(len(templates)) if templates[i] == wanted]
    for medium in {media[i] for i in rows}:
        chosen = [i for i in rows if media[i] == medium]
        total += np.mean([weights[i] * np.asarray(embeddings[i], float) for i in chosen], axis=0)
    return total / np.linalg.norm(total)
