# SPDX-License-Identifier: Apache-2.0
"""The steps of the day: what each is for, how long it may take, how many GPUs it needs.

What can end the day comes first, cheap before dear, one GPU before many.  Standard library only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Step:
    """One step.

    Parameters
    ----------
    number, name
        Its place and what it is about.
    module
        Module of this package whose ``measure`` does it.
    limit_s
        Seconds that it may take on a machine with GPUs.
    gpus
        Number of GPUs without which it is skipped.
    rehearsal_s
        Seconds that it may take without a GPU; 0 skips it there.
    command
        Program and arguments in the place of the module; {results} in them stands for the file that
        its parts go to.
    """

    number: int
    name: str
    module: str = ""
    limit_s: float = 60
    gpus: int = 1
    rehearsal_s: float = 0
    command: tuple[str, ...] = ()

    @property
    def what(self) -> str:
        """Return the name of its line."""
        return f"{self.number} {self.name}"

    def time_limit(self, gpus: int) -> float:
        """Return the seconds that it may take with so many GPUs."""
        return self.limit_s if gpus else self.rehearsal_s

    def reason_to_skip(self, gpus: int) -> str:
        """Return why it cannot be done with so many GPUs, "" if it can."""
        if not gpus and not self.rehearsal_s:
            return "no GPU"
        if 0 < gpus < self.gpus:
            return f"needs {self.gpus} GPUs, got {gpus}"
        return ""


STEPS = (
    Step(0, "machine", "facts", 15, rehearsal_s=15),
    Step(1, "environment", "environment_check", 35, rehearsal_s=50),
    Step(2, "pieces", "pieces", 60, rehearsal_s=90),
    Step(3, "DALI", "decoding", 75),
    Step(4, "fused operators", "fused_operators", 55),
    Step(5, "one rank", "one_rank", 90, rehearsal_s=130),
    Step(6, "two ranks", "two_ranks", 75, gpus=2),
    Step(7, "all ranks", "all_ranks", 140, gpus=2),
    Step(8, "containers", "containers", 45),
    Step(9, "report", "report", 10, rehearsal_s=10),
)
"""With GPUs at most 10 minutes in all, without one at most 5."""


def choose(steps: Sequence[Step], numbers: Sequence[int]) -> list[Step]:
    """Return the steps of some numbers, all of them for no number at all."""
    return [step for step in steps if not numbers or step.number in numbers]
