# SPDX-License-Identifier: Apache-2.0
"""Learning rates and margins against tables computed by hand."""

from __future__ import annotations

import pytest

from training.schedule import learning_rate, margin_fraction


def rates(places, **options):
    return [learning_rate(images, **{"lr": 0.4, "end": 1000, **options}) for images in places]


def test_the_step_schedule_has_warmup_and_milestones():
    options = {"schedule": "step", "warmup": 100, "milestones": [500, 800], "decay": 0.1}
    places = [0, 25, 50, 99, 100, 499, 500, 799, 800, 1000]
    expected = [0, 0.1, 0.2, 0.396, 0.4, 0.4, 0.04, 0.04, 0.004, 0.004]
    assert rates(places, **options) == pytest.approx(expected)


def test_the_step_schedule_without_milestones_is_constant():
    assert rates([0, 1000, 5000], schedule="step") == [0.4, 0.4, 0.4]


def test_milestones_may_come_in_any_order():
    assert rates([600], schedule="step", milestones=[800, 500], decay=0.5) == [0.2]


def test_the_cosine_schedule_ends_at_final_lr():
    options = {"schedule": "cosine", "warmup": 200, "final_lr": 0.2}
    # From the end of the warm-up: 1, cos(60 deg), cos(90 deg), cos(120 deg), -1.
    places = [0, 100, 200, 200 + 800 / 3, 600, 200 + 1600 / 3, 1000, 1200]
    expected = [0, 0.2, 0.4, 0.35, 0.3, 0.25, 0.2, 0.2]
    assert rates(places, **options) == pytest.approx(expected)


def test_the_polynomial_schedule_ends_at_final_lr():
    options = {"schedule": "polynomial", "power": 2.0, "final_lr": 0.04}
    places = [0, 500, 750, 1000, 1100]
    assert rates(places, **options) == pytest.approx([0.4, 0.13, 0.0625, 0.04, 0.04])
    assert rates([250], schedule="polynomial", power=1.0) == pytest.approx([0.3])


@pytest.mark.parametrize("schedule", ["step", "cosine", "polynomial"])
def test_the_warmup_may_last_the_entire_run(schedule):
    assert rates([500, 999], schedule=schedule, warmup=1000) == pytest.approx([0.2, 0.3996])
    assert rates([1000], schedule=schedule, warmup=1000)[0] in (0.4, 0.0)


def test_an_unknown_schedule_is_refused():
    with pytest.raises(ValueError) as caught:
        learning_rate(0, "linear", 0.1, 10)
    assert str(caught.value) == (
        "optim.schedule: must be 'step', 'cosine' or 'polynomial', got 'linear'"
    )


def test_the_margin_starts_and_rises_linearly():
    places = [0, 99, 100, 150, 200, 300]
    found = [margin_fraction(images, start=100, warmup=100) for images in places]
    assert found == [0, 0, 0, 0.5, 1, 1]
    assert [margin_fraction(images, start=100) for images in (99, 100)] == [0, 1]
    assert margin_fraction(0) == 1
    assert margin_fraction(5, warmup=20) == 0.25
