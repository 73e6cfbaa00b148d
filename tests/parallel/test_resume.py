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
    CRASH_AFTER,
    CRASHED,
    LABELS,
    Ranks,
    RunResult,
    pausable,
    pause_at,
    read_losses,
    resumed_at,
    run,
    run_several,
    training,
    write_cfg,
)

pytestmark = pytest.mark.parallel


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


class Crashed:
    """Run that crashes in mid-epoch, and whose resumption has another number of ranks.

    Parameters
    ----------
    folder
        Folder of the configuration, the run and the recorded labels.
    cfg
        Configuration of the run.
    after
        Number of steps until the crash.
    overrides
        Arguments of the resumption only.
    """

    def __init__(self, folder: Path, cfg: Path, after: int, *overrides: str):
        self.cfg, self.after, self.overrides = cfg, after, overrides
        self.run, self.labels = folder / "runs" / "tiny-001", folder / "labels"
        self.ended: RunResult | None = None
        """Result of the resumption."""

    def start(self) -> list[str | Path]:
        """Return the arguments of the training that crashes."""
        labels, crash = f"{LABELS}{self.labels / 'before'}", f"{CRASH_AFTER}{self.after}"
        return [labels, crash, *training(self.cfg)[1:]]

    def resume(self) -> list[str | Path]:
        """Return the arguments of the resumption."""
        return [f"{LABELS}{self.labels / 'after'}", *training(self.cfg, *self.overrides)[1:]]

    def resumed_at(self) -> int:
        assert self.ended is not None and self.ended.code == 0, self.ended
        return resumed_at(self.ended)

    def before(self, ranks: int) -> list[list[int]]:
        """Return the labels of the steps that the resumption keeps, one rank after the other."""
        steps = [_read_labels(self.labels / "before" / f"rank-{rank}.txt") for rank in range(ranks)]
        assert all(len(x) == self.after for x in steps)
        return [step for x in steps for step in x[: self.resumed_at()]]

    def after_resumption(self, ranks: int) -> list[list[int]]:
        """Return the labels of the steps of the resumption, one rank after the other."""
        files = [self.labels / "after" / f"rank-{rank}.txt" for rank in range(ranks)]
        return [step for file in files for step in _read_labels(file)]


# 98 images with different labels: an epoch has 12 steps of 2 x 4 = 8 images, or 24 steps of 4.
FEWER_RANKS = {
    "same global batch, decoded cache": (8, {"decoded_cache_mib": 8}),
    "half of it, blocks": (4, {"reader": "blocks", "block": 8, "window": 30}),
}


@pytest.fixture(scope="module")
def resumed(make_records, two_sets, tmp_path_factory):
    """Return the resumed runs by name: those of FEWER_RANKS, "two sets" and "more ranks"."""

    def crashed(records, after, *overrides, **sections) -> Crashed:
        folder = tmp_path_factory.mktemp("crashed")
        return Crashed(folder, write_cfg(folder, records, **sections), after, *overrides)

    people = make_records(98, 1)
    fewer = {
        name: crashed(
            people,
            3,
            f"data.batch_size={batch_size}",
            data=data,
            train={"max_steps": 0, "epochs": 2, "checkpoint_every": 2},
        )
        for name, (batch_size, data) in FEWER_RANKS.items()
    }
    # The filter keeps 30 and 17 people with two images each: 94 images, 11 steps of 8 per epoch.
    fewer["two sets"] = crashed(
        two_sets,
        5,
        "data.batch_size=8",
        data=AUGMENTED,
        train={"max_steps": 0, "epochs": 1, "checkpoint_every": 2},
    )
    more = crashed(
        make_records(96, 1),
        6,
        "data.batch_size=2",
        train={"max_steps": 0, "epochs": 1, "checkpoint_every": 5},
    )
    folder, runs = tmp_path_factory.mktemp("several"), [*fewer.values()]
    crashes = run_several(2, folder, [each.start() for each in runs])
    *ends, crash = run_several(1, folder, [*(each.resume() for each in runs), more.start()])
    (more.ended,) = run_several(2, folder, [more.resume()])
    for each, ended in zip(runs, ends, strict=True):
        each.ended = ended
    for ended in (*crashes, crash):
        assert ended.code == CRASHED, ended.everything
    return {**fewer, "more ranks": more}


@pytest.mark.parametrize("name", FEWER_RANKS)
def test_fewer_ranks_resume_without_a_lost_or_duplicate_image(name, resumed):
    run, batch_size = resumed[name], FEWER_RANKS[name][0]
    assert run.resumed_at() == 2  # in mid-epoch
    after = run.after_resumption(1)
    assert {len(step) for step in after} == {batch_size}
    used = [x for step in run.before(2) for x in step]
    rest = (96 - len(used)) // batch_size
    first_epoch = Counter(used + [x for step in after[:rest] for x in step])
    second_epoch = Counter(x for step in after[rest:] for x in step)
    for epoch in (first_epoch, second_epoch):
        assert set(epoch.values()) == {1}  # no duplicate
        assert len(epoch) == 96  # all images but an incomplete last batch
    assert json.loads((run.run / "summary.json").read_text())["ranks"] == 1


def test_two_filtered_augmented_sets_resume_without_a_lost_or_duplicate_image(resumed, two_sets):
    run = resumed["two sets"]
    assert run.resumed_at() == 4
    counts = Counter(x for step in run.before(2) + run.after_resumption(1) for x in step)
    assert set(counts) <= set(range(47)) and max(counts.values()) == 2
    assert sum(counts.values()) == 88  # all images but an incomplete last batch
    classes = json.loads((run.run / "classes.json").read_text())
    assert classes["records"] == [str(path / "train.rec") for path in two_sets]
    assert classes["record"] == [0] * 30 + [1] * 17
    assert classes["label"] == [*range(30), *(p for p in range(22) if p % 5)]


def test_more_ranks_resume_without_a_lost_or_duplicate_image(resumed):
    run = resumed["more ranks"]
    assert run.resumed_at() == 5
    steps = run.before(1) + run.after_resumption(2)
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


def _read_labels(path: Path) -> list[list[int]]:
    return [[int(x) for x in line.split()] for line in path.read_text().splitlines()]
