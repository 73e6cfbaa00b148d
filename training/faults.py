# SPDX-License-Identifier: Apache-2.0
"""How a run ends before its end, on all ranks at the same step."""

from __future__ import annotations


class TrainingError(RuntimeError):
    """Training that cannot go on; ``usage`` tells a fault of the data or the disk from others."""

    def __init__(self, text: str, usage: bool = False):
        super().__init__(text)
        self.usage = usage


class Stopped(Exception):
    """The run was asked to stop (SIGTERM or SIGINT) and has."""
