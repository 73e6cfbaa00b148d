# SPDX-License-Identifier: Apache-2.0
"""SV-X-Softmax."""

from typing import Annotated, Any

from heads.cross_entropy import column_numbers
from heads.margin_softmax import MarginSoftmax
from heads.margins import ROUNDING, combined_margin, multiplied_angle, unguarded_angle
from heads.settings import Angle, Cosine, Factor
from ranges import Within


class SVSoftmax(MarginSoftmax):
    """Softmax with a margin that also raises the logits of hard other classes.

    s c_j, where c_j > psi: s (t c_j + t - 1); true class: s psi, psi as in combined

    Wang et al., "Support Vector Guided Softmax Loss", arXiv:1812.11317, equations 6 to 9.

    The margin fraction of a warm-up also applies to t. With ``easy_margin`` a class is hard where
    c_j exceeds the psi of a margin at every angle and without a guard. Otherwise psi has the guard
    of `heads.margins.additive_angle` where t > pi - m2 (m1 = 1), which is in neither paper nor
    code.

    Parameters
    ----------
    t
        Stress on the hard classes; 1 disables it.
    """

    def __init__(
        self,
        *sizes: int,
        t: Annotated[float, Within(1, 10, "1.2 is usual")] = 1.2,
        m1: Factor = 1.0,
        m2: Angle = 0.0,
        m3: Cosine = 0.35,
        easy_margin: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(*sizes, **kwargs)
        self._t, self._margins, self._easy_margin = t, {"m1": m1, "m2": m2, "m3": m3}, easy_margin

    def margin(self, F: Any, cosine: Any, embedding: Any) -> tuple[Any, Any]:
        return combined_margin(F, cosine, easy_margin=self._easy_margin, **self._margins)

    def columns(self, F: Any, fraction: Any, psi: Any, cosine: Any) -> tuple[Any, Any]:
        extra = fraction * (self._t - 1.0)
        stressed = 1.0 + extra
        numbers = column_numbers(F, fraction, [0.0, stressed, extra], [0.0, stressed], 1.0)
        if self._easy_margin:
            everywhere = self._psi_at_every_angle(F, cosine)
            psi = cosine + F.broadcast_mul(everywhere - cosine, fraction)
        return psi + ROUNDING, numbers  # a class with a cosine equal to psi is not hard

    def _psi_at_every_angle(self, F: Any, cosine: Any) -> Any:
        """Return psi without an easy margin and without a guard, (B,)."""
        m1, m2, m3 = self._margins.values()
        if m1 == 1:
            return unguarded_angle(F, cosine, m2) - m3
        return multiplied_angle(F, cosine, m1, m2)[0] - m3
