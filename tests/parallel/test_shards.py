# SPDX-License-Identifier: Apache-2.0
"""Sharded class centres of real ranks: killed, refused with a damaged shard, resumed."""

from __future__ import annotations

import json
import re
import shutil

import numpy as np
import pytest

from tests.parallel.ranks import (
    Ranks,
    pausable,
    pause_at,
    read_losses,
    read_metrics,
    resumed_at,
    run_several,
    training,
    write_cfg,
)
from tests.parallel.test_refusals import check_refusal
from training.__main__ import main
from training.checkpoint import open_checkpoint

pytestmark = pytest.mark.parallel


def shards_of(folder):
    return sorted(path.name for path in folder.glob("fc7*"))


def test_shards_survive_a_kill_and_another_number_of_ranks(make_records, tmp_path):
    cfg = write_cfg(
        tmp_path,
        make_records(14, 3, image_size=(32, 32)),  # 14 classes: neither 4 nor 3 divide them
        data={"batch_size": 6},
        head={"sharded": True, "sample_rate": 0.5},
        train={"max_steps": 5, "checkpoint_every": 2},
    )
    folder = tmp_path / "runs" / "tiny-001"
    checkpoint = folder / "checkpoints" / "step-00000002"
    with Ranks(2, pausable(cfg), pause_at(3)) as started:
        started.until(checkpoint.exists)
        started.kill_all()
    assert shards_of(checkpoint) == [f"fc7-0000{rank}-of-00002.params" for rank in range(2)]
    shards = open_checkpoint(checkpoint).shards
    assert shards.arrays["fc7_weight"].shape == shards.arrays["fc7_weight_momentum"].shape
    assert shards.sampler["draws"] == 2 and np.asarray(shards.arrays["fc7_weight_momentum"]).any()

    damaged = shutil.copytree(folder, tmp_path / "damaged" / "tiny-001")
    bad = damaged / "checkpoints" / checkpoint.name / "fc7-00001-of-00002.params"
    content = bad.read_bytes()
    bad.write_bytes(content[:-200] + bytes([content[-200] ^ 1]) + content[-199:])
    before = read_metrics(damaged)
    three = training(cfg, "data.batch_size=4")[1:]
    refused, ended = run_several(3, tmp_path, [[*three, f"run.dir={damaged.parent}"], three])
    text = f"{bad}: the shard is damaged, got a size or SHA-256 that differs from manifest.json"
    check_refusal(refused, re.escape(text))
    assert "step " not in refused.stdout and read_metrics(damaged) == before
    assert ended.code == 0, ended.everything
    assert resumed_at(ended) == 2
    losses = read_losses(folder)
    assert sorted(losses) == [1, 2, 3, 4, 5] and np.isfinite(list(losses.values())).all()
    newest = folder / "checkpoints" / "step-00000005"
    assert shards_of(newest) == [f"fc7-0000{rank}-of-00003.params" for rank in range(3)]
    assert open_checkpoint(newest).shards.sampler["draws"] == 5
    assert json.loads((folder / "summary.json").read_text())["status"] == "finished"
    assert main(["shards", "gather", str(folder), "--out", str(tmp_path / "one")]) == 0
    gathered = open_checkpoint(tmp_path / "one").stored_head()["weight"]
    assert np.array_equal(gathered, open_checkpoint(newest).stored_head()["weight"])
