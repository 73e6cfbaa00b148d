# SPDX-License-Identifier: Apache-2.0
"""SV-X-Softmax."""

from typing import Annotated

from heads.cross_entropy import column_numbers
from heads.margin_softmax import MarginSoftmax
from heads.margins import ROUNDING, combined_margin, multiplied_angle, unguarded_angle
from heads.settings import Angle, Cosine, Factor, Scale
from ranges import Within


class SVSoftmax(MarginSoftmax):
    """Softmax with a margin that also stresses the support vectors among the other classes.

    s c_j, where c_j > psi: s (t c_j + t - 1); true class: s psi, psi as in combined

    Wang et al., "Support Vector Guided Softmax Loss", arXiv:1812.11317, equations 6 to 9.

    The margin fraction of a warm-up holds for the stress, too. With ``easy_margin`` hard classes go
    by the margin at every angle, without a guard. Else the guard of `heads.margins.additive_angle`
    holds where t > pi - m2 (m1 = 1), which is in neither paper nor code.

    Parameters
    ----------
    t
        Stress on the hard classes; 1 is none.
    """

    def __init__(
        self,
        num_classes: int,
        embedding_size: int,
        *,
        t: Annotated[float, Within(1, 10, "1.2 is usual")] = 1.2,
        m1: Factor = 1.0,
        m2: Angle = 0.0,
        m3: Cosine = 0.35,
        scale: Scale = 64.0,
        easy_margin: bool = False,
        **kwargs,
    ) -> None:
        super().__init__(num_classes, embedding_size, scale=scale, **kwargs)
        self._t, self._margins, self._easy_margin = t, {"m1": m1, "m2": m2, "m3": m3}, easy_margin

    def margin(self, F, cosine, embedding):
        return combined_margin(F, cosine, easy_margin=self._easy_margin, **self._margins)

    def columns(self, F, fraction, psi, cosine):
        extra = fraction * (self._t - 1.0)
        stressed = 1.0 + extra
        numbers = column_numbers(F, fraction, [0.0, stressed, extra], [0.0, stressed], 1.0)
        if self._easy_margin:
            everywhere = self._psi_at_every_angle(F, cosine)
            psi = cosine + F.broadcast_mul(everywhere - cosine, fraction)
        return psi + ROUNDING, numbers  # a class as near as psi is not hard

    def _psi_at_every_angle(self, F, cosine):
        """Return psi as it is without an easy margin and without a guard, (B,)."""
        m1, m2, m3 = self._margins.values()
        if m1 == 1:
            return unguarded_angle(F, cosine, m2) - m3
        return multiplied_angle(F, cosine, m1, m2)[0] - m3
