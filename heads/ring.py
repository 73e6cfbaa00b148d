# SPDX-License-Identifier: Apache-2.0
"""Ring loss: softmax with a pull of all embeddings to one norm."""

from typing import Annotated, Any

from mxnet import init

from heads.cross_entropy import length
from heads.head import NOT_FILTERED, NOT_SHARDED
from heads.softmax import Softmax
from ranges import above, at_least


class Ring(Softmax):
    """Softmax with a pull of all embeddings to one L2 norm, which is learned.

    softmax loss + ring_weight / 2 (|x| - R)^2

    Zheng et al., "Ring loss", arXiv:1803.00130, equation 1.

    Symbols: |x| is the L2 norm of the embedding; R is the learned norm. R starts at ``radius``.

    Parameters
    ----------
    ring_weight
        Factor on the added term, half the squared difference of norms; lambda in the paper.
    radius
        Initial value of the learned norm. Set the radius to the mean L2 norm of the embeddings of
        the untrained network.
    """

    refused_settings = NOT_SHARDED | NOT_FILTERED

    def __init__(
        self,
        *sizes: int,
        ring_weight: Annotated[float, at_least(0, "the usual weight is 0.01")] = 0.01,
        radius: Annotated[float, above(0, "the usual radius is 20")] = 20.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(*sizes, **kwargs)
        self._ring_weight = ring_weight
        with self.name_scope():
            self.radius = self.params.get("radius", shape=(1,), init=init.Constant(radius))

    def added_term(self, F: Any, embedding: Any, label: Any, radius: Any) -> Any:
        difference = F.broadcast_sub(length(F, embedding), radius)
        return 0.5 * self._ring_weight * F.square(difference)
