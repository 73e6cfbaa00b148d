# SPDX-License-Identifier: Apache-2.0
"""Pairs and triplets of a batch, selected on the device.

Functions take ``mx.nd`` or ``mx.sym`` as ``F``. The rows of (B, B) arrays are anchors; masks are 0
or 1. The selection carries no gradient; the selected distances do.
"""

from typing import Any

MAX_DISTANCE = 1e9
"""Larger than every distance and angle between embeddings of length 1."""
ROUNDING = 1e-6
"""Largest rounding error of a float32 distance."""


def pairs(F: Any, label: Any) -> tuple[Any, Any]:
    """Return masks of the other images of the anchor's person and of the images of other people.

    Inputs
    ------
    label : (B,)

    Outputs
    -------
    positive, negative : (B, B) float32
    """
    label = F.cast(label, dtype="float32")  # exact up to 2**24 people
    place = F.contrib.arange_like(label)
    same, itself = (
        F.broadcast_equal(F.expand_dims(row, axis=1), F.expand_dims(row, axis=0))
        for row in (label, place)
    )
    return same - itself, 1.0 - same


def squared_distances(F: Any, rows: Any, products: Any = None) -> Any:
    """Return |x_i - x_j|^2, (B, B), from the rows (B, E) and, if known, their products (B, B)."""
    squares = F.sum(F.square(rows), axis=1, keepdims=True)
    both = F.broadcast_add(squares, F.transpose(squares))
    products = F.dot(rows, rows, transpose_b=True) if products is None else products
    return F.relu(both - 2.0 * products)  # a rounding error can make it negative


def mean_over(F: Any, values: Any, mask: Any) -> Any:
    """Return the mean of the masked values of each row, 0 if there are none: (B,)."""
    return F.sum(values * mask, axis=1) / F.maximum(F.sum(mask, axis=1), 1.0)


def select(F: Any, values: Any, mask: Any, otherwise: float) -> Any:
    """Return the values where the mask is 1, and a number elsewhere."""
    return values * mask + otherwise * (1.0 - mask)


def hardest(F: Any, distance: Any, positive: Any, negative: Any) -> tuple[Any, Any]:
    """Return the distances to the farthest positive and to the nearest negative, (B,) each.

    Without a positive or a negative, the number is the distance to some other image.
    """
    # argmax and pick, not max: max passes its gradient to all equal distances.
    fixed = F.BlockGrad(distance)
    farthest = F.argmax(select(F, fixed, positive, -1.0), axis=1)
    nearest = F.argmin(select(F, fixed, negative, MAX_DISTANCE), axis=1)
    return F.pick(distance, farthest, axis=1), F.pick(distance, nearest, axis=1)


def semi_hard(F: Any, distance: Any, positive: Any, negative: Any) -> Any:
    """Return for each anchor and positive the distance to the nearest negative beyond it, (B, B).

    If no negative lies beyond the positive, the farthest negative is used. The number is undefined
    if there is no negative or the column is not a positive.

    Notes
    -----
    Schroff et al., "FaceNet", arXiv:1503.03832, section 3.2. It sorts, because a comparison of all
    positives with all negatives needs an array of (B, B, B).
    """
    fixed = F.BlockGrad(distance)
    # An equal distance is not beyond; rounding errors separate equal distances.
    key = select(F, fixed + ROUNDING * positive, positive + negative, MAX_DISTANCE)
    order = F.argsort(key, axis=1)  # the anchor is last
    nearer = F.cumsum(_along(F, negative, order), axis=1)
    nearer = _along(F, nearer, F.argsort(order, axis=1))  # number of negatives before each image
    last = F.maximum(F.sum(negative, axis=1, keepdims=True) - 1.0, 0.0)
    place = F.broadcast_minimum(nearer, last)
    negatives = F.argsort(select(F, fixed, negative, MAX_DISTANCE), axis=1)
    return _along(F, distance, _along(F, negatives, place))


def _along(F: Any, rows: Any, column: Any) -> Any:
    """Return ``rows[i, column[i, j]]``, (B, B)."""
    place = F.expand_dims(F.contrib.arange_like(rows, axis=0), axis=1)
    return F.gather_nd(rows, F.stack(F.broadcast_like(place, column), column, axis=0))
