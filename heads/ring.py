# SPDX-License-Identifier: Apache-2.0
"""Ring loss: softmax, and embeddings pulled to a length that is learned."""

import math

from mxnet import init

from heads.checks import check_number
from heads.cross_entropy import length
from heads.softmax import Softmax, check_classes


class Ring(Softmax):
    """Softmax and the squared difference of the length to a learned radius: see `ring`."""

    def __init__(
        self,
        num_classes: int,
        embedding_size: int,
        ring_weight: float,
        radius: float,
        **kwargs,
    ) -> None:
        super().__init__(num_classes, embedding_size, **kwargs)
        self._ring_weight = ring_weight
        with self.name_scope():
            self.radius = self.params.get("radius", shape=(1,), init=init.Constant(radius))

    def _beside(self, F, embedding, label, radius):
        apart = F.broadcast_sub(length(F, embedding), radius)
        return 0.5 * self._ring_weight * F.square(apart)


def ring(
    num_classes: int,
    embedding_size: int,
    *,
    ring_weight: float = 0.01,
    radius: float = 20.0,
    use_bias: bool = False,
) -> Ring:
    """Build a softmax that also pulls embeddings to one length.

    loss = cross-entropy + ring_weight / 2 (|x| - R)^2 with a learned R, ``radius``.

    Parameters
    ----------
    num_classes, embedding_size
        Number of classes, length of the embedding.
    ring_weight
        Lambda, from 0.
    radius
        First R, above 0.
    use_bias
        Whether each class has a bias in the softmax.

    Raises
    ------
    ValueError
        If a value is out of range or of the wrong type.

    Notes
    -----
    Zheng et al., "Ring loss", arXiv:1803.00130, equation 1. In the authors' code R starts at the
    mean length of the first batch; here it starts at ``radius``, whatever the lengths are: set that
    to what the network gives at first, or embeddings are pulled a long way.
    """
    return Ring(
        **check_classes(num_classes, embedding_size, use_bias),
        ring_weight=check_number(
            "head.ring_weight", ring_weight, 0, math.inf, advice="0.01 is usual"
        ),
        radius=check_number(
            "head.radius", radius, 0, math.inf, open_low=True, advice="20 is usual"
        ),
    )
