# SPDX-License-Identifier: Apache-2.0
"""Range loss."""

from typing import Annotated

from heads.cross_entropy import LENGTH_EPSILON
from heads.mining import only, pairs, squared_distances
from heads.softmax import Softmax
from ranges import Within, above, at_least

NONE = -1.0  # below every distance


class Range(Softmax):
    """Softmax that also shrinks the range of each person and parts the nearest two.

    softmax; + intra_weight sum of harmonic means of largest d^2; + inter_weight max(0, margin - D)

    Zhang et al., "Range Loss for Deep Face Recognition with Long-tail", arXiv:1611.08976, equations
    2 to 6.

    d are the distances within each person of the batch, D is the least squared distance between the
    means of two people. Batches must show people more than once: ``data.images_per_person``. The
    values are its own, for embeddings that are not normalised.

    Parameters
    ----------
    intra_weight, inter_weight
        Factors on what is within and between people, alpha and beta in the paper.
    largest
        Number of largest distances k.
    margin
        Squared distance up to which people are parted.
    """

    def __init__(
        self,
        num_classes: int,
        embedding_size: int,
        *,
        intra_weight: Annotated[float, at_least(0, "0.00005 is the paper's")] = 5e-5,
        inter_weight: Annotated[float, at_least(0, "0.0001 is the paper's")] = 1e-4,
        largest: Annotated[int, Within(1, 8, "2 is the paper's")] = 2,
        margin: Annotated[float, above(0, "20000 is the paper's")] = 2e4,
        use_bias: bool = False,
        **kwargs,
    ) -> None:
        super().__init__(num_classes, embedding_size, use_bias=use_bias, **kwargs)
        self._intra_weight, self._inter_weight = intra_weight, inter_weight
        self._largest, self._margin = largest, margin

    def added_term(self, F, embedding, label):
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
        distance = only(F, squared_distances(F, embedding), once, NONE)
        fill = F.slice_axis(distance, axis=1, begin=0, end=1) * 0.0 + NONE
        of_image = self._top(F, F.concat(distance, *[fill] * self._largest, dim=1))
        # In each row what the images of its person have.
        rows = [
            only(F, F.broadcast_mul(F.ones_like(positive), row), 1.0 - negative, NONE)
            for row in self._columns_of(F, of_image)
        ]
        of_person = F.concat(*rows, dim=1)
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
        distance = only(F, squared_distances(F, means), negative, self._margin)
        flat = F.reshape(distance, shape=(1, -1))
        # argmin and pick, not min, which would give its gradient to all that are alike.
        return F.relu(self._margin - F.pick(flat, F.argmin(flat, axis=1), axis=1, keepdims=True))
