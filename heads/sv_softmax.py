# SPDX-License-Identifier: Apache-2.0
"""SV-X-Softmax: a margin softmax that raises the logits of hard classes."""

from typing import Annotated, Any

from heads.cross_entropy import column_numbers
from heads.margin_softmax import FILTERED_ELSEWHERE, MarginSoftmax
from heads.margins import ROUNDING, combined_margin, multiplied_angle, unguarded_angle
from heads.settings import Angle, Cosine, Factor
from ranges import Within


class SVSoftmax(MarginSoftmax):
    """Softmax with a margin on the true class and raised logits of the hard classes.

    logits s c_j, or s (t c_j + t - 1) where c_j > psi; true class: s psi, psi as in combined

    Wang et al., "Support Vector Guided Softmax Loss", arXiv:1812.11317, equations 6 to 9.

    Symbols: c_j is the cosine of an embedding to the centre of class j; psi is the cosine to the
    centre of the true class after the margin; s is ``scale``. A class j is hard if c_j > psi.

    In a warm-up of the margin, ``margin_fraction`` also raises t from 1 to its value. With m1 = 1,
    psi has the guard of `heads.margins.additive_angle` where the angle to the true class exceeds
    pi - m2; the paper and the authors' code have no guard. With ``easy_margin`` the decision
    whether a class is hard uses a psi that has the margin at every angle and no guard.

    Parameters
    ----------
    t
        Factor that raises the logits of the hard classes, called stress; 1 leaves them unchanged.
    """

    refused_settings = FILTERED_ELSEWHERE

    def __init__(
        self,
        *sizes: int,
        t: Annotated[float, Within(1, 10, "the usual stress is 1.2")] = 1.2,
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
        # Raise the threshold by the rounding error, so that a class whose cosine equals psi is not
        # hard.
        return psi + ROUNDING, numbers

    def _psi_at_every_angle(self, F: Any, cosine: Any) -> Any:
        """Return the cosine of the true class after a margin that applies at every angle.

        Neither ``easy_margin`` nor the guard limits this margin. The output has one value per
        image.
        """
        m1, m2, m3 = self._margins.values()
        if m1 == 1:
            return unguarded_angle(F, cosine, m2) - m3
        return multiplied_angle(F, cosine, m1, m2)[0] - m3
