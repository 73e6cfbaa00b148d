# SPDX-License-Identifier: Apache-2.0
"""Selection of pairs and triplets from a batch, on the device.

Functions take ``mx.nd`` or ``mx.sym`` as ``F``. B is the number of images in the batch. In arrays
of shape (B, B), row i belongs to image i as the anchor. Masks contain 0 and 1. A positive of an
anchor is another image of the same person, a negative is an image of another person. Gradients flow
through the selected distances, not through the selection.
"""

from typing import Any

MAX_DISTANCE = 1e9
"""Number larger than every distance and every angle between embeddings of L2 norm 1."""
ROUNDING = 1e-6
"""Largest rounding error of a float32 distance between embeddings of L2 norm 1."""


def pairs(F: Any, label: Any) -> tuple[Any, Any]:
    """Return two masks of the pairs of a batch: pairs of the same person, and pairs of two people.

    Inputs
    ------
    label : (B,)
        Person of each of the B images.

    Outputs
    -------
    positive : (B, B) float32
        1 where images i and j are different images of the same person, else 0.
    negative : (B, B) float32
        1 where images i and j show two people, else 0.
    """
    label = F.cast(label, dtype="float32")  # float32 holds labels exactly up to 2**24
    place = F.contrib.arange_like(label)
    same, itself = (
        F.broadcast_equal(F.expand_dims(row, axis=1), F.expand_dims(row, axis=0))
        for row in (label, place)
    )
    return same - itself, 1.0 - same


def squared_distances(F: Any, rows: Any, products: Any = None) -> Any:
    """Return the squared distances |x_i - x_j|^2 of all pairs of rows, shape (B, B).

    ``rows`` has the shape (B, E). ``products`` are the inner products of all pairs of rows, shape
    (B, B); the function computes them if they are not given.
    """
    squares = F.sum(F.square(rows), axis=1, keepdims=True)
    both = F.broadcast_add(squares, F.transpose(squares))
    products = F.dot(rows, rows, transpose_b=True) if products is None else products
    return F.relu(both - 2.0 * products)  # rounding can make a square negative


def mean_over(F: Any, values: Any, mask: Any) -> Any:
    """Return, for each row of ``values``, the mean of the elements with mask 1, shape (B,).

    The mean of a row whose mask is 0 everywhere is 0.
    """
    return F.sum(values * mask, axis=1) / F.maximum(F.sum(mask, axis=1), 1.0)


def select(F: Any, values: Any, mask: Any, otherwise: float) -> Any:
    """Return ``values`` where the mask is 1, and the number ``otherwise`` where the mask is 0."""
    return values * mask + otherwise * (1.0 - mask)


def hardest(F: Any, distance: Any, positive: Any, negative: Any) -> tuple[Any, Any]:
    """Return the distance of each anchor to its farthest positive and to its nearest negative.

    Both outputs have the shape (B,). The distance to a positive is undefined for an anchor without
    positives, the distance to a negative for an anchor without negatives.
    """
    # Use argmax and pick instead of max: max passes its gradient to all equally large distances.
    fixed = F.BlockGrad(distance)
    farthest = F.argmax(select(F, fixed, positive, -1.0), axis=1)
    nearest = F.argmin(select(F, fixed, negative, MAX_DISTANCE), axis=1)
    return F.pick(distance, farthest, axis=1), F.pick(distance, nearest, axis=1)


def semi_hard(F: Any, distance: Any, positive: Any, negative: Any) -> Any:
    """Return the distance from each anchor to the semi-hard negative of each of its positives.

    The output has the shape (B, B): row i is the anchor, column j the positive. The semi-hard
    negative is the nearest negative that is farther from the anchor than the positive; if no
    negative is farther, it is the farthest negative. A number is undefined if the anchor has no
    negative or if image j is not a positive of image i.

    Notes
    -----
    Schroff et al., "FaceNet", arXiv:1503.03832, section 3.2. The function sorts distances, because
    a comparison of all positives with all negatives needs an array of shape (B, B, B).
    """
    fixed = F.BlockGrad(distance)
    # A negative at the same distance as the positive does not count as farther: ROUNDING sorts the
    # negative before the positive, even if rounding errors separate the two distances.
    key = select(F, fixed + ROUNDING * positive, positive + negative, MAX_DISTANCE)
    order = F.argsort(key, axis=1)
    # Number of negatives that come before each image in ``order``; the anchor comes last.
    nearer = F.cumsum(_along(F, negative, order), axis=1)
    nearer = _along(F, nearer, F.argsort(order, axis=1))
    last = F.maximum(F.sum(negative, axis=1, keepdims=True) - 1.0, 0.0)
    place = F.broadcast_minimum(nearer, last)
    negatives = F.argsort(select(F, fixed, negative, MAX_DISTANCE), axis=1)
    return _along(F, distance, _along(F, negatives, place))


def _along(F: Any, rows: Any, column: Any) -> Any:
    """Return the array of the elements ``rows[i, column[i, j]]``, shape (B, B)."""
    place = F.expand_dims(F.contrib.arange_like(rows, axis=0), axis=1)
    return F.gather_nd(rows, F.stack(F.broadcast_like(place, column), column, axis=0))
