# SPDX-License-Identifier: Apache-2.0
"""Two ranks with a batch of B train like one rank with a batch of 2 B."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from tests.parallel.ranks import HERE, run

pytestmark = pytest.mark.parallel

STEPS = 20


def weights(
    records: Path, out: Path, ranks: int, batch_size: int, clip: float, mode: str = "straight"
) -> dict:
    ended = run(ranks, [HERE / "equivalence.py", records, batch_size, STEPS, clip, out, mode])
    assert ended.code == 0, ended.everything
    print(f"{ranks} x {batch_size}, clip_norm {clip}, {mode}: {ended.stdout}")
    # The weights must have changed, or the comparison would prove nothing.
    assert float(re.search(r"moved ([\d.]+)", ended.stdout)[1]) > 0.01
    with np.load(out) as file:
        return dict(file)


def largest_difference(a: dict, b: dict) -> float:
    assert set(a) == set(b)
    return max(float(np.abs(a[name] - b[name]).max()) for name in a)


def test_two_ranks_with_the_fused_operators_equal_one(tiny_records, tmp_path):
    one = weights(tiny_records, tmp_path / "one.npz", 1, 8, 0.0, "native")
    two = weights(tiny_records, tmp_path / "two.npz", 2, 4, 0.0, "native")
    assert largest_difference(one, two) <= 1e-4
    assert abs(one["head.lengths"] - [20, 100]).min() > 10  # AdaFace's running statistics changed


def test_center_loss_updates_centres_from_the_images_of_both_ranks(tiny_records, tmp_path):
    one = weights(tiny_records, tmp_path / "one.npz", 1, 8, 0.0, "center")
    two = weights(tiny_records, tmp_path / "two.npz", 2, 4, 0.0, "center")
    assert largest_difference(one, two) <= 1e-4
    assert abs(one["head.centers"]).max() > 0.01


def test_adacos_updates_its_scale_from_the_images_of_both_ranks(tiny_records, tmp_path):
    one = weights(tiny_records, tmp_path / "one.npz", 1, 8, 0.0, "adacos")
    two = weights(tiny_records, tmp_path / "two.npz", 2, 4, 0.0, "adacos")
    assert largest_difference(one, two) <= 1e-4


def test_two_ranks_equal_one_with_the_double_batch(tiny_records, tmp_path):
    results = {}
    # The net has no BatchNorm, whose statistics depend on the batch of one rank. A norm of 2.0
    # clips the gradients here.
    for clip in (0.0, 2.0):
        one = weights(tiny_records, tmp_path / "one.npz", 1, 8, clip)
        two = weights(tiny_records, tmp_path / "two.npz", 2, 4, clip)
        difference = largest_difference(one, two)
        print(f"clip_norm {clip}: largest difference of the weights {difference:.2e}")
        assert difference <= 1e-4
        results[clip] = one
    assert largest_difference(results[0.0], results[2.0]) > 1e-3


@pytest.mark.parametrize("mode", ["host", "averaged"])
def test_the_averaging_mode_changes_no_weight(mode, tiny_records, tmp_path):
    # Clipping reveals a sum in place of a mean.
    straight = weights(tiny_records, tmp_path / "straight.npz", 2, 4, 2.0)
    other = weights(tiny_records, tmp_path / f"{mode}.npz", 2, 4, 2.0, mode)
    assert largest_difference(straight, other) <= 1e-6
