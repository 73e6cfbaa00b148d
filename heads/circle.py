# SPDX-License-Identifier: Apache-2.0
"""Circle loss: softmax with a weight on each cosine."""

from typing import Annotated, Any

from heads.cross_entropy import column_numbers
from heads.margin_softmax import FILTERED_ELSEWHERE, MarginSoftmax
from heads.settings import Scale
from ranges import Within

Margin = Annotated[float, Within(0, 1, "the usual margin is 0.25")]


class Circle(MarginSoftmax):
    """Softmax on cosines, each weighted by its distance from its optimal value.

    logits s max(0, c_j + m) (c_j - m); true class: s max(0, 1 + m - c) (c - (1 - m))

    Sun et al., "Circle Loss", arXiv:2002.10857, equations 7 and 8 with class-level labels.

    Symbols: c_j is the cosine of an embedding to the centre of class j; c is its cosine to the
    centre of the true class; s is ``scale``.

    No gradient flows through the weights max(0, ...). The input ``margin_fraction`` has no effect.

    Parameters
    ----------
    m
        Margin of the cosines. For the true class, the optimal cosine is 1 + m and the decision
        threshold is 1 - m. For other classes, the optimal cosine is -m and the threshold is m.
    """

    refused_settings = FILTERED_ELSEWHERE

    def __init__(self, *sizes: int, m: Margin = 0.25, scale: Scale = 256.0, **kwargs: Any) -> None:
        super().__init__(*sizes, scale=scale, **kwargs)
        self._m = m

    def target_score(
        self, F: Any, cosine: Any, fraction: Any, embedding: Any, **state: Any
    ) -> tuple[Any, Any]:
        weight = F.relu(1.0 + self._m - cosine)
        return weight * (cosine - (1.0 - self._m)), weight

    def columns(self, F: Any, fraction: Any, psi: Any, cosine: Any) -> tuple[Any, Any]:
        m = self._m
        numbers = column_numbers(F, fraction, [1.0, 0.0, -m * m], [1.0, m], 0.0)
        return F.ones_like(psi) * -m, numbers
