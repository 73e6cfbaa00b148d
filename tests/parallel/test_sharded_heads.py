# SPDX-License-Identifier: Apache-2.0
"""Class centres distributed over ranks train like complete class centres on the same ranks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.parallel.ranks import HERE, run
from tests.parallel.sharded_heads import CASES, FUSED_CASES

pytestmark = pytest.mark.parallel

STEPS = 3
Results = dict[str, np.ndarray]


def trained(folder: Path, ranks: int, operators: str) -> Results:
    """Train all cases on ``ranks`` ranks in one start; return the arrays by name."""
    ended = run(ranks, [HERE / "sharded_heads.py", folder / "found.npz", operators, str(STEPS)])
    assert ended.code == 0, ended.everything
    with np.load(folder / "found.npz") as file:
        return dict(file)


@pytest.fixture(scope="module")
def plain_on_two(tmp_path_factory) -> Results:
    return trained(tmp_path_factory.mktemp("plain"), 2, "plain")


@pytest.fixture(scope="module")
def native_on_three(tmp_path_factory) -> Results:
    return trained(tmp_path_factory.mktemp("native"), 3, "native")


def require_equal(results: Results, case: str) -> None:
    """Require equal losses, cosines, class centres and layers, which training has changed."""

    def both(part: str) -> tuple[np.ndarray, np.ndarray]:
        return results[f"{case}.{part}.complete"], results[f"{case}.{part}.shards"]

    complete, shards = both("losses")
    assert abs(complete - shards).max() <= 1e-5 * abs(complete).min()
    for part in ("cosines", "centres", "net"):
        complete, shards = both(part)
        assert complete.shape == shards.shape
        assert abs(complete - shards).max() <= 1e-4, part
    if "samples" not in case:
        assert np.array_equal(*both("predicted"))
    assert min(both("moved")) > 0.01


@pytest.mark.parametrize("case", CASES)
def test_two_ranks_with_plain_operators_equal_complete_centres(case, plain_on_two):
    require_equal(plain_on_two, case)


@pytest.mark.parametrize("case", [*CASES, *FUSED_CASES])
def test_three_ranks_with_native_operators_equal_complete_centres(case, native_on_three):
    require_equal(native_on_three, case)
