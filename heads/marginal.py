# SPDX-License-Identifier: Apache-2.0
"""Marginal loss."""

from typing import Annotated

from heads.cross_entropy import normalised
from heads.mining import mean_over, pairs, squared_distances
from heads.softmax import Softmax
from ranges import Within, at_least


class Marginal(Softmax):
    """Softmax that also parts all pairs of the batch at a squared distance.

    softmax; + marginal_weight mean over j of max(0, xi -+ (theta - d^2)), - of one person, + of two

    Deng et al., "Marginal Loss for Deep Face Recognition", CVPRW 2017, equations 3 and 4.

    d = |x_i - x_j| of the normalised embeddings. Batches must show people more than once:
    ``data.images_per_person``.

    Parameters
    ----------
    marginal_weight
        Factor on the pairs, lambda in the paper.
    theta
        Squared distance that parts pairs of one person from pairs of two.
    xi
        Margin on either side of it.
    """

    def __init__(
        self,
        num_classes: int,
        embedding_size: int,
        *,
        marginal_weight: Annotated[float, at_least(0, "1 is usual")] = 1.0,
        theta: Annotated[float, Within(0, 4, "1.2 is usual")] = 1.2,
        xi: Annotated[float, at_least(0, "0.3 is usual")] = 0.3,
        use_bias: bool = False,
        **kwargs,
    ) -> None:
        super().__init__(num_classes, embedding_size, use_bias=use_bias, **kwargs)
        self._marginal_weight, self._theta, self._xi = marginal_weight, theta, xi

    def added_term(self, F, embedding, label):
        positive, negative = pairs(F, label)
        distance = squared_distances(F, normalised(F, embedding))
        beyond = F.relu(self._xi - (positive - negative) * (self._theta - distance))
        return self._marginal_weight * mean_over(F, beyond, positive + negative)
