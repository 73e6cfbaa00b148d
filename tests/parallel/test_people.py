# SPDX-License-Identifier: Apache-2.0
"""Triplets from groups of people on two ranks, and their resumption on one rank."""

from __future__ import annotations

import json
import re
from collections import Counter

import numpy as np
import pytest

from tests.parallel.ranks import HERE, Ranks, pause_at, read_losses, resumed_at, run, write_cfg

pytestmark = pytest.mark.parallel
RECORDER = HERE / "record_labels.py"


def test_groups_of_people_on_two_ranks_resume_on_one_rank(make_records, tmp_path):
    # 14 people: an epoch has 28 images in three steps of 2 x 4 and drops two people.
    cfg = write_cfg(
        tmp_path,
        make_records(14, 3),
        data={"images_per_person": 2},
        head={"name": "triplet", "margin": 0.5},
        train={"max_steps": 0, "epochs": 6, "checkpoint_every": 2},
    )
    folder = tmp_path / "runs" / "tiny-001"
    with Ranks(2, [RECORDER, tmp_path / "two", "--cfg", cfg], pause_at(4)) as started:
        # The log line of step 4 appears before its checkpoint, so wait for the checkpoint.
        started.until((folder / "checkpoints" / "step-00000004").exists)
        started.kill_all()
    ended = run(1, [RECORDER, tmp_path / "one", "--cfg", cfg, "data.batch_size=8"])
    assert ended.code == 0, ended.everything
    resumed = resumed_at(ended)
    assert resumed == 4, ended.everything

    ranks = [tmp_path / "two" / f"rank-{rank}.txt" for rank in range(2)]
    before = np.stack([np.loadtxt(rank, dtype=int)[:resumed] for rank in ranks], axis=1)
    after = np.loadtxt(tmp_path / "one" / "rank-0.txt", dtype=int)
    steps = np.concatenate([before.reshape(-1, 8), after])
    assert len(steps) == 18
    assert (steps[:, ::2] == steps[:, 1::2]).all()  # each rank has complete groups
    for epoch in steps.reshape(6, 24):
        assert set(Counter(epoch.tolist()).values()) == {2} and len(set(epoch.tolist())) == 12
    losses = read_losses(folder)
    assert sorted(losses) == list(range(1, 19)) and all(np.isfinite([*losses.values()]))
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["status"] == "finished" and summary["epochs"] == 6


def test_two_ranks_train_on_bags_in_step_and_checkpoint_the_start_of_a_bag(make_records, tmp_path):
    cfg = write_cfg(
        tmp_path,
        make_records(12, 5),
        data={"batch_size": 6, "images_per_person": 3, "bag": 18},
        head={"name": "triplet", "mining": "blocks", "margin": 1.0},
        train={"max_steps": 9, "checkpoint_every": 4},
    )
    ended = run(2, [RECORDER, tmp_path / "labels", "--cfg", cfg])
    assert ended.code == 0, ended.everything
    for rank in range(2):
        labels = np.loadtxt(tmp_path / "labels" / f"rank-{rank}.txt", dtype=int).reshape(-1, 3, 2)
        assert len(labels) == 9
        assert (labels[:, 0] == labels[:, 1]).all() and (labels[:, 0] != labels[:, 2]).all()
    bag = r"^bag at epoch \d, image (\d+): \d+ triplets found in 18"
    starts = re.findall(bag, ended.stdout, re.M)
    assert starts[:1] == ["0"] and all(int(start) % 36 == 0 for start in starts)
    state = json.loads(
        (tmp_path / "runs/tiny-001/checkpoints/step-00000008/state.json").read_text()
    )
    assert str(state["progress"]["consumed"]) in starts
