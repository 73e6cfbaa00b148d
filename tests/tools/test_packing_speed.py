# SPDX-License-Identifier: Apache-2.0
"""Comparison of packing with copying."""

from __future__ import annotations

from tools import packing_speed


def test_every_candidate_stores_the_images_and_medians_are_compared(tmp_path):
    packing_speed.write_images(tmp_path / "images", 2, 3)
    times = packing_speed.measure(tmp_path / "images", tmp_path, rounds=1, processes=1)
    assert list(times) == ["ours pack", "cp -r", "shutil.copytree"]
    assert all(len(seconds) == 1 and seconds[0] > 0 for seconds in times.values())
    assert not (tmp_path / "out").exists()
    rows = packing_speed.summarize({"ours pack": [1.0, 2.0, 9.0], "cp -r": [4.0] * 3}, 100)
    assert [row["times_ours"] for row in rows] == [1.0, 0.5]
    assert [row["images_per_second"] for row in rows] == [50.0, 25.0]
