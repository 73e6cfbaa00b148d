# SPDX-License-Identifier: Apache-2.0
"""Steps of log lines, checkpoints and verifications."""

from __future__ import annotations

from training.cadence import Cadence, is_due


def test_a_checkpoint_and_a_verification_are_due_at_multiples_and_at_the_end():
    cadence = Cadence(checkpoint_every=4, verify_every=3)
    assert [step for step in range(1, 11) if cadence.saves(step, step == 10)] == [4, 8, 10]
    assert [step for step in range(1, 11) if cadence.verifies(step, step == 10)] == [3, 6, 9, 10]


def test_0_means_never():
    assert not is_due(10, 0)
    assert [step for step in range(1, 11) if Cadence().verifies(step, step == 10)] == [10]
