# SPDX-License-Identifier: Apache-2.0
"""Circle loss."""

from typing import Annotated

from heads.cross_entropy import column_numbers
from heads.margin_softmax import MarginSoftmax
from heads.settings import Scale
from ranges import Within


class Circle(MarginSoftmax):
    """Softmax on cosines, each weighted by its distance from where it should be.

    s max(0, c_j + m) (c_j - m); true class: s max(0, 1 + m - c) (c - (1 - m))

    Sun et al., "Circle Loss", arXiv:2002.10857, equations 7 and 8 with class-level labels.

    No gradient flows through the weights max(0, ...). A margin fraction has no effect.

    Parameters
    ----------
    m
        Margin, which is also the relaxation.
    """

    def __init__(
        self,
        num_classes: int,
        embedding_size: int,
        *,
        m: Annotated[float, Within(0, 1, "0.25 is usual")] = 0.25,
        scale: Scale = 256.0,
        **kwargs,
    ) -> None:
        super().__init__(num_classes, embedding_size, scale=scale, **kwargs)
        self._m = m

    def _target_score(self, F, cosine, fraction, embedding):
        weight = F.relu(1.0 + self._m - cosine)
        return weight * (cosine - (1.0 - self._m)), weight

    def columns(self, F, fraction, psi, cosine):
        m = self._m
        numbers = column_numbers(F, fraction, [1.0, 0.0, -m * m], [1.0, m], 0.0)
        return F.ones_like(psi) * -m, numbers
