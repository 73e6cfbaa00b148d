# SPDX-License-Identifier: Apache-2.0
"""Width of a network: a factor on the numbers of channels of its layers."""

from typing import Annotated

from ranges import Within

Width = Annotated[float, Within(0, 8, "the width in the paper is 1.0", open_low=True)]


def scale_channels(channels: int, width: float) -> int:
    """Multiply a number of channels by ``width``; round the product to a positive multiple of 8."""
    return max(8, int(channels * width / 8 + 0.5) * 8)
