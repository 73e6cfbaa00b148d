# SPDX-License-Identifier: Apache-2.0
"""Types of the settings that several heads share: ranges and usual values."""

import math
from typing import Annotated

from ranges import Within, above, at_least

Angle = Annotated[float, Within(0, math.pi / 2, "it is in radians, 0.5 is usual")]
Factor = Annotated[float, Within(0, 4, "1 leaves the angle as it is", open_low=True)]
Cosine = Annotated[float, Within(0, 1, "0.35 is usual")]
Scale = Annotated[float, above(0, "30 to 64 is usual")]
Momentum = Annotated[float, Within(0, 1, "0.01 is usual", open_low=True)]
CenterRate = Annotated[float, Within(0, 1, "0.5 is usual")]
CenterWeight = Annotated[float, at_least(0, "0.003 is usual")]
TermWeight = Annotated[float, at_least(0, "the paper uses 1")]
