# SPDX-License-Identifier: Apache-2.0
"""Annotated types of the settings that several heads share, with their ranges and usual values."""

import math
from typing import Annotated

from ranges import Within, above, at_least

Angle = Annotated[float, Within(0, math.pi / 2, "the usual margin is 0.5 radians")]
Factor = Annotated[float, Within(0, 4, "factor 1 does not change the angle", open_low=True)]
Cosine = Annotated[float, Within(0, 1, "the usual margin is 0.35")]
Scale = Annotated[float, above(0, "the usual scale is 30 to 64")]
Momentum = Annotated[float, Within(0, 1, "the usual momentum is 0.01", open_low=True)]
CenterRate = Annotated[float, Within(0, 1, "the usual rate is 0.5")]
CenterWeight = Annotated[float, at_least(0, "the usual weight is 0.003")]
TermWeight = Annotated[float, at_least(0, "the weight in the paper is 1")]
