# SPDX-License-Identifier: Apache-2.0
"""Triplet loss."""

from typing import Annotated, Literal

import mxnet as mx

from heads.metric import PairLoss
from heads.mining import hardest, mean_over, semi_hard, squared_distances
from ranges import Within

Mining = Literal["semi_hard", "hard", "blocks"]


class Triplet(PairLoss):
    """Push of each negative n farther from the anchor a than a positive p is, by a margin.

    mean over the triplets of an anchor of max(0, d(a, p) - d(a, n) + margin), d = |x - y|^2

    Schroff et al., "FaceNet", arXiv:1503.03832, equation 3 and section 3.2; "hard" after Hermans
    et al., "In Defense of the Triplet Loss", arXiv:1703.07737, equation 5.

    d is of the normalised embeddings, 0 to 4.

    Parameters
    ----------
    mining
        Which triplets of the batch. semi_hard: each anchor with each of its positives and the
        nearest negative beyond that (the farthest negative, if none lies beyond); hard: each
        anchor with its farthest positive and its nearest negative; blocks: the batch is anchors,
        positives and negatives, a third each.
    """

    def __init__(
        self,
        num_classes: int,
        embedding_size: int,
        *,
        margin: Annotated[float, Within(0, 4, "0.3 is usual", open_low=True)] = 0.3,
        mining: Mining = "semi_hard",
        **kwargs,
    ) -> None:
        super().__init__(num_classes, embedding_size, margin=margin, **kwargs)
        self._mining = mining

    def forward(self, embedding, label, margin_fraction=None):
        blocks = self._mining == "blocks" and isinstance(embedding, mx.nd.NDArray)
        if blocks and len(embedding) % 3:
            raise ValueError(
                "head.mining: 'blocks' takes anchors, positives and negatives of one number, got a "
                f"batch of {len(embedding)}; use a multiple of 3"
            )
        return super().forward(embedding, label, margin_fraction)

    def pair_loss(self, F, *, embedding, unit, cosine, margin, positive, negative):
        flat = F.reshape(margin, shape=(1,))
        if self._mining == "blocks":
            anchor, near, far = F.split(unit, num_outputs=3, axis=0)  # (B / 3, E) each
            near, far = (self._between(F, anchor, other) for other in (near, far))
            loss = F.relu(F.broadcast_add(near - far, flat))
            # Three times: the mean over the batch is then the mean over the triplets.
            return F.concat(3.0 * loss, F.zeros_like(loss), F.zeros_like(loss), dim=0)
        distance = self._distances(F, unit, cosine)
        has_both = F.minimum(F.max(positive, axis=1), F.max(negative, axis=1))  # (B,)
        if self._mining == "hard":
            near, far = hardest(F, distance, positive, negative)
            return F.relu(F.broadcast_add(near - far, flat)) * has_both
        beyond = semi_hard(F, distance, positive, negative)
        return mean_over(F, F.relu(F.broadcast_add(distance - beyond, margin)), positive) * has_both

    def _distances(self, F, unit, cosine):
        """Return the distances of all pairs, (B, B)."""
        return squared_distances(F, unit, cosine)

    def _between(self, F, one, other):
        """Return the distance of each row to its like, (B,)."""
        return F.sum(F.square(one - other), axis=1)
