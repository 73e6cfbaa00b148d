# SPDX-License-Identifier: Apache-2.0
"""Ring loss."""

from typing import Annotated, Any

from mxnet import init

from heads.cross_entropy import length
from heads.softmax import Softmax
from ranges import above, at_least


class Ring(Softmax):
    """Softmax with a pull of all embeddings to one length, which is learned.

    softmax; + ring_weight / 2 (|x| - R)^2

    Zheng et al., "Ring loss", arXiv:1803.00130, equation 1.

    R starts at ``radius``. Set it to the length that the untrained network produces.

    Parameters
    ----------
    ring_weight
        Factor on the pull, lambda in the paper.
    radius
        Initial value of R.
    """

    def __init__(
        self,
        *sizes: int,
        ring_weight: Annotated[float, at_least(0, "0.01 is usual")] = 0.01,
        radius: Annotated[float, above(0, "20 is usual")] = 20.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(*sizes, **kwargs)
        self._ring_weight = ring_weight
        with self.name_scope():
            self.radius = self.params.get("radius", shape=(1,), init=init.Constant(radius))

    def added_term(self, F: Any, embedding: Any, label: Any, radius: Any) -> Any:
        difference = F.broadcast_sub(length(F, embedding), radius)
        return 0.5 * self._ring_weight * F.square(difference)
