# SPDX-License-Identifier: Apache-2.0
"""Triplet loss on squared distances between embeddings."""

from typing import Annotated, Any, Literal

import mxnet as mx

from heads.metric import Batch, PairLoss
from heads.mining import hardest, mean_over, semi_hard, squared_distances
from ranges import Within

Margin = Annotated[float, Within(0, 4, "the usual margin is 0.3", open_low=True)]
Mining = Literal["semi_hard", "hard", "blocks"]


class Triplet(PairLoss):
    """Push each negative farther from the anchor than a positive is, by a margin.

    mean over the triplets of an anchor of max(0, d(a, p) - d(a, n) + margin), d = |x - y|^2

    Schroff et al., "FaceNet", arXiv:1503.03832, equation 3 and section 3.2; mining=hard: Hermans
    et al., "In Defense of the Triplet Loss", arXiv:1703.07737, equation 5.

    Symbols: a is the anchor; p is a positive, another image of the same person; n is a negative, an
    image of another person. d is the squared distance of two normalised embeddings, 0 to 4.

    Parameters
    ----------
    margin
        Squared distance by which an image of another person must be farther from the anchor than an
        image of the same person.
    mining
        Selection of the triplets of a batch. A positive is another image of the anchor's person, a
        negative an image of another person. semi_hard: each anchor with each of its positives and
        the nearest negative that is farther than this positive, or the farthest negative if no
        negative is farther. hard: each anchor with its farthest positive and its nearest negative.
        blocks: the first third of the batch holds the anchors, the second third the positives, the
        last third the negatives.
    """

    def __init__(
        self, *sizes: int, margin: Margin = 0.3, mining: Mining = "semi_hard", **kwargs: Any
    ) -> None:
        super().__init__(*sizes, margin=margin, **kwargs)
        self._mining = mining

    def forward(self, embedding: Any, label: Any, margin_fraction: Any = None) -> Any:
        blocks = self._mining == "blocks" and isinstance(embedding, mx.nd.NDArray)
        if blocks and len(embedding) % 3:
            raise ValueError(
                "head.mining: 'blocks' needs equal numbers of anchors, positives and negatives, "
                f"got a batch of {len(embedding)} images; use a batch size that is a multiple of 3"
            )
        return super().forward(embedding, label, margin_fraction)

    def pair_loss(self, F: Any, batch: Batch) -> Any:
        margin, positive, negative = batch.margin, batch.positive, batch.negative
        flat = F.reshape(margin, shape=(1,))
        if self._mining == "blocks":
            anchor, near, far = F.split(batch.unit, num_outputs=3, axis=0)
            near, far = (self._row_distances(F, anchor, other) for other in (near, far))
            loss = F.relu(F.broadcast_add(near - far, flat))
            # Only a third of the images are anchors: with the factor 3, the mean over all images of
            # the batch equals the mean over the triplets.
            return F.concat(3.0 * loss, F.zeros_like(loss), F.zeros_like(loss), dim=0)
        distance = self._distances(F, batch.unit, batch.cosine)
        has_both = F.minimum(F.max(positive, axis=1), F.max(negative, axis=1))
        if self._mining == "hard":
            near, far = hardest(F, distance, positive, negative)
            return F.relu(F.broadcast_add(near - far, flat)) * has_both
        beyond = semi_hard(F, distance, positive, negative)
        loss = F.relu(F.broadcast_add(distance - beyond, margin))
        return mean_over(F, loss, positive) * has_both

    def _distances(self, F: Any, unit: Any, cosine: Any) -> Any:
        """Return the distances of all pairs of images, shape (batch size, batch size)."""
        return squared_distances(F, unit, cosine)

    def _row_distances(self, F: Any, one: Any, other: Any) -> Any:
        """Return the distance between row i of ``one`` and row i of ``other``, for each i."""
        return F.sum(F.square(one - other), axis=1)
