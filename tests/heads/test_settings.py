# SPDX-License-Identifier: Apache-2.0
"""Ranges that several heads share."""

from __future__ import annotations

import math

import pytest

from heads import settings
from ranges import setting


@pytest.mark.parametrize(
    ("name", "inside", "outside"),
    [
        ("Angle", [0, 0.5, math.pi / 2], [-0.1, 1.6, "0.5", True]),
        ("Factor", [0.1, 4], [0, 4.1]),
        ("Cosine", [0, 1], [-0.1, 1.1]),
        ("Scale", [0.1, 1e6], [0, math.inf, math.nan]),
        ("Momentum", [0.01, 1], [0, 1.1]),
        ("CenterRate", [0, 1], [-0.1, 1.1]),
        ("CenterWeight", [0, 10], [-1]),
        ("TermWeight", [0, 10], [-1]),
    ],
)
def test_ends_of_the_ranges(name, inside, outside):
    declared = setting("x", getattr(settings, name), None)
    assert [declared.problem(value) for value in inside] == [""] * len(inside)
    assert all(declared.problem(value) for value in outside)
