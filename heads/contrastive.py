# SPDX-License-Identifier: Apache-2.0
"""Contrastive loss on the distances between pairs of embeddings."""

from typing import Annotated, Any

from heads.cross_entropy import LENGTH_EPSILON
from heads.metric import Batch, PairLoss
from heads.mining import mean_over, squared_distances
from ranges import Within

Margin = Annotated[float, Within(0, 2, "the usual margin is 1", open_low=True)]


class Contrastive(PairLoss):
    """Pull images of the same person together and push images of two people apart, up to a margin.

    mean over all other images j of: d^2 / 2 if i and j show the same person,
    else max(0, margin - d)^2 / 2

    Hadsell et al., "Dimensionality Reduction by Learning an Invariant Mapping", CVPR 2006,
    equation 4, on normalised embeddings.

    d = |x_i - x_j| is the distance between the normalised embeddings of images i and j, 0 to 2.

    Parameters
    ----------
    margin
        Distance above which images of two people are no longer pushed apart. Normalised embeddings
        have distances from 0 to 2.
    """

    def __init__(self, *sizes: int, margin: Margin = 1.0, **kwargs: Any) -> None:
        super().__init__(*sizes, margin=margin, **kwargs)

    def pair_loss(self, F: Any, batch: Batch) -> Any:
        squared = squared_distances(F, batch.unit, batch.cosine)
        distance = F.sqrt(squared + LENGTH_EPSILON)
        push = F.square(F.relu(F.broadcast_sub(batch.margin, distance)))
        loss = 0.5 * (squared * batch.positive + push * batch.negative)
        return mean_over(F, loss, batch.positive + batch.negative)
