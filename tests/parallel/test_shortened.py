# SPDX-License-Identifier: Apache-2.0
"""A .rec that is cut off while ranks train on it ends them all, with one sentence that names it."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.parallel.ranks import Ranks, read_metrics, training, write_cfg
from tests.parallel.test_refusals import check_refusal

pytestmark = pytest.mark.parallel

WAYS: dict[str, dict[str, Any]] = {
    "native": {},
    "dali-window": {"decode": "cpu", "reader": "window", "window": 20},
}


@pytest.mark.parametrize(
    ("size", "way", "left"),
    [(1, "dali-window", 3), (2, "native", 0)],
)
def test_all_ranks_end_with_one_sentence(
    tmp_path: Path, tiny_records: Path, size: int, way: str, left: int
) -> None:
    rec = shutil.copytree(tiny_records, tmp_path / "records") / "train.rec"
    whole, left = rec.stat().st_size, left * 4096 + 17
    train = {"max_steps": 100_000, "log_every": 2, "checkpoint_every": 100_000}
    cfg = write_cfg(tmp_path, rec.parent, data=WAYS[way], train=train)
    with Ranks(size, training(cfg)) as ranks:
        ranks.until(lambda: read_metrics(tmp_path / "runs" / "tiny-001"))
        os.truncate(rec, left)
        ended = ranks.wait()
    sentence = (
        f"{rec}: became shorter while it was read, got {left} bytes where {whole} were mapped; "
        "copy it again and give the same command"
    )
    check_refusal(ended, re.escape(sentence))
