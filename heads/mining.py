# SPDX-License-Identifier: Apache-2.0
"""Who is whose positive in a batch, and which negative makes a triplet: all of it on the device.

Functions take ``mx.nd`` or ``mx.sym`` as ``F``; (B, B) arrays have anchors as rows and are 1 where
something holds, else 0.  What is chosen carries no gradient; the distances taken by it do.
"""

FAR = 1e9
"""Beyond every distance and angle between embeddings of length 1."""
ROUNDING = 1e-6
"""By which float32 may miss a distance."""


def pairs(F, label):
    """Return the images of the same person as the anchor, without itself, and of other people.

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


def squared_distances(F, rows, products=None):
    """Return |x_i - x_j|^2, (B, B), from the rows (B, E) and, if known, their products (B, B)."""
    squares = F.sum(F.square(rows), axis=1, keepdims=True)
    both = F.broadcast_add(squares, F.transpose(squares))
    products = F.dot(rows, rows, transpose_b=True) if products is None else products
    return F.relu(both - 2.0 * products)  # rounding would go below 0


def mean_over(F, values, chosen):
    """Return the mean of the chosen values of each row, 0 where there are none: (B,)."""
    return F.sum(values * chosen, axis=1) / F.maximum(F.sum(chosen, axis=1), 1.0)


def only(F, values, chosen, otherwise):
    """Return the values where they are chosen, and a number elsewhere."""
    return values * chosen + otherwise * (1.0 - chosen)


def hardest(F, distance, positive, negative):
    """Return the distance to the farthest positive and to the nearest negative, (B,) each.

    Where there is none it is that of some other image.
    """
    # argmax and pick, not max: where two are alike, max would give the gradient to each of them.
    fixed = F.BlockGrad(distance)
    farthest = F.argmax(only(F, fixed, positive, -1.0), axis=1)
    nearest = F.argmin(only(F, fixed, negative, FAR), axis=1)
    return F.pick(distance, farthest, axis=1), F.pick(distance, nearest, axis=1)


def semi_hard(F, distance, positive, negative):
    """Return for each anchor and positive the distance to the nearest negative beyond that one.

    Where none lies beyond it, the farthest negative is taken; where there is no negative, or the
    column is no positive, the number means nothing.

    Outputs
    -------
    distance : (B, B) float32

    Notes
    -----
    Schroff et al., "FaceNet", arXiv:1503.03832, section 3.2. By sorting: comparing every positive
    with every negative would need an array of (B, B, B).
    """
    fixed = F.BlockGrad(distance)
    # An equal distance is not beyond; rounding makes some of equal ones.
    key = only(F, fixed + ROUNDING * positive, positive + negative, FAR)
    order = F.argsort(key, axis=1)  # the anchor last
    passed = F.cumsum(_along(F, negative, order), axis=1)
    passed = _along(F, passed, F.argsort(order, axis=1))  # negatives that lie before each image
    last = F.maximum(F.sum(negative, axis=1, keepdims=True) - 1.0, 0.0)
    place = F.broadcast_minimum(passed, last)
    negatives = F.argsort(only(F, fixed, negative, FAR), axis=1)
    return _along(F, distance, _along(F, negatives, place))


def _along(F, rows, column):
    """Return ``rows[i, column[i, j]]``, (B, B)."""
    place = F.expand_dims(F.contrib.arange_like(rows, axis=0), axis=1)
    return F.gather_nd(rows, F.stack(F.broadcast_like(place, column), column, axis=0))
