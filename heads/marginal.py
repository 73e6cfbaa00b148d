# SPDX-License-Identifier: Apache-2.0
"""Marginal loss: softmax with a threshold on the distances of pairs."""

from typing import Annotated, Any

from heads.cross_entropy import normalised
from heads.head import NOT_FILTERED, NOT_SHARDED
from heads.mining import mean_over, pairs, squared_distances
from heads.softmax import Softmax
from ranges import Within, at_least


class Marginal(Softmax):
    """Softmax with one threshold on the squared distances of all pairs of images in the batch.

    softmax loss + marginal_weight * mean over other images j of max(0, xi - (theta - d^2)) if i and
    j show the same person, else max(0, xi + (theta - d^2))

    Deng et al., "Marginal Loss for Deep Face Recognition", CVPRW 2017, equations 3 and 4.

    Symbols: d = |x_i - x_j| is the distance between the normalised embeddings of images i and j.

    A batch must contain several images of each person: set ``data.images_per_person``.

    Parameters
    ----------
    marginal_weight
        Factor on the added term, the mean over pairs of images; lambda in the paper.
    theta
        Squared distance that separates pairs of images of the same person (below theta) from pairs
        of two people (above theta).
    xi
        Margin that squared distances must keep from theta, on either side.
    """

    refused_settings = NOT_SHARDED | NOT_FILTERED

    def __init__(
        self,
        *sizes: int,
        marginal_weight: Annotated[float, at_least(0, "the usual weight is 1")] = 1.0,
        theta: Annotated[float, Within(0, 4, "the usual theta is 1.2")] = 1.2,
        xi: Annotated[float, at_least(0, "the usual margin is 0.3")] = 0.3,
        **kwargs: Any,
    ) -> None:
        super().__init__(*sizes, **kwargs)
        self._marginal_weight, self._theta, self._xi = marginal_weight, theta, xi

    def added_term(self, F: Any, embedding: Any, label: Any) -> Any:
        positive, negative = pairs(F, label)
        distance = squared_distances(F, normalised(F, embedding))
        loss = F.relu(self._xi - (positive - negative) * (self._theta - distance))
        return self._marginal_weight * mean_over(F, loss, positive + negative)
