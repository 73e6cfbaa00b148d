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
CLIP_NORM = 2.0  # below the norm of the gradients here


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


@pytest.fixture(scope="module")
def clipped(tiny_records: Path, tmp_path_factory: pytest.TempPathFactory) -> dict:
    """Return the weights of two ranks with clipped gradients, which Horovod averages directly."""
    return weights(tiny_records, tmp_path_factory.mktemp("clipped") / "two.npz", 2, 4, CLIP_NORM)


STATISTICS_CHANGED = {
    "native": lambda found: abs(found["head.lengths"] - [20, 100]).min() > 10,  # AdaFace
    "center": lambda found: abs(found["head.centers"]).max() > 0.01,
    "adacos": lambda found: True,  # equal weights prove an equal scale
}


@pytest.mark.parametrize("mode", STATISTICS_CHANGED)
def test_two_ranks_with_fused_operators_and_a_head_with_statistics_equal_one(
    mode, tiny_records, tmp_path
):
    one = weights(tiny_records, tmp_path / "one.npz", 1, 8, 0.0, mode)
    two = weights(tiny_records, tmp_path / "two.npz", 2, 4, 0.0, mode)
    assert largest_difference(one, two) <= 1e-4
    assert STATISTICS_CHANGED[mode](one)


def test_two_ranks_equal_one_with_the_double_batch(clipped, tiny_records, tmp_path):
    # The net has no BatchNorm, whose statistics depend on the batch of one rank.
    unclipped = weights(tiny_records, tmp_path / "two.npz", 2, 4, 0.0)
    one = {
        clip: weights(tiny_records, tmp_path / "one.npz", 1, 8, clip) for clip in (0.0, CLIP_NORM)
    }
    assert largest_difference(one[0.0], unclipped) <= 1e-4
    assert largest_difference(one[CLIP_NORM], clipped) <= 1e-4
    assert largest_difference(unclipped, clipped) > 1e-3


@pytest.mark.parametrize("mode", ["host", "averaged"])
def test_the_averaging_mode_changes_no_weight(mode, clipped, tiny_records, tmp_path):
    # Clipping reveals a sum in place of a mean.
    other = weights(tiny_records, tmp_path / f"{mode}.npz", 2, 4, CLIP_NORM, mode)
    assert largest_difference(clipped, other) <= 1e-6
