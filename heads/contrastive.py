# SPDX-License-Identifier: Apache-2.0
"""Contrastive loss."""

from typing import Annotated, Any

from heads.cross_entropy import LENGTH_EPSILON
from heads.metric import Batch, PairLoss
from heads.mining import mean_over, squared_distances
from ranges import Within

Margin = Annotated[float, Within(0, 2, "1 is usual", open_low=True)]


class Contrastive(PairLoss):
    """Pull between images of one person and push, up to a margin, between images of two people.

    mean over j of d^2 / 2 for one person, else max(0, margin - d)^2 / 2

    Hadsell et al., "Dimensionality Reduction by Learning an Invariant Mapping", CVPR 2006,
    equation 4, on normalised embeddings.

    d = |x_i - x_j| of the normalised embeddings, 0 to 2.
    """

    def __init__(self, *sizes: int, margin: Margin = 1.0, **kwargs: Any) -> None:
        super().__init__(*sizes, margin=margin, **kwargs)

    def pair_loss(self, F: Any, batch: Batch) -> Any:
        squared = squared_distances(F, batch.unit, batch.cosine)
        distance = F.sqrt(squared + LENGTH_EPSILON)
        push = F.square(F.relu(F.broadcast_sub(batch.margin, distance)))
        loss = 0.5 * (squared * batch.positive + push * batch.negative)
        return mean_over(F, loss, batch.positive + batch.negative)
