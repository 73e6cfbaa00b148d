# SPDX-License-Identifier: Apache-2.0
"""Shared ranges of keys: usual values are inside, typing errors such as 10**12 are outside."""

from __future__ import annotations

import pytest

from launch.config import bounds
from ranges import setting


@pytest.mark.parametrize(
    ("name", "usual"),
    [
        ("Count", 10**12),
        ("PositiveCount", 10**9),
        ("BatchSize", 512),
        ("Window", 10**7),
        ("Pixels", 112),
        ("Threads", 64),
    ],
)
def test_usual_values_are_inside_and_enormous_ones_outside(name, usual):
    declared = setting("key", getattr(bounds, name), 1)
    assert not declared.problem(usual)
    for value in (10**16, -1, 10**400):
        assert "must be a whole number" in declared.problem(value)
