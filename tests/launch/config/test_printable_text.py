# SPDX-License-Identifier: Apache-2.0
"""Names with control characters in messages of one line."""

from __future__ import annotations

import os

import pytest

from launch.config.printable_text import printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Zoë 李 1.jpg", "Zoë 李 1.jpg"),
        ("a\nb\r\x1b[31m", r"a\nb\r\x1b[31m"),
        (os.fsdecode(b"\xff.jpg"), r"\udcff.jpg"),
        (12, "12"),
    ],
)
def test_only_characters_that_break_a_line_are_escaped(text, shown):
    assert printable(text) == shown
