# SPDX-License-Identifier: Apache-2.0
"""The best checkpoint and the early end, in runs that are killed and resumed."""

from __future__ import annotations

import hashlib
import json
from contextlib import ExitStack

import pytest

import run_train
from evaluation.pairs import write_pairs
from launch.ranks.comm import Comm
from tests.assemble.configuration import make_synthetic
from training import best_checkpoint
from training.best_checkpoint import BestCheckpoint, keep_only
from training.best_metric import parse_best_metric
from training.history import History
from training.loop import Loop

ACCURACIES = {2: 0.5, 4: 0.75, 6: 0.625, 8: 0.875, 10: 0.75}
RESULT = {"accuracy_std": 0.0, "tar_at_far_1e-3": None, "xnorm": 1.0, "pairs": 12}


class Killed(BaseException):
    """The process of the run was killed."""


@pytest.fixture
def train(tmp_path, make_face, monkeypatch):
    """Return ``train(name, *overrides, kill_at)``, which trains until step ``kill_at`` or the end.

    The verification of a step has the accuracy that ACCURACIES states.  The function returns the
    run folder.
    """
    write_pairs(tmp_path / "toy.bin", [make_face(0, shot) for shot in range(24)], [True, False] * 6)
    real_step, real_run = Loop._step, run_train.open_run

    def start(name, *overrides, kill_at=0):
        runs = []

        def open_run(*arguments):
            runs.append(real_run(*arguments))
            return runs[0]

        def verify():
            accuracy = ACCURACIES[runs[0].progress.step]
            return {"toy": {**RESULT, "accuracy": accuracy}}

        def step(loop, clock):
            if loop.progress.step + 1 == kill_at:
                raise Killed
            real_step(loop, clock)

        config = make_synthetic(
            *(f"run.dir={tmp_path / name}", f"eval.sets=[{tmp_path / 'toy.bin'}]"),
            *("eval.every_steps=2", "eval.best=toy/accuracy", "train.max_steps=10"),
            *("train.checkpoint_every=4", "train.log_every=2", *overrides),
        )
        with monkeypatch.context() as patch, ExitStack() as at_end:
            patch.setattr(run_train, "open_run", open_run)
            patch.setattr(run_train, "read_config", lambda argv: config)
            patch.setattr(run_train, "make_verify", lambda *arguments: verify)
            patch.setattr(Loop, "_step", step)
            if kill_at:
                with pytest.raises(Killed):
                    run_train.train([], Comm(), at_end)
            else:
                run_train.train([], Comm(), at_end)
        return tmp_path / name / "small-001"

    return start


def content(folder):
    """Return the best checkpoints with a hash of each file, and the lines of all verifications."""
    files = {
        f"{path.parent.name}/{path.name}": hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted((folder / "best").rglob("*"))
        if path.is_file() and path.suffix == ".params"
    }
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return files, [line for line in lines if "verification/toy/accuracy" in line]


def test_a_run_killed_at_any_time_keeps_the_best_checkpoint_of_an_undisturbed_run(train, capsys):
    expected = content(train("undisturbed"))
    assert {name.split("/")[0] for name in expected[0]} == {"step-00000008"}
    assert [line["step"] for line in expected[1]] == [2, 4, 6, 8, 10]
    assert (
        "best toy/accuracy 0.8750 at step 8 (before: 0.7500 at step 4)" in capsys.readouterr().out
    )
    folder = train("killed", kill_at=7)
    train("killed", kill_at=9)
    # Checkpoint 8 was saved before the verification of step 8, so it records step 4 as the best.
    found = {path.name for path in (folder / "best").iterdir()}
    assert found == {"step-00000004", "step-00000008"}
    assert content(train("killed")) == expected
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["status"] == "finished" and summary["steps"] == 10
    assert summary["verification"]["toy"]["accuracy"] == 0.75
    assert summary["best"] == {
        "metric": "toy/accuracy",
        "value": 0.875,
        "step": 8,
        "checkpoint": str(folder / "best" / "step-00000008"),
    }


def test_the_run_ends_early_after_verifications_without_improvement(train, capsys):
    folder = train("early", "eval.patience=1", kill_at=6)
    assert (
        "verification every 2 steps and at the end  sets toy (12 pairs)" in capsys.readouterr().out
    )
    folder = train("early", "eval.patience=1")
    summary = json.loads((folder / "summary.json").read_text())
    assert (summary["status"], summary["steps"], summary["best"]["step"]) == ("finished", 6, 4)
    assert summary["reason"] == (
        "stopped early: toy/accuracy has not improved in 1 verifications, since step 4"
    )
    assert [path.name for path in (folder / "best").iterdir()] == ["step-00000004"]
    assert (folder / "checkpoints" / "step-00000006").is_dir()


def test_a_damaged_best_checkpoint_is_reported_and_replaced(train, capsys):
    folder = train("damaged", kill_at=9)
    (folder / "best" / "step-00000004" / "net.params").write_bytes(b"x")
    train("damaged")
    out = capsys.readouterr().out
    assert "net.params: has changed since it was saved" in out
    assert "the next verification counts as the best" in out
    assert content(folder)[0].keys() == {
        f"step-00000008/{name}.params" for name in ("net", "head", "momentum")
    }


def make_best(patience=2, metric="eer"):
    return BestCheckpoint(
        parse_best_metric(metric, ["a", "b"]), History(), lambda: None, 10, patience
    )


def test_the_lowest_mean_error_is_the_best():
    best = make_best()
    lines = [
        best.update(step, {"a": {"eer": a}, "b": {"eer": b}})
        for step, a, b in ((10, 0.5, 0.25), (20, 0.25, 0.25), (30, 0.25, 0.25), (35, 0.5, 0.5))
    ]
    assert lines[0] == "best eer 0.3750 at step 10 (the first verification)"
    assert lines[1:] == ["best eer 0.2500 at step 20 (before: 0.3750 at step 10)", "", ""]
    assert not best.is_exhausted
    best.update(40, {"a": {"eer": 0.5}, "b": {"eer": 0.5}})
    assert best.is_exhausted and not make_best(0).is_exhausted


def test_only_the_checkpoint_of_the_best_step_is_kept(tmp_path):
    for step in (2, 4):
        (tmp_path / f"step-{step:08d}").mkdir()
    keep_only(tmp_path, 8)  # not there: nothing is removed
    assert len(list(tmp_path.iterdir())) == 2
    keep_only(tmp_path, 4)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000004"]


def test_checkpoints_after_the_resumed_step_are_removed(tmp_path):
    for name in ("step-00000002", "step-00000008", ".aside-step-00000009"):
        (tmp_path / name).mkdir()
    fault = best_checkpoint.restore(tmp_path, 4, {"best_value": 0.5, "best_step": 2})
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000002"]
    assert "manifest.json: is missing" in fault
    assert best_checkpoint.restore(tmp_path / "nowhere", 4, {}) == ""
    assert make_best().report(tmp_path) == {}
