# SPDX-License-Identifier: Apache-2.0
"""Range loss: softmax with terms on the distances within and between classes."""

from typing import Annotated, Any

from heads.cross_entropy import LENGTH_EPSILON
from heads.head import NOT_FILTERED, NOT_SHARDED
from heads.mining import pairs, select, squared_distances
from heads.softmax import Softmax
from ranges import Within, above, at_least

# Placeholder for a missing squared distance; all squared distances are larger.
NO_DISTANCE = -1.0


class Range(Softmax):
    """Softmax with a pull within each class and a push between the two closest classes of a batch.

    softmax loss + intra_weight * sum over classes of the harmonic mean of the largest d^2
    + inter_weight * max(0, margin - D)

    Zhang et al., "Range Loss for Deep Face Recognition with Long-tail", arXiv:1611.08976, equations
    2 to 6.

    Symbols: d is the distance between two embeddings of a class in the batch; D is the smallest
    squared distance between the mean embeddings of two classes.

    A batch must contain several images of each person: set ``data.images_per_person``. Embeddings
    are not normalised. The default settings are the values of the paper.

    Parameters
    ----------
    intra_weight
        Factor on the pull within classes, alpha in the paper.
    inter_weight
        Factor on the push between classes, beta in the paper.
    largest
        Number of the largest distances within each class that are averaged, k in the paper.
    margin
        Two classes are pushed apart if the squared distance between their mean embeddings is below
        this value.
    """

    refused_settings = NOT_SHARDED | NOT_FILTERED

    def __init__(
        self,
        *sizes: int,
        intra_weight: Annotated[float, at_least(0, "the weight in the paper is 0.00005")] = 5e-5,
        inter_weight: Annotated[float, at_least(0, "the weight in the paper is 0.0001")] = 1e-4,
        largest: Annotated[int, Within(1, 8, "the number in the paper is 2")] = 2,
        margin: Annotated[float, above(0, "the margin in the paper is 20000")] = 2e4,
        **kwargs: Any,
    ) -> None:
        super().__init__(*sizes, **kwargs)
        self._intra_weight, self._inter_weight = intra_weight, inter_weight
        self._largest, self._margin = largest, margin

    def added_term(self, F: Any, embedding: Any, label: Any) -> Any:
        positive, negative = pairs(F, label)
        within = self._intra_weight * self._within(F, embedding, positive, negative)
        between = self._inter_weight * self._between(F, embedding, negative)
        return F.reshape(within + between, shape=(1,))

    def _within(self, F: Any, embedding: Any, positive: Any, negative: Any) -> Any:
        """Return the sum over classes of the harmonic mean of the largest squared distances.

        The output has the shape (1, 1).
        """
        place = F.contrib.arange_like(embedding, axis=0)
        earlier = F.broadcast_lesser(F.expand_dims(place, axis=0), F.expand_dims(place, axis=1))
        # Mask that marks each pair of images of one class once.
        once = positive * earlier
        # Mask of the first image of each class, shape (batch size, 1).
        first = F.sum(once, axis=1, keepdims=True) == 0
        distance = select(F, squared_distances(F, embedding), once, NO_DISTANCE)
        fill = F.slice_axis(distance, axis=1, begin=0, end=1) * 0.0 + NO_DISTANCE
        of_image = self._top(F, F.concat(distance, *[fill] * self._largest, dim=1))
        # Arrays (B, B): column j holds one of the largest distances of image j, and row i keeps
        # only the columns of images in the class of image i.
        rows = [
            select(F, F.broadcast_mul(F.ones_like(positive), row), 1.0 - negative, NO_DISTANCE)
            for row in map(F.transpose, F.split(of_image, self._largest, axis=1))
        ]
        top = self._top(F, F.concat(*rows, dim=1))
        exists = top > NO_DISTANCE / 2
        inverse = F.sum(exists / (F.relu(top) + LENGTH_EPSILON), axis=1, keepdims=True)
        mean = F.sum(exists, axis=1, keepdims=True) / F.maximum(inverse, LENGTH_EPSILON)
        return F.sum(mean * first, axis=0, keepdims=True)

    def _top(self, F: Any, values: Any) -> Any:
        return F.topk(values, k=self._largest, axis=1, ret_typ="value")

    def _between(self, F: Any, embedding: Any, negative: Any) -> Any:
        """Return how far the smallest squared distance between class means is below the margin.

        The output has the shape (1, 1). It is 0 if the distance is not below the margin.
        """
        same = 1.0 - negative
        means = F.broadcast_div(F.dot(same, embedding), F.sum(same, axis=1, keepdims=True))
        distance = select(F, squared_distances(F, means), negative, self._margin)
        flat = F.reshape(distance, shape=(1, -1))
        # Use argmin and pick instead of min: min passes its gradient to all equal distances.
        return F.relu(self._margin - F.pick(flat, F.argmin(flat, axis=1), axis=1, keepdims=True))
