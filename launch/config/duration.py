# SPDX-License-Identifier: Apache-2.0
"""Durations of training, given in images, steps, epochs or percent of the run."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal

from ranges import shown

PATTERN = r"\s*([0-9]*\.?[0-9]+(?:[eE][-+]?[0-9]+)?)\s*(images?|steps?|epochs?|%)\s*"
"""Regular expression for a duration with a unit; its groups are the amount and the unit."""

MAX_CHARACTERS = 60
"""Maximum number of characters of a duration; a longer text is refused before it is parsed."""
MAX_AMOUNT = 2.0**53
"""Largest amount of a duration; all whole numbers up to this one are exact in float64."""


@dataclass(frozen=True)
class Duration:
    """A duration of training.

    YAML files write a duration as ``51200000 images``, ``100000 steps``, ``2.5 epochs``, ``10 %``
    (of the complete run) or ``0``.  If the unit is steps, the number of images depends on the batch
    size and the number of ranks.
    """

    amount: float = 0.0
    unit: Literal["images", "steps", "epochs", "%"] = "images"

    @classmethod
    def parse(cls, text: Any) -> Duration:
        """Parse a duration as YAML files write it; raise ValueError if the text is no duration."""
        if text in (0, "0"):
            return cls()
        match = re.fullmatch(PATTERN, str(text)) if len(str(text)) <= MAX_CHARACTERS else None
        if match and float(match[1]) > MAX_AMOUNT:
            raise ValueError(f"expected an amount of at most {MAX_AMOUNT:.0f}, got {shown(text)}")
        if not match:
            raise ValueError(
                "expected a duration like '51200000 images', '100000 steps', '2.5 epochs' or "
                f"'10 %', got {shown(text)}"
            )
        unit = match[2] if match[2] == "%" else match[2].rstrip("s") + "s"
        return cls(float(match[1]), unit)  # type: ignore[arg-type]

    def images(self, epoch_images: int, run_images: int, step_images: int) -> int:
        """Convert the duration to a number of images, given the images per epoch, run and step."""
        if self.unit == "%":
            return round(self.amount * run_images / 100)
        return round(
            self.amount * {"images": 1, "steps": step_images, "epochs": epoch_images}[self.unit]
        )

    def __str__(self) -> str:
        # config.yaml stores this text for `parse`.  People read it too, so it has no exponent.
        number = f"{self.amount:.9f}".rstrip("0").rstrip(".")
        return f"{number} {self.unit}" if self.amount else "0"


NO_DURATION = Duration()
