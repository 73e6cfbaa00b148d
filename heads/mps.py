# SPDX-License-Identifier: Apache-2.0
"""Max-margin pairwise score."""

from typing import Annotated

from heads.metric import PairLoss
from heads.mining import mean_over, only
from ranges import Within


class MPS(PairLoss):
    """Push of a positive pair closer, by a margin, than the hardest negative of either image.

    mean over positives p of max(0, max over negatives n of (c_in, c_pn) - c_ip + margin)

    Shi and Jain, "DocFace", arXiv:1805.02283, equation 1 (max-margin pairwise score), with
    everybody's images in the place of one pair of each person.

    c are cosines. The loss is 0 without positives or without other people.
    """

    def __init__(
        self,
        num_classes: int,
        embedding_size: int,
        *,
        margin: Annotated[float, Within(0, 2, "0.5 is usual", open_low=True)] = 0.5,
        **kwargs,
    ) -> None:
        super().__init__(num_classes, embedding_size, margin=margin, **kwargs)

    def pair_loss(self, F, *, embedding, unit, cosine, margin, positive, negative):
        nearest = F.argmax(only(F, F.BlockGrad(cosine), negative, -2.0), axis=1)
        rival = F.expand_dims(F.pick(cosine, nearest, axis=1), axis=1)  # (B, 1)
        rival = F.broadcast_maximum(rival, F.transpose(rival))  # of either image of a pair
        short = F.relu(F.broadcast_add(rival - cosine, margin))
        return mean_over(F, short, positive) * F.max(negative, axis=1)
