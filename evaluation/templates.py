# SPDX-License-Identifier: Apache-2.0
"""Templates: one embedding for several images of a person, and scores of pairs of templates.

To make a template, average the embeddings of the images of each medium, add up these averages, and
scale the sum to length 1.  A medium is a still image, or a video of which the template has several
frames.  The embedding of each image may be multiplied by a weight.  InsightFace's evaluation of
IJB-B and IJB-C has these rules.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from evaluation.row_sources import RowError

BLOCK_TEMPLATES = 512
"""Number of templates whose sums are computed at once.

With 512 values per template, these sums occupy 1 MiB.
"""
BLOCK_PAIRS = 128
"""Number of pairs that are scored at once.

With 512 values per template, their templates occupy 512 KiB, which fit into a cache of the CPU.
"""
MAX_THREADS = 4


class TemplateError(ValueError):
    """Templates cannot be made or compared; the message is one sentence for the user."""


@dataclass(frozen=True)
class ImageGroups:
    """N images grouped by their T templates.

    Parameters
    ----------
    numbers
        IDs of the templates in ascending order, (T,) int.
    order
        Indices of the images, those of the first template first, (N,) int.
    starts
        Position in `order` of the first image of each template; the last value is N, (T + 1,) int.
    shares
        For each image in `order`, 1 / (number of images of the same medium in the template), (N,)
        float32.
    """

    numbers: np.ndarray
    order: np.ndarray
    starts: np.ndarray
    shares: np.ndarray


def group_images(templates: np.ndarray, media: np.ndarray) -> ImageGroups:
    """Group images by their templates and media.

    Inputs
    ------
    templates (N,) int, the ID of each image's template; media (N,) int, the ID of each image's
    medium; N is at least 1.
    """
    order = _sorting_order(templates, media)
    templates, media = templates[order], media[order]
    new_template = np.concatenate([[True], templates[1:] != templates[:-1]])
    new_medium = new_template.copy()
    new_medium[1:] |= media[1:] != media[:-1]
    starts = np.flatnonzero(new_template)
    sizes = np.diff(np.append(np.flatnonzero(new_medium), len(order)))
    return ImageGroups(
        templates[starts],
        order,
        np.append(starts, len(order)),
        np.repeat((1 / sizes).astype(np.float32), sizes),
    )


def _sorting_order(templates: np.ndarray, media: np.ndarray) -> np.ndarray:
    """Return the image indices sorted by template, then by medium, then by index, (N,) int."""
    lowest, span = int(media.min()), int(media.max()) - int(media.min()) + 1
    count = int(templates.max()) - int(templates.min()) + 1
    if count * span >= 1 << 63:
        return np.lexsort((media, templates))
    # Combine template and medium into one number: sorting by one number takes half of the time of
    # sorting by two.
    places = templates - templates.min()
    numbers = places * span + (media - lowest)
    if count > 1 << 16 or (templates[1:] >= templates[:-1]).all():
        return np.argsort(numbers, kind="stable")
    # NumPy's stable sort of 16-bit numbers is a radix sort, which is fast.  After this sort, the
    # images of each template are adjacent, so that the sort by `numbers` is fast, too.
    order = np.argsort(places.astype(np.uint16), kind="stable")
    return order[np.argsort(numbers[order], kind="stable")]


def pool_templates(
    embeddings: np.ndarray, groups: ImageGroups, weights: np.ndarray | None = None
) -> np.ndarray:
    """Add up the mean embeddings of the media of each template; scale each sum to length 1.

    Threads add up blocks of templates, and read each embedding once.

    Inputs
    ------
    embeddings (N, E) float32; weights (N,) float, the factor of each embedding, or None for the
    factor 1.

    Outputs
    -------
    Templates in the order of ``groups.numbers``, (T, E) float32.

    Raises
    ------
    TemplateError
        If a sum is 0 or not finite.
    """
    factors = groups.shares
    if weights is not None:
        factors = factors * weights.astype(np.float32)[groups.order]
    found = np.empty((len(groups.numbers), embeddings.shape[1]), np.float32)

    def pool_block(start: int) -> None:
        stop = min(start + BLOCK_TEMPLATES, len(found))
        sums = _add_block(embeddings, groups, factors, start, stop)
        lengths = np.sqrt(np.einsum("ij,ij->i", sums, sums))
        bad = np.flatnonzero(~(np.isfinite(lengths) & (lengths > 0)))
        if len(bad):
            raise TemplateError(
                f"template {groups.numbers[start + bad[0]]}: the sum of the embeddings cannot be "
                f"normalised, got L2 norm {lengths[bad[0]]}; compute the embeddings again"
            )
        np.divide(sums, lengths[:, None], out=found[start:stop])

    threads = min(MAX_THREADS, len(os.sched_getaffinity(0)))
    with ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(pool_block, range(0, len(found), BLOCK_TEMPLATES)):
            pass
    return found


def _add_block(
    embeddings: np.ndarray, groups: ImageGroups, factors: np.ndarray, start: int, stop: int
) -> np.ndarray:
    """Return the sums of templates `start` to `stop` - 1 of ``groups.numbers``, float32."""
    from scipy.sparse import csr_array  # Imported late: importing takes 0.3 s.

    first, last = groups.starts[start], groups.starts[stop]
    # Row t of the sparse matrix has the factors of the images of template `start` + t.
    matrix = csr_array(
        (
            factors[first:last],
            groups.order[first:last],
            groups.starts[start : stop + 1] - first,
        ),
        shape=(stop - start, len(groups.order)),
    )
    return matrix @ embeddings


def find_templates(numbers: np.ndarray, wanted: np.ndarray, where: str) -> np.ndarray:
    """Return the position of each wanted template ID in the sorted IDs `numbers`, (len(wanted),).

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
    templates (T, E) float32 of unit length; first (P,) and second (P,) int, positions in
    `templates`.

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


def inverse_norms(embeddings: np.ndarray, where: str) -> np.ndarray:
    """Return the factor that scales each embedding to length 1, (N,) float32.

    Raise RowError if the length of an embedding is 0 or not finite.
    """
    lengths = np.sqrt(np.einsum("ij,ij->i", embeddings, embeddings))
    bad = np.flatnonzero(~(np.isfinite(lengths) & (lengths > 0)))
    if len(bad):
        raise RowError(
            f"{where}: row {bad[0]}: the embedding cannot be normalised, got L2 norm "
            f"{lengths[bad[0]]}; compute the embedding again"
        )
    return (1 / lengths).astype(np.float32)
