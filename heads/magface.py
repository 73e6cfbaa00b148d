# SPDX-License-Identifier: Apache-2.0
"""MagFace."""

import math
from collections.abc import Iterator
from typing import Annotated, Any

from heads.cross_entropy import length, through_psi
from heads.margin_softmax import MarginSoftmax
from heads.margins import additive_angles
from heads.settings import Scale
from ranges import Setting, Within, above, at_least

RIGHT_ANGLE = math.pi / 2


class MagFace(MarginSoftmax):
    """Softmax with a margin that grows with the embedding's length, and a pull on that length.

    s c_j; true class: s cos(t + m(a)), guarded; + length_weight (a / high^2 + 1 / a)

    Meng et al., "MagFace", arXiv:2103.06627, equation 3 and section 3.3.

    a is |x|, clipped to low to high; m(a) rises linearly from least to most. Gradients flow through
    a in both terms.

    Parameters
    ----------
    low, high
        Lengths between which the margin grows.
    least, most
        Margins at these, in radians.
    length_weight
        Factor on the pull on the length, which falls up to a = high.
    """

    def __init__(
        self,
        num_classes: int,
        embedding_size: int,
        *,
        low: Annotated[float, above(0, "10 is usual")] = 10.0,
        high: Annotated[float, above(0, "110 is usual")] = 110.0,
        least: Annotated[float, Within(0, RIGHT_ANGLE, "0.45 is usual")] = 0.45,
        most: Annotated[float, Within(0, RIGHT_ANGLE, "0.8 is usual")] = 0.8,
        length_weight: Annotated[float, at_least(0, "35 is usual")] = 35.0,
        scale: Scale = 64.0,
        easy_margin: bool = False,
        **kwargs,
    ) -> None:
        super().__init__(num_classes, embedding_size, scale=scale, **kwargs)
        self._low, self._high, self._least = low, high, least
        self._easy_margin = easy_margin
        self._growth, self._length_weight = (most - least) / (high - low), length_weight

    @staticmethod
    def problems(options: dict[str, Any]) -> Iterator[tuple[str, str]]:
        """Yield (key, sentence) of pairs that are not in order."""
        low, least = options["low"], options["least"]
        high = Setting("high", float, above(low, "110 is usual"), None)
        most = Setting("most", float, Within(least, RIGHT_ANGLE, "0.8 is usual"), None)
        for bound in (high, most):
            if problem := bound.problem(options[bound.name]):
                yield bound.name, problem

    def hybrid_forward(self, F, embedding, label, margin_fraction, weight):
        loss, cosine, *rest = super().hybrid_forward(F, embedding, label, margin_fraction, weight)
        a = F.clip(length(F, embedding), self._low, self._high)
        margin = self._margin_of(a)
        by_margin = additive_angles(F, cosine, F.BlockGrad(margin), self._easy_margin)[2]
        slope = F.BlockGrad(F.broadcast_mul(by_margin, margin_fraction))
        loss = through_psi(F, loss, slope * margin, self._form.scale)
        loss = loss + self._length_weight * (a / self._high**2 + 1.0 / a)
        return loss, cosine, *rest

    def margin(self, F, cosine, embedding):
        a = F.clip(length(F, embedding), self._low, self._high)
        return additive_angles(F, cosine, self._margin_of(a), self._easy_margin)[:2]

    def _margin_of(self, a):
        return self._least + self._growth * (a - self._low)
