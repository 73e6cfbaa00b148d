# SPDX-License-Identifier: Apache-2.0
"""Verification sets of random images, and a run folder with a checkpoint of a tiny net."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

import ops
from evaluation.pairs import write_pairs
from tests.runs import save_run


@pytest.fixture(autouse=True)
def plain_again():
    """Choose the plain operators after each test, as at the start of a process."""
    yield
    ops.use("plain")


@pytest.fixture
def sets(tmp_path) -> Path:
    folder = tmp_path / "sets"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name, pairs in (("one", 12), ("two", 15)):
        pixels = rng.integers(0, 256, (2 * pairs, 112, 112, 3), dtype=np.uint8)
        images = [cv2.imencode(".png", x)[1].tobytes() for x in pixels]
        write_pairs(folder / f"{name}.bin", images, [i % 2 == 0 for i in range(pairs)])
    return folder


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory) -> Path:
    """Return a run folder with a checkpoint of a tiny real net, and a stored threshold of 0.25."""
    results = {"sample": {"pairs": 10, "best_threshold": 1.5}}
    return save_run(tmp_path_factory.mktemp("run"), verification=results)
