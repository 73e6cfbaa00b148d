# SPDX-License-Identifier: Apache-2.0
"""MagFace: a softmax loss with a margin that grows with the norm of the embedding."""

import math
from collections.abc import Iterator
from typing import Annotated, Any

from heads.cross_entropy import length, through_psi
from heads.margin_softmax import MarginSoftmax
from heads.margins import additive_angles
from ranges import Setting, Within, above, at_least

RIGHT_ANGLE_RADIANS = math.pi / 2


class MagFace(MarginSoftmax):
    """Softmax with a margin that grows with the L2 norm of the embedding, and a term on that norm.

    logits s c_j; true class: s cos(t + m(a)) with the guard of arcface;
    loss + length_weight (a / high^2 + 1 / a)

    Meng et al., "MagFace", arXiv:2103.06627, equation 3 and section 3.3.

    Symbols: c_j is the cosine of an embedding to the centre of class j; c and t are its cosine and
    angle to the centre of the true class; s is ``scale``.

    The number a is the L2 norm of the embedding, clipped to the range from ``low`` to ``high``. In
    this range the margin m(a) rises linearly from ``least`` to ``most``. Gradients flow through
    this norm in the softmax loss and in the added term. Where t + m(a) exceeds pi, the guard of
    `arcface` replaces the cosine by c - m(a) sin m(a).

    Parameters
    ----------
    low
        Embedding norm at and below which the margin is ``least``.
    high
        Embedding norm at and above which the margin is ``most``.
    least
        Margin on the angle of an embedding with the norm ``low``, in radians.
    most
        Margin on the angle of an embedding with the norm ``high``, in radians.
    length_weight
        Factor on the term that rewards large embedding norms, up to the norm ``high``.
    """

    def __init__(
        self,
        *sizes: int,
        low: Annotated[float, above(0, "the usual norm is 10")] = 10.0,
        high: Annotated[float, above(0, "the usual norm is 110")] = 110.0,
        least: Annotated[float, Within(0, RIGHT_ANGLE_RADIANS, "the usual margin is 0.45")] = 0.45,
        most: Annotated[float, Within(0, RIGHT_ANGLE_RADIANS, "the usual margin is 0.8")] = 0.8,
        length_weight: Annotated[float, at_least(0, "the usual weight is 35")] = 35.0,
        easy_margin: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(*sizes, **kwargs)
        self._low, self._high, self._least = low, high, least
        self._easy_margin, self._length_weight = easy_margin, length_weight
        self._growth = (most - least) / (high - low)

    @staticmethod
    def problems(options: dict[str, Any]) -> Iterator[tuple[str, str]]:
        """Yield a pair (key, sentence) for each upper bound that is below its lower bound.

        ``high`` must be above ``low``, and ``most`` must be at least ``least``.
        """
        yield from MarginSoftmax.problems(options)
        high = above(options["low"], "the usual norm is 110")
        most = Within(options["least"], RIGHT_ANGLE_RADIANS, "the usual margin is 0.8")
        for key, bound in (("high", high), ("most", most)):
            if problem := Setting(key, float, bound, None).problem(options[key]):
                yield key, problem

    def finish_loss(self, F: Any, embedding: Any, loss: Any, cosine: Any, fraction: Any) -> Any:
        a, margin = self._length_and_margin(F, embedding)
        by_margin = additive_angles(F, cosine, F.BlockGrad(margin), self._easy_margin)[2]
        slope = F.BlockGrad(F.broadcast_mul(by_margin, fraction))
        loss = through_psi(F, loss, slope * margin, self.form.scale)
        return loss + self._length_weight * (a / self._high**2 + 1.0 / a)

    def margin(self, F: Any, cosine: Any, embedding: Any) -> tuple[Any, Any]:
        _, margin = self._length_and_margin(F, embedding)
        return additive_angles(F, cosine, margin, self._easy_margin)[:2]

    def _length_and_margin(self, F: Any, embedding: Any) -> tuple[Any, Any]:
        a = F.clip(length(F, embedding), self._low, self._high)
        return a, self._least + self._growth * (a - self._low)
