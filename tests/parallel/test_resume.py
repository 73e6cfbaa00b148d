# SPDX-License-Identifier: Apache-2.0
"""Resumption of killed and stopped runs, also with another number of ranks."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

import pytest

from tests.parallel.kills import MAX_SEGMENT_STEPS, has_partial_checkpoint, kill_often
from tests.parallel.ranks import (
    AUGMENTED,
    HERE,
    Ranks,
    pausable,
    pause_at,
    read_losses,
    resumed_at,
    run,
    training,
    write_cfg,
)

pytestmark = pytest.mark.parallel
RECORDER = HERE / "record_labels.py"


@pytest.fixture(scope="session")
def two_sets(make_records, make_face):
    """Return two record sets: 30 people x 2 images; 17 people x 2 images and 5 people x 1 image."""
    second = [(p, make_face(100 + p, i)) for p in range(22) for i in range(2 if p % 5 else 1)]
    assert len(second) == 39  # p = 0, 5, 10, 15, 20 have one image
    return [make_records(30, 2), make_records(22, 2, samples=second)]


@pytest.mark.parametrize(
    "ranks, moments, seed, augmented",
    [
        (1, ("all, saving",), 1, False),
        (2, ("one",), 3, True),
    ],
    ids=["one rank", "two ranks, two sets, augmented"],
)
def test_a_killed_run_resumes_with_the_losses_of_an_undisturbed_run(
    ranks, moments, seed, augmented, tiny_records, two_sets, tmp_path
):
    steps = MAX_SEGMENT_STEPS * (len(moments) + 1)
    cfg = write_cfg(
        tmp_path,
        two_sets if augmented else tiny_records,
        data={"batch_size": 2, **(AUGMENTED if augmented else {})},
        train={"max_steps": steps, "checkpoint_every": 4, "keep_checkpoints": 2},
    )
    with Ranks(ranks, training(cfg, "run.name=undisturbed")) as undisturbed:
        folder = tmp_path / "runs" / "undisturbed-001"
        undisturbed.until(lambda: max(read_losses(folder), default=0) >= steps - 5)
        reference = read_losses(folder)

    folder = tmp_path / "runs" / "tiny-001"
    kills = kill_often(cfg, folder, ranks, moments, reference, seed)
    print(*kills, sep="\n")
    assert len(kills) == len(moments)
    for kill in kills:
        assert kill.resumed_at == kill.newest_checkpoint
        assert kill.difference <= 1e-5
    assert [path.name for path in folder.parent.iterdir() if path.name.startswith("tiny")] == [
        "tiny-001"
    ]


# 98 images with different labels: an epoch has 12 steps of 2 x 4 = 8 images, or 24 steps of 4.
@pytest.mark.parametrize(
    ("batch_size", "data"),
    [(8, {"decoded_cache_mib": 8}), (4, {"reader": "blocks", "block": 8, "window": 30})],
    ids=["same global batch, decoded cache", "half of it, blocks"],
)
def test_fewer_ranks_resume_without_a_lost_or_duplicate_image(
    batch_size, data, make_records, tmp_path
):
    cfg = write_cfg(
        tmp_path,
        make_records(98, 1),
        data=data,
        train={"max_steps": 0, "epochs": 2, "checkpoint_every": 2},
    )
    folder = _kill_run(2, tmp_path, "two", cfg, after=3)
    overrides = [f"data.batch_size={batch_size}"]
    ended = run(1, [RECORDER, tmp_path / "one", "--cfg", cfg, *overrides])
    assert ended.code == 0, ended.everything
    resumed = resumed_at(ended)
    assert resumed == 2, ended.everything  # in mid-epoch

    before = [_read_labels(tmp_path / "two" / f"rank-{rank}.txt")[:resumed] for rank in range(2)]
    assert all(len(steps) == resumed for steps in before)
    after = _read_labels(tmp_path / "one" / "rank-0.txt")
    assert {len(step) for step in after} == {batch_size}
    used = [x for rank in before for step in rank for x in step]
    rest = (96 - len(used)) // batch_size
    first_epoch = Counter(used + [x for step in after[:rest] for x in step])
    second_epoch = Counter(x for step in after[rest:] for x in step)
    for epoch in (first_epoch, second_epoch):
        assert set(epoch.values()) == {1}  # no duplicate
        assert len(epoch) == 96  # all images but an incomplete last batch
    assert json.loads((folder / "summary.json").read_text())["ranks"] == 1


def test_two_filtered_augmented_sets_resume_without_a_lost_or_duplicate_image(two_sets, tmp_path):
    # The filter keeps 30 and 17 people with two images each: 94 images, 11 steps of 8 per epoch.
    cfg = write_cfg(
        tmp_path,
        two_sets,
        data=AUGMENTED,
        train={"max_steps": 0, "epochs": 1, "checkpoint_every": 2},
    )
    folder = _kill_run(2, tmp_path, "two", cfg, after=5)
    ended = run(1, [RECORDER, tmp_path / "one", "--cfg", cfg, "data.batch_size=8"])
    assert ended.code == 0, ended.everything
    resumed = resumed_at(ended)
    assert resumed == 4, ended.everything
    steps = _read_labels(tmp_path / "one" / "rank-0.txt")
    steps += [
        s
        for rank in range(2)
        for s in _read_labels(tmp_path / "two" / f"rank-{rank}.txt")[:resumed]
    ]
    counts = Counter(x for step in steps for x in step)
    assert set(counts) <= set(range(47)) and max(counts.values()) == 2
    assert sum(counts.values()) == 88  # all images but an incomplete last batch
    classes = json.loads((folder / "classes.json").read_text())
    assert classes["records"] == [str(path / "train.rec") for path in two_sets]
    assert classes["record"] == [0] * 30 + [1] * 17
    assert classes["label"] == [*range(30), *(p for p in range(22) if p % 5)]


def test_more_ranks_resume_without_a_lost_or_duplicate_image(make_records, tmp_path):
    cfg = write_cfg(
        tmp_path,
        make_records(96, 1),
        train={"max_steps": 0, "epochs": 1, "checkpoint_every": 5},
    )
    _kill_run(1, tmp_path, "one", cfg, after=6)
    ended = run(2, [RECORDER, tmp_path / "two", "--cfg", cfg, "data.batch_size=2"])
    assert ended.code == 0, ended.everything
    resumed = resumed_at(ended)
    assert resumed == 5, ended.everything
    steps = _read_labels(tmp_path / "one" / "rank-0.txt")[:resumed]
    steps += [s for rank in range(2) for s in _read_labels(tmp_path / "two" / f"rank-{rank}.txt")]
    assert Counter(x for step in steps for x in step) == Counter(range(96))


def test_a_run_killed_in_its_last_verification_verifies_when_resumed(tiny_records, tmp_path):
    cfg = write_cfg(
        tmp_path,
        tiny_records,
        train={"max_steps": 3, "checkpoint_every": 10},
        eval={"sets": [str(tiny_records)], "batch_size": 1},
    )
    folder = tmp_path / "runs" / "tiny-001"
    with Ranks(1, pausable(cfg), pause_at("verify")) as ranks:
        ranks.until((folder / "checkpoints" / "step-00000003").exists)
        ranks.kill_all()
    assert not (folder / "summary.json").exists()
    ended = run(1, training(cfg))
    assert ended.code == 0, ended.everything
    assert resumed_at(ended) == 3
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["status"] == "finished" and set(summary["verification"]) == {"tiny"}


def test_a_stopped_run_resumes(tiny_records, tmp_path):
    # tests/parallel/test_ends.py stops a single rank.
    cfg = write_cfg(
        tmp_path, tiny_records, train={"max_steps": 12, "checkpoint_every": 5}, run={"seed": 3}
    )
    folder = tmp_path / "runs" / "tiny-001"
    with Ranks(2, pausable(cfg), pause_at(7)) as started:
        started.until(lambda: max(read_losses(folder), default=0) >= 7)
        started.terminate()
        ended = started.wait()
    assert ended.code == 1, ended.everything
    assert "Traceback" not in ended.rank_output, ended.everything
    stopped_at = max(read_losses(folder))
    assert stopped_at == 8  # the ranks received the signal after step 7
    saved = 5
    # Horovod: its launcher kills the ranks 5 s after SIGTERM; a busy machine may be slower.
    if (folder / "summary.json").exists():
        summary = json.loads((folder / "summary.json").read_text())
        assert summary["status"] == "stopped" and summary["steps"] == stopped_at
        stops = re.findall(r"stopped at step (\d+), saved at step (\d+);", ended.stderr)
        assert len(stops) == 1 and int(stops[0][0]) == stopped_at, ended.everything
        saved = int(stops[0][1])
    ended = run(2, training(cfg))
    assert ended.code == 0, ended.everything
    assert resumed_at(ended) == saved
    assert sorted(read_losses(folder)) == list(range(1, 13))
    assert not has_partial_checkpoint(folder)
    assert json.loads((folder / "summary.json").read_text())["status"] == "finished"


def _kill_run(ranks: int, tmp_path: Path, records: str, cfg: Path, after: int) -> Path:
    """Kill a run after ``after`` steps; return its folder. Record the labels in ``records``."""
    folder = tmp_path / "runs" / "tiny-001"
    with Ranks(ranks, [RECORDER, tmp_path / records, "--cfg", cfg], pause_at(after)) as started:
        started.until(lambda: max(read_losses(folder), default=0) >= after)
        started.kill_all()
    return folder


def _read_labels(path: Path) -> list[list[int]]:
    return [[int(x) for x in line.split()] for line in path.read_text().splitlines()]
