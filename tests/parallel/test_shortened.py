# SPDX-License-Identifier: Apache-2.0
"""A .rec that is truncated during training ends all ranks with one message that names it."""

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

DATA_SECTIONS: dict[str, dict[str, Any]] = {
    "native": {},
    "dali-window": {"decode": "cpu", "reader": "window", "window": 20},
}


@pytest.mark.parametrize(
    ("size", "decoder", "pages"),
    [(1, "dali-window", 3), (2, "native", 0)],
)
def test_a_truncated_record_file_ends_all_ranks_with_one_message(
    tmp_path: Path, tiny_records: Path, size: int, decoder: str, pages: int
) -> None:
    rec = shutil.copytree(tiny_records, tmp_path / "records") / "train.rec"
    before, after = rec.stat().st_size, pages * 4096 + 17
    train = {"max_steps": 100_000, "log_every": 2, "checkpoint_every": 100_000}
    cfg = write_cfg(tmp_path, rec.parent, data=DATA_SECTIONS[decoder], train=train)
    with Ranks(size, training(cfg)) as ranks:
        ranks.until(lambda: read_metrics(tmp_path / "runs" / "tiny-001"))
        os.truncate(rec, after)
        ended = ranks.wait()
    sentence = (
        f"{rec}: became shorter while it was read, got {after} bytes where {before} were mapped; "
        "copy the file again and rerun the command"
    )
    check_refusal(ended, re.escape(sentence))
