# SPDX-License-Identifier: Apache-2.0
"""N-pair loss."""

from typing import Annotated

from heads.metric import PairLoss
from heads.mining import mean_over, only
from ranges import at_least

NOWHERE = -1e30  # its exponential is 0


class NPair(PairLoss):
    """Softmax of one positive against all negatives of the batch, on inner products.

    mean over positives p of log(1 + sum over negatives n of exp(x . x_n - x . x_p));
    + length_weight |x|^2

    Sohn, "Improved Deep Metric Learning with Multi-class N-pair Loss Objective", NIPS 2016,
    equation 6 and section 3.2.2, over all images of the batch in the place of one pair each.

    Embeddings are taken as they are.

    Parameters
    ----------
    length_weight
        Factor on the squared length of the embedding. Other code multiplies its usual 0.002 by
        0.25, for anchor and positive each: that is 0.001 here.
    """

    def __init__(
        self,
        num_classes: int,
        embedding_size: int,
        *,
        length_weight: Annotated[float, at_least(0, "0.002 is usual")] = 0.002,
        **kwargs,
    ) -> None:
        super().__init__(num_classes, embedding_size, **kwargs)
        self._length_weight = length_weight

    def pair_loss(self, F, *, embedding, unit, cosine, margin, positive, negative):
        product = F.dot(embedding, embedding, transpose_b=True)
        others = only(F, product, negative, NOWHERE)
        top = F.BlockGrad(F.max(others, axis=1, keepdims=True))
        rest = F.log(F.sum(F.exp(F.broadcast_sub(others, top)), axis=1, keepdims=True)) + top
        loss = F.Activation(F.broadcast_sub(rest, product), act_type="softrelu")
        length = self._length_weight * F.sum(F.square(embedding), axis=1)
        return mean_over(F, loss, positive) + length * F.max(positive, axis=1)
