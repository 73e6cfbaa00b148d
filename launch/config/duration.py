# SPDX-License-Identifier: Apache-2.0
"""Stretches of training as a configuration writes them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal

PATTERN = r"\s*([0-9]*\.?[0-9]+)\s*(images?|epochs?|%)\s*"
"""Regular expression of a duration other than 0: amount and unit."""


@dataclass(frozen=True)
class Duration:
    """A stretch of training, so that schedules are counted in images whatever the batch is.

    Written in YAML as ``51200000 images``, ``2.5 epochs`` or ``10 %`` (of the whole run); a bare
    ``0`` stands for none.
    """

    amount: float = 0.0
    unit: Literal["images", "epochs", "%"] = "images"

    @classmethod
    def parse(cls, text: Any) -> Duration:
        """Read a duration; raise ValueError with what was expected."""
        if text in (0, "0"):
            return cls()
        match = re.fullmatch(PATTERN, str(text))
        if not match:
            raise ValueError(
                "expected a duration like '51200000 images', '2.5 epochs' or '10 %', "
                f"got {text!r}"
            )
        unit = match[2] if match[2] == "%" else match[2].rstrip("s") + "s"
        return cls(float(match[1]), unit)  # type: ignore[arg-type]

    def images(self, epoch_images: int, run_images: int) -> int:
        """Return the number of images for an epoch and a run of the given sizes."""
        scale = {"images": 1.0, "epochs": epoch_images, "%": run_images / 100}[self.unit]
        return round(self.amount * scale)

    def __str__(self) -> str:
        # Digits, not an exponent: what is written to config.yaml must be read back.
        number = f"{self.amount:.9f}".rstrip("0").rstrip(".")
        return f"{number} {self.unit}" if self.amount else "0"


NO_TIME = Duration()
