# SPDX-License-Identifier: Apache-2.0
"""Contrastive loss."""

from typing import Annotated

from heads.cross_entropy import LENGTH_EPSILON
from heads.metric import PairLoss
from heads.mining import mean_over, squared_distances
from ranges import Within


class Contrastive(PairLoss):
    """Pull of one person's images together, push of others apart up to a margin.

    mean over j of d^2 / 2 for one person, else max(0, margin - d)^2 / 2

    Hadsell et al., "Dimensionality Reduction by Learning an Invariant Mapping", CVPR 2006,
    equation 4, on normalised embeddings.

    d = |x_i - x_j| of the normalised embeddings, 0 to 2.
    """

    def __init__(
        self,
        num_classes: int,
        embedding_size: int,
        *,
        margin: Annotated[float, Within(0, 2, "1 is usual", open_low=True)] = 1.0,
        **kwargs,
    ) -> None:
        super().__init__(num_classes, embedding_size, margin=margin, **kwargs)

    def pair_loss(self, F, *, embedding, unit, cosine, margin, positive, negative):
        squared = squared_distances(F, unit, cosine)
        distance = F.sqrt(squared + LENGTH_EPSILON)
        apart = F.square(F.relu(F.broadcast_sub(margin, distance)))
        return mean_over(F, 0.5 * (squared * positive + apart * negative), positive + negative)
