# SPDX-License-Identifier: Apache-2.0
"""Ring loss."""

from typing import Annotated

from mxnet import init

from heads.cross_entropy import length
from heads.softmax import Softmax
from ranges import above, at_least


class Ring(Softmax):
    """Softmax with a pull of the embeddings to one length, which is learned.

    softmax; + ring_weight / 2 (|x| - R)^2

    Zheng et al., "Ring loss", arXiv:1803.00130, equation 1.

    R starts at ``radius``, whatever the lengths are: set that to what the network gives at first.

    Parameters
    ----------
    ring_weight
        Factor on the pull, lambda in the paper.
    radius
        First R.
    """

    def __init__(
        self,
        num_classes: int,
        embedding_size: int,
        *,
        ring_weight: Annotated[float, at_least(0, "0.01 is usual")] = 0.01,
        radius: Annotated[float, above(0, "20 is usual")] = 20.0,
        use_bias: bool = False,
        **kwargs,
    ) -> None:
        super().__init__(num_classes, embedding_size, use_bias=use_bias, **kwargs)
        self._ring_weight = ring_weight
        with self.name_scope():
            self.radius = self.params.get("radius", shape=(1,), init=init.Constant(radius))

    def added_term(self, F, embedding, label, radius):
        apart = F.broadcast_sub(length(F, embedding), radius)
        return 0.5 * self._ring_weight * F.square(apart)
