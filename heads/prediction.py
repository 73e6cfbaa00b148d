# SPDX-License-Identifier: Apache-2.0
"""Predict the class of each embedding: the class with the largest logit without margin."""

from typing import Any

import mxnet as mx

from heads.cross_entropy import normalised

BLOCK_CENTRES = 8192
"""Number of class centres whose logits are in memory at the same time."""


def nearest_centre(rows: mx.nd.NDArray, centres: mx.nd.NDArray, **options: Any) -> mx.nd.NDArray:
    """Return the index of the centre with the largest score for each row, (B,).

    `largest_score` describes inputs and options.
    """
    return largest_score(rows, centres, **options)[1]


def largest_score(
    rows: mx.nd.NDArray,
    centres: mx.nd.NDArray,
    *,
    unit_columns: bool = True,
    squares: bool = False,
    bias: mx.nd.NDArray | None = None,
) -> tuple[mx.nd.NDArray, mx.nd.NDArray]:
    """Return the largest score of each row and the index of its centre, as device arrays.

    The score is the inner product of a row and a centre. `heads.cross_entropy.Form` describes
    ``unit_columns`` and ``squares``. Of several equal scores the first one counts as the largest.
    The host does not wait for the device.

    Inputs
    ------
    rows : (B, E) float32
        B embeddings of E dimensions. Their norms change the order of the scores only with ``bias``
        or ``squares``.
    centres : (N, E) float32
        N class centres.
    bias : (N,) float32, optional
        Number added to the score of each centre.

    Outputs
    -------
    score : (B,) float32
        Largest score.
    number : (B,) float32
        Index of the centre with this score, from 0 to N - 1; exact for up to 2**24 centres.
    """
    tops, places = [], []
    for start in range(0, centres.shape[0], BLOCK_CENTRES):
        block = centres[start : start + BLOCK_CENTRES]
        if unit_columns:
            block = normalised(mx.nd, block)
        # FullyConnected takes half the time of dot here.
        scores = mx.nd.FullyConnected(rows, block, num_hidden=block.shape[0], no_bias=True)
        if squares:
            lengths = mx.nd.square(block).sum(axis=1).expand_dims(0)
            scores = mx.nd.broadcast_sub(scores, 0.5 * lengths)
        if bias is not None:
            own = bias[start : start + BLOCK_CENTRES].expand_dims(0)
            scores = mx.nd.broadcast_add(scores, own)
        tops.append(scores.max(axis=1))
        places.append(scores.argmax(axis=1) + start)
    if len(tops) == 1:
        return tops[0], places[0]
    return first_largest(mx.nd.stack(*tops, axis=1), mx.nd.stack(*places, axis=1))


def first_largest(
    scores: mx.nd.NDArray, numbers: mx.nd.NDArray
) -> tuple[mx.nd.NDArray, mx.nd.NDArray]:
    """Return the first largest score of each row, and the number at the same position, (B,) each.

    ``scores`` and ``numbers`` have the shape (B, n).
    """
    place = scores.argmax(axis=1)
    return mx.nd.pick(scores, place, axis=1), mx.nd.pick(numbers, place, axis=1)
