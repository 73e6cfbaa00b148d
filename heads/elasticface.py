# SPDX-License-Identifier: Apache-2.0
"""ElasticFace."""

import math
from collections.abc import Iterator
from typing import Annotated, Any

from heads.margin_softmax import MarginSoftmax
from heads.margins import additive_angles
from heads.settings import Angle
from ranges import at_least


class ElasticFace(MarginSoftmax):
    """ArcFace with a random margin for each image in every step.

    s c_j; true class: s cos(t + e), guarded, e drawn from N(m2, sigma)

    Boutros et al., "ElasticFace", arXiv:2109.09416, equation 6 (ElasticFace-Arc), section 3.3 for
    `plus`.

    The guard of `arcface`, where t > pi - e, is in neither paper nor code: without it cos(t + e)
    rises again.

    Parameters
    ----------
    m2
        Mean of the margins, in radians; the margins are clipped to 0 to pi/2.
    sigma
        Standard deviation of the margins, in radians; the authors use 0.05, and 0.0175 with `plus`.
    plus
        Whether images farther from the centre of their class get the larger margins.
    by_argsort
        With `plus`: whether image i gets the sorted margin number argsort(c)[i], as in the authors'
        code, instead of the margin of its rank.
    """

    def __init__(
        self,
        *sizes: int,
        m2: Angle = 0.5,
        sigma: Annotated[float, at_least(0, "0.05 is usual")] = 0.05,
        plus: bool = False,
        by_argsort: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(*sizes, **kwargs)
        self._m2, self._sigma, self._plus, self._by_argsort = m2, sigma, plus, by_argsort

    @staticmethod
    def problems(options: dict[str, Any]) -> Iterator[tuple[str, str]]:
        """Yield (key, sentence) of settings that exclude each other."""
        if options["by_argsort"] and not options["plus"]:
            yield "by_argsort", "needs head.plus=true, got head.plus=false; set head.plus=true"

    def margin(self, F: Any, cosine: Any, embedding: Any) -> tuple[Any, Any]:
        margins = self._m2 + self._sigma * F.random.normal_like(cosine)
        margins = F.clip(margins, 0.0, math.pi / 2)
        if self._plus:
            place = F.argsort(cosine, axis=0, is_ascend=False)  # images, the nearest first
            if not self._by_argsort:
                place = F.argsort(place, axis=0)  # rank of each image; 0 is the nearest
            margins = F.take(F.sort(F.BlockGrad(margins), axis=0), place)
        return additive_angles(F, cosine, margins)[:2]
