# SPDX-License-Identifier: Apache-2.0
"""Triplet loss."""

from typing import Annotated, Any, Literal

import mxnet as mx

from heads.metric import Batch, PairLoss
from heads.mining import hardest, mean_over, semi_hard, squared_distances
from ranges import Within

Margin = Annotated[float, Within(0, 4, "0.3 is usual", open_low=True)]
Mining = Literal["semi_hard", "hard", "blocks"]


class Triplet(PairLoss):
    """Push of each negative n farther from the anchor a than a positive p is, by a margin.

    mean over the triplets of an anchor of max(0, d(a, p) - d(a, n) + margin), d = |x - y|^2

    Schroff et al., "FaceNet", arXiv:1503.03832, equation 3 and section 3.2; "hard" after Hermans
    et al., "In Defense of the Triplet Loss", arXiv:1703.07737, equation 5.

    d is the squared distance of the normalised embeddings, 0 to 4.

    Parameters
    ----------
    mining
        Triplets of the batch. semi_hard: each anchor with each of its positives and the nearest
        negative beyond that positive (the farthest negative, if none lies beyond); hard: each
        anchor with its farthest positive and its nearest negative; blocks: the first third of the
        batch holds anchors, the second positives, the last negatives.
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
                "head.mining: 'blocks' needs as many anchors as positives and negatives, got a "
                f"batch of {len(embedding)}; use a multiple of 3"
            )
        return super().forward(embedding, label, margin_fraction)

    def pair_loss(self, F: Any, batch: Batch) -> Any:
        margin, positive, negative = batch.margin, batch.positive, batch.negative
        flat = F.reshape(margin, shape=(1,))
        if self._mining == "blocks":
            anchor, near, far = F.split(batch.unit, num_outputs=3, axis=0)  # (B / 3, E) each
            near, far = (self._row_distances(F, anchor, other) for other in (near, far))
            loss = F.relu(F.broadcast_add(near - far, flat))
            # Times 3: the mean over the batch is then the mean over the triplets.
            return F.concat(3.0 * loss, F.zeros_like(loss), F.zeros_like(loss), dim=0)
        distance = self._distances(F, batch.unit, batch.cosine)
        has_both = F.minimum(F.max(positive, axis=1), F.max(negative, axis=1))  # (B,)
        if self._mining == "hard":
            near, far = hardest(F, distance, positive, negative)
            return F.relu(F.broadcast_add(near - far, flat)) * has_both
        beyond = semi_hard(F, distance, positive, negative)
        loss = F.relu(F.broadcast_add(distance - beyond, margin))
        return mean_over(F, loss, positive) * has_both

    def _distances(self, F: Any, unit: Any, cosine: Any) -> Any:
        """Return the distances of all pairs, (B, B)."""
        return squared_distances(F, unit, cosine)

    def _row_distances(self, F: Any, one: Any, other: Any) -> Any:
        """Return the distance of row i to row i of the other array, (B,)."""
        return F.sum(F.square(one - other), axis=1)
