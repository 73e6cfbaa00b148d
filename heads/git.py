# SPDX-License-Identifier: Apache-2.0
"""Git loss."""

from typing import Annotated

from heads.center import Center
from heads.mining import pairs
from heads.settings import CenterRate, CenterWeight
from heads.statistics import Reduce, alone
from ranges import at_least


class Git(Center):
    """Center loss with a push of the embeddings away from the centres of other classes.

    center; + git_weight / B sum over images j of other classes of 1 / (1 + |x - m_yj|^2)

    Calefati et al., "Git Loss for Deep Face Recognition", arXiv:1807.08512, equation 3.

    The equation sums over all j other than i; images of the own class are left out here, as its
    text wants centres of others pushed away.

    Parameters
    ----------
    git_weight
        Factor on the push, lambda_G in the paper.
    """

    def __init__(
        self,
        num_classes: int,
        embedding_size: int,
        reduce: Reduce = alone,
        *,
        center_weight: CenterWeight = 0.003,
        git_weight: Annotated[float, at_least(0, "0 is none")] = 0.003,
        center_rate: CenterRate = 0.5,
        use_bias: bool = False,
        **kwargs,
    ) -> None:
        kwargs |= {"center_weight": center_weight, "center_rate": center_rate}
        super().__init__(num_classes, embedding_size, reduce, use_bias=use_bias, **kwargs)
        self._git_weight = git_weight

    def added_term(self, F, embedding, label, centers):
        own = self._own_centers(F, label, centers)
        loss = self._pull(F, embedding, own)
        if not self._git_weight:
            return loss
        _, other = pairs(F, label)
        squares = F.expand_dims(F.sum(F.square(own), axis=1), axis=0)
        squares = F.broadcast_add(F.sum(F.square(embedding), axis=1, keepdims=True), squares)
        distance = F.relu(squares - 2.0 * F.dot(embedding, own, transpose_b=True))  # (B, B) squared
        # The mean of a row is its sum over the batch's size.
        return loss + self._git_weight * F.mean(other / (1.0 + distance), axis=1)
