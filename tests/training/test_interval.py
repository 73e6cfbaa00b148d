# SPDX-License-Identifier: Apache-2.0
"""Totals of a process and measurements of a log interval."""

from __future__ import annotations

from training.interval import Interval, Totals


def test_rates_of_a_process_are_per_second_of_training():
    totals = Totals(images=800, seconds=4.0, idle_seconds=1.0)
    assert (totals.images_per_second, totals.data_wait_fraction) == (200.0, 0.25)
    assert (Totals().images_per_second, Totals().data_wait_fraction) == (0.0, 0.0)


def test_intervals_share_no_lists():
    first = Interval(1.0)
    first.losses.append(None)
    first.skipped[1] = "bad"
    assert Interval(2.0).losses == [] and Interval(2.0).skipped == {}
