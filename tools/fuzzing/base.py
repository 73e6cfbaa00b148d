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
    """Types of the errors with which the reader may refuse a file."""
    messages_state_value: bool
    """Whether the message of such an error must read "<what>, got <value>; <what to do>"."""
    has_address_limit: bool
    """Whether to limit the address space of the process.

    False for a build with sanitizers, because sanitizers reserve terabytes of address space.
    """
    start_bytes: int
    """Peak resident memory of the process before the first case, in bytes."""

    def prepare(self, folder: Path) -> None: ...

    def case(self, rng: random.Random) -> None: ...


def make_image(number: int, suffix: str = ".jpg", side: int = SIDE_PIXELS) -> bytes:
    """Return an encoded image with a random smooth pattern; ``number`` is the random seed."""
    pixels = np.random.default_rng(number).integers(0, 255, (6, 6, 3), np.uint8)
    return cv2.imencode(suffix, cv2.resize(pixels, (side, side)))[1].tobytes()


class BaseTarget:
    """Default properties of a fuzzing target."""

    refusals: tuple[type[Exception], ...] = ()
    has_address_limit = True
    messages_state_value = True
    start_bytes = 0
