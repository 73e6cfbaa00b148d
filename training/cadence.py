# SPDX-License-Identifier: Apache-2.0
"""Steps at which a run writes log lines, saves checkpoints and verifies the net."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Cadence:
    """Numbers of steps between log lines, checkpoints and verifications.

    With ``verify_every=0`` the run verifies only at its end.
    """

    log_every: int = 20
    checkpoint_every: int = 1000
    verify_every: int = 0

    def saves(self, step: int, last: bool) -> bool:
        """Return whether to save a checkpoint after a step; ``last`` marks the last step."""
        return last or is_due(step, self.checkpoint_every)

    def verifies(self, step: int, last: bool) -> bool:
        """Return whether to verify the net after a step."""
        return last or is_due(step, self.verify_every)


def is_due(step: int, every: int) -> bool:
    """Return whether a step is a multiple of ``every``; False for ``every=0``."""
    return every > 0 and step % every == 0
