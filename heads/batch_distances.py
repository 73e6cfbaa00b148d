# SPDX-License-Identifier: Apache-2.0
"""Softmax and distances between the images of a batch: Range loss and Marginal loss.

Both want people more than once in a batch: `data.images_per_person`.
"""

import math

from heads.checks import check_count, check_number
from heads.cross_entropy import LENGTH_EPSILON, normalised
from heads.mining import mean_over, only, pairs
from heads.softmax import Softmax, check_classes

MOST_PAIRS = 8  # largest distances within a person that Range loss may take
NONE = -1.0  # below every distance


class Range(Softmax):
    """Softmax, the largest distances within people, the smallest between two: see `range_loss`."""

    def __init__(
        self,
        num_classes: int,
        embedding_size: int,
        intra_weight: float,
        inter_weight: float,
        largest: int,
        margin: float,
        **kwargs,
    ) -> None:
        super().__init__(num_classes, embedding_size, **kwargs)
        self._intra_weight, self._inter_weight = intra_weight, inter_weight
        self._largest, self._margin = largest, margin

    def _beside(self, F, embedding, label):
        positive, negative = pairs(F, label)
        within = self._intra_weight * self._within(F, embedding, positive, negative)
        between = self._inter_weight * self._between(F, embedding, negative)
        return F.reshape(within + between, shape=(1,))

    def _within(self, F, embedding, positive, negative):
        """Return the sum over the people of the mean of their largest distances, (1, 1)."""
        place = F.contrib.arange_like(embedding, axis=0)
        earlier = F.broadcast_lesser(F.expand_dims(place, axis=0), F.expand_dims(place, axis=1))
        once = positive * earlier
        first = F.sum(once, axis=1, keepdims=True) == 0  # (B, 1): one row for each person
        distance = only(F, _squared_distances(F, embedding), once, NONE)
        fill = F.slice_axis(distance, axis=1, begin=0, end=1) * 0.0 + NONE
        of_image = self._top(F, F.concat(distance, *[fill] * self._largest, dim=1))
        # In each row what the images of its person have.
        of_person = F.concat(
            *(
                only(F, F.broadcast_mul(F.ones_like(positive), row), 1.0 - negative, NONE)
                for row in self._columns_of(F, of_image)
            ),
            dim=1,
        )
        top = self._top(F, of_person)
        there = top > NONE / 2
        inverse = F.sum(there / (F.relu(top) + LENGTH_EPSILON), axis=1, keepdims=True)
        mean = F.sum(there, axis=1, keepdims=True) / F.maximum(inverse, LENGTH_EPSILON)
        return F.sum(mean * first, axis=0, keepdims=True)

    def _top(self, F, values):
        return F.topk(values, k=self._largest, axis=1, ret_typ="value")

    def _columns_of(self, F, values):
        for place in range(self._largest):
            yield F.transpose(F.slice_axis(values, axis=1, begin=place, end=place + 1))

    def _between(self, F, embedding, negative):
        """Return by how much the smallest distance between people is below the margin, (1, 1)."""
        same = 1.0 - negative
        means = F.broadcast_div(F.dot(same, embedding), F.sum(same, axis=1, keepdims=True))
        distance = only(F, _squared_distances(F, means), negative, self._margin)
        flat = F.reshape(distance, shape=(1, -1))
        # argmin and pick, not min, which would give its gradient to all that are alike.
        return F.relu(self._margin - F.pick(flat, F.argmin(flat, axis=1), axis=1, keepdims=True))


class Marginal(Softmax):
    """Softmax and a threshold on the distances of all pairs of the batch: see `marginal`."""

    def __init__(
        self,
        num_classes: int,
        embedding_size: int,
        marginal_weight: float,
        theta: float,
        xi: float,
        **kwargs,
    ) -> None:
        super().__init__(num_classes, embedding_size, **kwargs)
        self._marginal_weight, self._theta, self._xi = marginal_weight, theta, xi

    def _beside(self, F, embedding, label):
        positive, negative = pairs(F, label)
        distance = _squared_distances(F, normalised(F, embedding))
        beyond = F.relu(self._xi - (positive - negative) * (self._theta - distance))
        return self._marginal_weight * mean_over(F, beyond, positive + negative)


