# SPDX-License-Identifier: Apache-2.0
"""Comparison of the command ``check`` with the decoder alone."""

from __future__ import annotations

import pytest

from tools import check_speed


def test_the_command_and_the_decoder_read_the_same_set_and_ratios_are_per_round(tmp_path):
    records = check_speed.make_set(tmp_path, 200)
    times = check_speed.measure(records, rounds=1)
    assert list(times) == ["check", "decoder"]
    assert all(len(seconds) == 1 and seconds[0] > 0 for seconds in times.values())
    figures = check_speed.summarize({"check": [2.0, 4.0, 5.0], "decoder": [1.0, 3.0, 2.0]}, 100)
    assert figures["ratio"] == pytest.approx(0.5)
    assert figures["check"]["images_per_second"] == pytest.approx(25.0)
