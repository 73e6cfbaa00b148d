# SPDX-License-Identifier: Apache-2.0
"""Templates: one embedding for several images of a person, and scores of pairs of templates.

A template is the sum over its media of the mean embedding of the images of the medium.  A medium is
a still image, or a video of which the template has several frames.  Each image may have a weight.
InsightFace's evaluation of IJB-B and IJB-C has these rules.
"""

from __future__ import annotations

import numpy as np

from evaluation.row_sources import RowError

BLOCK_PAIRS = 128
"""Number of pairs that are scored at once: 512 KiB at 512 values each, which fit into a cache."""


class TemplateError(ValueError):
    """Templates cannot be made or compared; the message is one sentence for the user."""


def media_weights(
    templates: np.ndarray, media: np.ndarray, weights: np.ndarray | None = None
) -> np.ndarray:
    """Return the weight of each image in the sum of its template, (N,) float32.

    The weight is 1 / (number of images of the same medium in the template), times the weight of the
    image itself.

    Inputs
    ------
    templates (N,) int and media (N,) int, numbers of each image's template and medium; weights (N,)
    float.
    """
    order = np.lexsort((media, templates))
    changes = np.flatnonzero((np.diff(templates[order]) != 0) | (np.diff(media[order]) != 0)) + 1
    sizes = np.diff([0, *changes, len(order)])
    found = np.empty(len(order), np.float32)
    found[order] = np.repeat(1 / sizes, sizes)
    return found if weights is None else found * weights.astype(np.float32)


def pool_templates(
    embeddings: np.ndarray, templates: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Add up the weighted embeddings of each template; scale each sum to length 1.

    Inputs
    ------
    embeddings (N, E) float32, templates (N,) int, weights (N,) float32.

    Outputs
    -------
    Numbers of the T templates in ascending order, (T,) int, and the templates, (T, E) float32.

    Raises
    ------
    TemplateError
        If a sum is 0 or not finite.
    """
    from scipy.sparse import csr_array  # Late: this import takes a third of a second.

    order = np.argsort(templates, kind="stable")
    ordered = templates[order]
    starts = np.flatnonzero(np.concatenate([[True], np.diff(ordered) != 0]))
    numbers = ordered[starts]
    # Row t of the sparse matrix has the weights of the images of template t, so that the product
    # reads each embedding once.
    matrix = csr_array(
        (weights[order].astype(np.float32), order, np.append(starts, len(order))),
        shape=(len(starts), len(order)),
    )
    sums = matrix @ embeddings
    lengths = np.sqrt(np.einsum("ij,ij->i", sums, sums))
    bad = np.flatnonzero(~(np.isfinite(lengths) & (lengths > 0)))
    if len(bad):
        raise TemplateError(
            f"template {numbers[bad[0]]}: the sum of the embeddings has no direction, got length "
            f"{lengths[bad[0]]}; compute the embeddings again"
        )
    return numbers, sums / lengths[:, None]


def find_templates(numbers: np.ndarray, wanted: np.ndarray, where: str) -> np.ndarray:
    """Return the position of each wanted template number in the sorted `numbers`, (len(wanted),).

    Raises
    ------
    TemplateError
        If a template has no images.
    """
    found = np.minimum(np.searchsorted(numbers, wanted), len(numbers) - 1)
    missing = np.flatnonzero(numbers[found] != wanted)
    if len(missing):
        raise TemplateError(
            f"{where}: every template must have an image, got template {wanted[missing[0]]} "
            "without one; make the lists again"
        )
    return found


def score_pairs(templates: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the cosines of P pairs of templates.

    Inputs
    ------
    templates (T, E) float32 of length 1; first (P,) and second (P,) int, positions in `templates`.

    Outputs
    -------
    (P,) float32.
    """
    scores = np.empty(len(first), np.float32)
    one, two = (np.empty((BLOCK_PAIRS, templates.shape[1]), np.float32) for _ in range(2))
    for start in range(0, len(first), BLOCK_PAIRS):
        stop = min(start + BLOCK_PAIRS, len(first))
        count = stop - start
        # mode="clip" lets NumPy write into `out` without a copy; all positions are valid.
        np.take(templates, first[start:stop], axis=0, out=one[:count], mode="clip")
        np.take(templates, second[start:stop], axis=0, out=two[:count], mode="clip")
        np.einsum("ij,ij->i", one[:count], two[:count], out=scores[start:stop])
    return scores


def check_unit_norms(embeddings: np.ndarray, where: str) -> np.ndarray:
    """Return 1 / length of each embedding, (N,) float32; raise RowError for length 0."""
    lengths = np.sqrt(np.einsum("ij,ij->i", embeddings, embeddings))
    bad = np.flatnonzero(~(np.isfinite(lengths) & (lengths > 0)))
    if len(bad):
        raise RowError(
            f"{where}: row {bad[0]}: the embedding has no direction, got length "
            f"{lengths[bad[0]]}; compute the embedding again"
        )
    return (1 / lengths).astype(np.float32)
