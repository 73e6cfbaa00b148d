# SPDX-License-Identifier: Apache-2.0
"""Max-margin pairwise score (MPS): a loss on the cosines of pairs of images."""

from typing import Annotated, Any

from heads.metric import Batch, PairLoss
from heads.mining import mean_over, select
from ranges import Within

Margin = Annotated[float, Within(0, 2, "the usual margin is 0.5", open_low=True)]


class MPS(PairLoss):
    """Make two images of the same person more similar, by a margin, than either is to anyone else.

    mean over positives p of max(0, h - c_ip + margin), h = max over negatives n of c_in and c_pn

    Shi and Jain, "DocFace", arXiv:1805.02283, equation 1 (max-margin pairwise score), with all
    images of the batch; the paper has one pair of each person.

    Symbols: c_ij is the cosine of the embeddings of images i and j. A positive of image i is
    another image of the same person, a negative is an image of another person. The loss of an image
    without positives or without negatives is 0.

    Parameters
    ----------
    margin
        Amount by which the cosine of two images of the same person must exceed the cosine of either
        image to the most similar image of another person.
    """

    def __init__(self, *sizes: int, margin: Margin = 0.5, **kwargs: Any) -> None:
        super().__init__(*sizes, margin=margin, **kwargs)

    def pair_loss(self, F: Any, batch: Batch) -> Any:
        cosine, negative = batch.cosine, batch.negative
        nearest = F.argmax(select(F, F.BlockGrad(cosine), negative, -2.0), axis=1)
        hardest = F.expand_dims(F.pick(cosine, nearest, axis=1), axis=1)
        hardest = F.broadcast_maximum(hardest, F.transpose(hardest))
        loss = F.relu(F.broadcast_add(hardest - cosine, batch.margin))
        return mean_over(F, loss, batch.positive) * F.max(negative, axis=1)