def _squared_distances(F, rows):
    """Return |x_i - x_j|^2, (B, B); rounding would go below 0."""
    squares = F.sum(F.square(rows), axis=1, keepdims=True)
    both = F.broadcast_add(squares, F.transpose(squares))
    return F.relu(both - 2.0 * F.dot(rows, rows, transpose_b=True))


def range_loss(
    num_classes: int,
    embedding_size: int,
    *,
    intra_weight: float = 5e-5,
    inter_weight: float = 1e-4,
    largest: int = 2,
    margin: float = 2e4,
    use_bias: bool = False,
) -> Range:
    """Build a softmax that also shrinks the range of each person and parts the nearest two.

    To the loss of every image comes intra_weight times the sum over the people of the batch of the
    harmonic mean of their largest squared distances, plus inter_weight max(0, margin - D), where D
    is the smallest squared distance between the means of two people.

    Parameters
    ----------
    num_classes, embedding_size
        Number of classes, length of the embedding.
    intra_weight, inter_weight
        Alpha and beta, from 0.
    largest
        How many of the largest distances k, 1 to 8.
    margin
        Squared distance up to which people are parted, above 0.
    use_bias
        Whether each class has a bias in the softmax.

    Raises
    ------
    ValueError
        If a value is out of range or of the wrong type.

    Notes
    -----
    Zhang et al., "Range Loss for Deep Face Recognition with Long-tail", arXiv:1611.08976, equations
    2 to 6; the values are its own, for embeddings that are not normalised.
    """
    largest = check_count("head.largest", largest, 1, advice="2 is the paper's")
    if largest > MOST_PAIRS:
        raise ValueError(f"head.largest: at most {MOST_PAIRS}, got {largest}; 2 is the paper's")
    return Range(
        **check_classes(num_classes, embedding_size, use_bias),
        intra_weight=check_number(
            "head.intra_weight", intra_weight, 0, math.inf, advice="0.00005 is the paper's"
        ),
        inter_weight=check_number(
            "head.inter_weight", inter_weight, 0, math.inf, advice="0.0001 is the paper's"
        ),
        largest=largest,
        margin=check_number(
            "head.margin", margin, 0, math.inf, open_low=True, advice="20000 is the paper's"
        ),
    )


def marginal(
    num_classes: int,
    embedding_size: int,
    *,
    marginal_weight: float = 1.0,
    theta: float = 1.2,
    xi: float = 0.3,
    use_bias: bool = False,
) -> Marginal:
    """Build a softmax that also parts all pairs of the batch at a squared distance.

    To the loss of image i comes marginal_weight times the mean over all others j of
    max(0, xi - s (theta - d^2)), s = 1 for the same person and -1 else, d = |x_i - x_j| of the
    normalised embeddings.

    Parameters
    ----------
    num_classes, embedding_size
        Number of classes, length of the embedding.
    marginal_weight
        Lambda, from 0.
    theta
        Squared distance that parts same from other, 0 to 4.
    xi
        Margin on either side of it, from 0.
    use_bias
        Whether each class has a bias in the softmax.

    Raises
    ------
    ValueError
        If a value is out of range or of the wrong type.

    Notes
    -----
    Deng et al., "Marginal Loss for Deep Face Recognition", CVPRW 2017, equations 3 and 4.
    """
    return Marginal(
        **check_classes(num_classes, embedding_size, use_bias),
        marginal_weight=check_number(
            "head.marginal_weight", marginal_weight, 0, math.inf, advice="1 is usual"
        ),
        theta=check_number("head.theta", theta, 0, 4, advice="1.2 is usual"),
        xi=check_number("head.xi", xi, 0, math.inf, advice="0.3 is usual"),
    )
