# SPDX-License-Identifier: Apache-2.0
"""List the steps of the GPU measurements with their modules, time limits and numbers of GPUs.

Basic steps come before steps that depend on them, cheap steps before expensive steps, and steps for
one GPU before steps for several GPUs.  The module imports only the standard library.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Step:
    """One step of the GPU measurements.

    Parameters
    ----------
    number, name
        Number and name of the step; the steps run in the order of their numbers.
    module
        Module of this package with the function ``measure``.
    limit_s
        Time limit in seconds on a machine with GPUs.
    gpus
        Smallest number of GPUs that the step needs; with fewer GPUs, but at least one, the step is
        skipped.
    rehearsal_s
        Time limit in seconds without a GPU; 0 means that the step is skipped without a GPU.
    command
        Program and arguments to run instead of the module.  In an argument, {results} is replaced
        by the path of the file to which the program must write its results.
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
        """Return the number and the name of the step as one string."""
        return f"{self.number} {self.name}"

    def time_limit(self, gpus: int) -> float:
        """Return the time limit in seconds on a machine with this number of GPUs."""
        return self.limit_s if gpus else self.rehearsal_s

    def reason_to_skip(self, gpus: int) -> str:
        """Return why the step cannot run with this number of GPUs, or "" if the step can run."""
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
"""All steps; together they take at most 10 minutes with GPUs and at most 5 minutes without."""


def choose(steps: Sequence[Step], numbers: Sequence[int]) -> list[Step]:
    """Return the steps with these numbers, or all steps if ``numbers`` is empty."""
    return [step for step in steps if not numbers or step.number in numbers]
