# SPDX-License-Identifier: Apache-2.0
"""Two ranks with one decoded cache: the losses of two without, and nothing left in memory."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pipeline.decoded_cache import FOLDER, PREFIX
from tests.parallel.ranks import read_losses, run, training, write_cfg

pytestmark = pytest.mark.parallel


def caches() -> set[Path]:
    return set(FOLDER.glob(f"{PREFIX}{os.getuid()}-*"))


def test_two_ranks_share_what_is_decoded(tiny_records, tmp_path):
    cfg = write_cfg(tmp_path, tiny_records, train={"max_steps": 12}, data={"batch_size": 8})
    left = caches()
    for name, mib in (("decoded", 0), ("cached", 5)):
        ended = run(2, training(cfg, f"data.decoded_cache_mib={mib}", f"run.name={name}"))
        assert ended.code == 0, ended.everything
        assert caches() <= left
    found = [read_losses(tmp_path / "runs" / f"{name}-001") for name in ("decoded", "cached")]
    assert found[0] == found[1] and len(found[0]) > 1


def test_two_ranks_refuse_a_set_that_does_not_fit(tiny_records, tmp_path):
    cfg = write_cfg(tmp_path, tiny_records, data={"batch_size": 8})
    ended = run(2, training(cfg, "data.decoded_cache_mib=1"))
    assert ended.code != 0
    assert (
        f"data.decoded_cache_mib: the pictures of {tiny_records / 'train.rec'} need 5 MiB decoded, "
        "got 1; raise it, or set it to 0"
    ) in ended.said, ended.everything
    assert "Traceback" not in ended.stderr
