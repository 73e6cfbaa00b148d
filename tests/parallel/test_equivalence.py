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


Weights = dict[str, np.ndarray]
MODES = ("straight", "native", "center", "adacos")


@pytest.fixture(scope="module")
def trained(tiny_records: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[tuple, Weights]:
    """Return the weights of all trainings, by number of ranks, gradient norm and mode."""
    plain = [(0.0, mode) for mode in MODES]
    clipped = [(CLIP_NORM, "straight")]
    averaging = [(CLIP_NORM, "host"), (CLIP_NORM, "averaged")]
    one = train_all(tiny_records, tmp_path_factory.mktemp("one"), 1, 8, plain + clipped)
    pair = tmp_path_factory.mktemp("two")
    return one | train_all(tiny_records, pair, 2, 4, plain + clipped + averaging)


def train_all(
    records: Path, folder: Path, ranks: int, batch_size: int, trainings: list[tuple[float, str]]
) -> dict[tuple, Weights]:
    """Train with each gradient norm and mode, all in the same ranks."""
    files = {x: folder / f"{x[0]}-{x[1]}.npz" for x in trainings}
    given = [part for (clip, mode), file in files.items() for part in (clip, file, mode)]
    ended = run(ranks, [HERE / "equivalence.py", records, batch_size, STEPS, *given])
    assert ended.code == 0, ended.everything
    print(f"{ranks} x {batch_size}: {ended.stdout}")
    # The weights must have changed, or the comparison would prove nothing.
    moved = [float(text) for text in re.findall(r"moved ([\d.]+)", ended.stdout)]
    assert len(moved) == len(trainings) and min(moved) > 0.01, ended.everything
    found = {}
    for (clip, mode), file in files.items():
        with np.load(file) as arrays:
            found[ranks, clip, mode] = dict(arrays)
    return found


def largest_difference(a: Weights, b: Weights) -> float:
    assert set(a) == set(b)
    return max(float(np.abs(a[name] - b[name]).max()) for name in a)


STATISTICS_CHANGED = {
    "native": lambda found: abs(found["head.lengths"] - [20, 100]).min() > 10,  # AdaFace
    "center": lambda found: abs(found["head.centers"]).max() > 0.01,
    "adacos": lambda found: True,  # equal weights prove an equal scale
}


@pytest.mark.parametrize("mode", STATISTICS_CHANGED)
def test_two_ranks_with_fused_operators_and_a_head_with_statistics_equal_one(mode, trained):
    one, two = trained[1, 0.0, mode], trained[2, 0.0, mode]
    assert largest_difference(one, two) <= 1e-4
    assert STATISTICS_CHANGED[mode](one)


def test_two_ranks_equal_one_with_the_double_batch(trained):
    # The net has no BatchNorm, whose statistics depend on the batch of one rank.
    for clip in (0.0, CLIP_NORM):
        one, two = (trained[ranks, clip, "straight"] for ranks in (1, 2))
        assert largest_difference(one, two) <= 1e-4
    unclipped, clipped = (trained[2, clip, "straight"] for clip in (0.0, CLIP_NORM))
    assert largest_difference(unclipped, clipped) > 1e-3


@pytest.mark.parametrize("mode", ["host", "averaged"])
def test_the_averaging_mode_changes_no_weight(mode, trained):
    # Clipping reveals a sum in place of a mean.
    straight, other = (trained[2, CLIP_NORM, x] for x in ("straight", mode))
    assert largest_difference(straight, other) <= 1e-6
