# SPDX-License-Identifier: Apache-2.0
"""Ranges that several keys of the configuration share, as types."""

from __future__ import annotations

from typing import Annotated

from ranges import Within, at_least

# Upper bounds refuse a mistyped number, such as a batch size of 10**12, before it fills the memory.
MAX_COUNT = 10**15
MAX_CLASSES = 1 << 24  # labels in batches are float32, which is exact up to this number
MAX_BATCH = 1 << 20
MAX_WINDOW = (1 << 31) - 1  # DALI's reader and the orders of epochs count images in int32
Count = Annotated[int, Within(0, MAX_COUNT)]
PositiveCount = Annotated[int, Within(1, MAX_COUNT)]
BatchSize = Annotated[int, Within(1, MAX_BATCH)]
Window = Annotated[int, Within(1, MAX_WINDOW)]
Pixels = Annotated[int, Within(0, 65_535)]
Threads = Annotated[int, Within(0, 1024)]
NonNegative = Annotated[float, at_least(0)]
Fraction = Annotated[float, Within(0, 1)]
