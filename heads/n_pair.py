# SPDX-License-Identifier: Apache-2.0
"""N-pair loss: softmax of one positive against all negatives of the batch."""

from typing import Annotated, Any

from heads.metric import Batch, PairLoss
from heads.mining import mean_over, select
from ranges import at_least

# Inner product given to an image that a sum of exponentials must skip: exp(-1e30) is 0.
EXCLUDED_PRODUCT = -1e30
LengthWeight = Annotated[float, at_least(0, "the usual weight is 0.002")]


class NPair(PairLoss):
    """Softmax of one positive against all negatives of the batch, on inner products.

    mean over positives p of log(1 + sum over negatives n of exp(x . x_n - x . x_p)), plus
    length_weight |x|^2

    Sohn, "Improved Deep Metric Learning with Multi-class N-pair Loss Objective", NIPS 2016,
    equation 6 and section 3.2.2, with all images of the batch; the paper has one pair of each
    class.

    Symbols: x, x_p and x_n are the embeddings of the anchor, of a positive (another image of the
    same person) and of a negative (an image of another person). They are not normalised.

    Parameters
    ----------
    length_weight
        Factor on the squared L2 norm of the embedding. The value 0.002 in TensorFlow's N-pair loss
        equals 0.001 here: TensorFlow adds the mean squared norm of the anchors and that of the
        positives, and multiplies the sum by a further factor of 0.25.
    """

    def __init__(self, *sizes: int, length_weight: LengthWeight = 0.002, **kwargs: Any) -> None:
        super().__init__(*sizes, **kwargs)
        self._length_weight = length_weight

    def pair_loss(self, F: Any, batch: Batch) -> Any:
        product = F.dot(batch.embedding, batch.embedding, transpose_b=True)
        others = select(F, product, batch.negative, EXCLUDED_PRODUCT)
        top = F.BlockGrad(F.max(others, axis=1, keepdims=True))
        rest = F.log(F.sum(F.exp(F.broadcast_sub(others, top)), axis=1, keepdims=True)) + top
        loss = F.Activation(F.broadcast_sub(rest, product), act_type="softrelu")
        length = self._length_weight * F.sum(F.square(batch.embedding), axis=1)
        return mean_over(F, loss, batch.positive) + length * F.max(batch.positive, axis=1)
