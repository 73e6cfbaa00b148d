# SPDX-License-Identifier: Apache-2.0
"""Max-margin pairwise score."""

from typing import Annotated, Any

from heads.metric import Batch, PairLoss
from heads.mining import mean_over, select
from ranges import Within

Margin = Annotated[float, Within(0, 2, "0.5 is usual", open_low=True)]


class MPS(PairLoss):
    """Push of each positive pair closer, by a margin, than the hardest negative of either image.

    mean over positives p of max(0, max over negatives n of (c_in, c_pn) - c_ip + margin)

    Shi and Jain, "DocFace", arXiv:1805.02283, equation 1 (max-margin pairwise score), here with
    all images of the batch, there with one pair of each person.

    c are cosines. The loss is 0 without positives or without negatives.
    """

    def __init__(self, *sizes: int, margin: Margin = 0.5, **kwargs: Any) -> None:
        super().__init__(*sizes, margin=margin, **kwargs)

    def pair_loss(self, F: Any, batch: Batch) -> Any:
        cosine, negative = batch.cosine, batch.negative
        nearest = F.argmax(select(F, F.BlockGrad(cosine), negative, -2.0), axis=1)
        hardest = F.expand_dims(F.pick(cosine, nearest, axis=1), axis=1)  # (B, 1)
        hardest = F.broadcast_maximum(hardest, F.transpose(hardest))  # of either image of a pair
        loss = F.relu(F.broadcast_add(hardest - cosine, batch.margin))
        return mean_over(F, loss, batch.positive) * F.max(negative, axis=1)
