# SPDX-License-Identifier: Apache-2.0
"""Durations: parsing, and conversion to images."""

from __future__ import annotations

import pytest

from launch.config.duration import Duration


@pytest.mark.parametrize(
    ("text", "amount", "unit", "images"),
    [
        ("51200000 images", 51200000, "images", 51200000),
        ("1 image", 1, "images", 1),
        ("5.12e7 images", 51200000, "images", 51200000),
        ("1E3 images", 1000, "images", 1000),
        ("100000 steps", 100000, "steps", 3200000),
        ("1 step", 1, "steps", 32),
        ("2.5 epochs", 2.5, "epochs", 2500),
        (" 1 epoch ", 1, "epochs", 1000),
        ("10 %", 10, "%", 800),
        (".5%", 0.5, "%", 40),
        (0, 0, "images", 0),
        ("0", 0, "images", 0),
        ("9e15 images", 9e15, "images", 9 * 10**15),
    ],
)
def test_durations_are_parsed_and_converted_to_images(text, amount, unit, images):
    duration = Duration.parse(text)
    assert (duration.amount, duration.unit) == (amount, unit)
    assert duration.images(epoch_images=1000, run_images=8000, step_images=32) == images
    assert Duration.parse(str(duration)) == duration


@pytest.mark.parametrize("text", [5, "5", "-1 epochs", "epochs", "1e images", None, True])
def test_other_text_is_no_duration(text):
    with pytest.raises(ValueError, match="expected a duration like"):
        Duration.parse(text)


@pytest.mark.parametrize("text", ["1e46 images", "1e999 steps", "9007199254740993000 images"])
def test_a_huge_amount_is_refused_with_the_limit(text):
    with pytest.raises(ValueError, match="expected an amount of at most 9007199254740992, got"):
        Duration.parse(text)
