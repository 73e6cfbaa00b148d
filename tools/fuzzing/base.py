# SPDX-License-Identifier: Apache-2.0
"""Interface of the fuzzer's targets, and images for their seed files."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np

SIDE_PIXELS = 24


class Target(Protocol):
    """Interface of a fuzzing target, which passes changed files to one reader."""

    refusals: tuple[type[Exception], ...]
    messages_state_value: bool
    """Whether each message must have the form "<what>, got <value>; <what to do>"."""
    has_address_limit: bool
    """Whether the address space of the process may be limited; sanitizers reserve terabytes."""
    start_bytes: int
    """Resident memory of the process before the first case."""

    def prepare(self, folder: Path) -> None: ...

    def case(self, rng: random.Random) -> None: ...


def make_image(number: int, suffix: str = ".jpg", side: int = SIDE_PIXELS) -> bytes:
    """Return an encoded image of random smooth colours."""
    pixels = np.random.default_rng(number).integers(0, 255, (6, 6, 3), np.uint8)
    return cv2.imencode(suffix, cv2.resize(pixels, (side, side)))[1].tobytes()


class BaseTarget:
    """Default properties of a fuzzing target."""

    refusals: tuple[type[Exception], ...] = ()
    has_address_limit = True
    messages_state_value = True
    start_bytes = 0
