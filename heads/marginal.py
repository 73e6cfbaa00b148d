# SPDX-License-Identifier: Apache-2.0
"""Marginal loss."""

from typing import Annotated, Any

from heads.cross_entropy import normalised
from heads.mining import mean_over, pairs, squared_distances
from heads.softmax import Softmax
from ranges import Within, at_least


class Marginal(Softmax):
    """Softmax with a threshold, common to all pairs of the batch, on their squared distances.

    softmax; + marginal_weight mean over j of max(0, xi -+ (theta - d^2)), - of one person, + of two

    Deng et al., "Marginal Loss for Deep Face Recognition", CVPRW 2017, equations 3 and 4.

    d = |x_i - x_j| of the normalised embeddings. A batch must contain several images of a person:
    ``data.images_per_person``.

    Parameters
    ----------
    marginal_weight
        Factor on the term of the pairs, lambda in the paper.
    theta
        Squared distance that separates pairs of one person from pairs of two.
    xi
        Margin on both sides of theta.
    """

    def __init__(
        self,
        *sizes: int,
        marginal_weight: Annotated[float, at_least(0, "1 is usual")] = 1.0,
        theta: Annotated[float, Within(0, 4, "1.2 is usual")] = 1.2,
        xi: Annotated[float, at_least(0, "0.3 is usual")] = 0.3,
        **kwargs: Any,
    ) -> None:
        super().__init__(*sizes, **kwargs)
        self._marginal_weight, self._theta, self._xi = marginal_weight, theta, xi

    def added_term(self, F: Any, embedding: Any, label: Any) -> Any:
        positive, negative = pairs(F, label)
        distance = squared_distances(F, normalised(F, embedding))
        loss = F.relu(self._xi - (positive - negative) * (self._theta - distance))
        return self._marginal_weight * mean_over(F, loss, positive + negative)
