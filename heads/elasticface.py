# SPDX-License-Identifier: Apache-2.0
"""ElasticFace: ArcFace with random margins."""

import math
from collections.abc import Iterator
from typing import Annotated, Any

from heads.margin_softmax import MarginSoftmax
from heads.margins import additive_angles
from heads.settings import Angle
from ranges import at_least


class ElasticFace(MarginSoftmax):
    """ArcFace with a random margin for each image in every step.

    logits s c_j; true class: s cos(t + e) with the guard of arcface, e drawn from N(m2, sigma)

    Boutros et al., "ElasticFace", arXiv:2109.09416, equation 6 (ElasticFace-Arc), section 3.3 for
    `plus`.

    Symbols: c_j is the cosine of an embedding to the centre of class j; c and t are its cosine and
    angle to the centre of the true class; s is ``scale``.

    The guard of `arcface` applies where t > pi - e. The paper and the authors' code have no guard,
    so their cos(t + e) rises again as t grows beyond pi - e.

    Parameters
    ----------
    m2
        Mean of the random margins on the angle, in radians. Each margin is clipped to the range
        from 0 to pi/2.
    sigma
        Standard deviation of the random margins, in radians. The authors use 0.05, and 0.0175 with
        plus=true.
    plus
        Whether the random margins are sorted, so that images farther from the centre of their class
        get larger margins (ElasticFace+).
    by_argsort
        Whether image i gets the element argsort(cosines)[i] of the ascending margins, with a
        descending argsort, as in the authors' code. If false, image i gets the element whose index
        is the position of image i in the descending order of the cosines. The value true requires
        plus=true.
    """

    random_margin = True

    def __init__(
        self,
        *sizes: int,
        m2: Angle = 0.5,
        sigma: Annotated[float, at_least(0, "the usual deviation is 0.05 radians")] = 0.05,
        plus: bool = False,
        by_argsort: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(*sizes, **kwargs)
        self._m2, self._sigma, self._plus, self._by_argsort = m2, sigma, plus, by_argsort

    @staticmethod
    def problems(options: dict[str, Any]) -> Iterator[tuple[str, str]]:
        """Yield a pair (key, sentence) for each setting that contradicts another setting."""
        yield from MarginSoftmax.problems(options)
        if options["by_argsort"] and not options["plus"]:
            yield "by_argsort", "needs head.plus=true, got head.plus=false; set head.plus=true"

    def margin(self, F: Any, cosine: Any, embedding: Any) -> tuple[Any, Any]:
        margins = self._m2 + self._sigma * F.random.normal_like(cosine)
        margins = F.clip(margins, 0.0, math.pi / 2)
        if self._plus:
            # Indices of the images; the image nearest to its class centre comes first.
            place = F.argsort(cosine, axis=0, is_ascend=False)
            if not self._by_argsort:
                # Position of each image in this order; the nearest image has position 0.
                place = F.argsort(place, axis=0)
            margins = F.take(F.sort(F.BlockGrad(margins), axis=0), place)
        return additive_angles(F, cosine, margins)[:2]
