# SPDX-License-Identifier: Apache-2.0
"""Lines and files of a run, and their state after a resume."""

from __future__ import annotations

import json

import pytest

from training.log import RunLog, progress_line, verification_line

VALUES = {
    "step": 40,
    "epoch": 2,
    "loss": 3.14159,
    "cosine": 0.25,
    "lr": 0.0125,
    "images_per_second": 1234.56,
    "data_wait_fraction": 0.0314,
    "eta_s": 3725,
}


def lines(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_the_progress_line_has_all_values():
    assert progress_line(VALUES, 1000) == (
        "step 40/1000  epoch 2  loss 3.1416  cosine 0.250  lr 0.0125  1234.6 images/s  "
        "data wait 3.1 %  ETA 1:02:05"
    )


def test_the_progress_line_has_the_training_accuracy_of_heads_with_logits():
    line = progress_line({**VALUES, "training_accuracy": 0.8125}, 1000)
    assert "cosine 0.250  training accuracy 0.812  lr 0.0125" in line


@pytest.mark.parametrize(("tar", "shown"), [(0.5, "0.5000"), (None, "too few pairs")])
def test_the_verification_line_has_all_values(tar, shown):
    result = {
        "accuracy": 0.98765,
        "accuracy_std": 0.01,
        "tar_at_far_1e-3": tar,
        "xnorm": 12.3,
        "pairs": 6000,
    }
    assert verification_line("lfw", result) == (
        f"verify lfw: accuracy 0.9877 +- 0.0100  TAR@FAR=1e-3 {shown}  xnorm 12.30  pairs 6000"
    )


def test_metrics_go_to_the_file_and_to_tensorboard(tmp_path, capsys):
    log = RunLog(tmp_path)
    log.say("run here")
    log.metrics(VALUES)
    assert lines(tmp_path) == [VALUES]  # written before the log is closed
    log.metrics({**VALUES, "step": 60})
    log.close()
    assert [line["step"] for line in lines(tmp_path)] == [40, 60]
    assert capsys.readouterr().out == "run here\n"
    assert b"images_per_second" in b"".join(
        path.read_bytes() for path in (tmp_path / "tensorboard").iterdir()
    )


def test_a_resumed_run_removes_lines_after_the_checkpoint(tmp_path):
    written = [{"step": step, "loss": 1.0} for step in (10, 20, 20, 30, 40)]
    text = "".join(json.dumps(line) + "\n" for line in written)
    (tmp_path / "metrics.jsonl").write_text(text + '{"step": 50, "lo')  # truncated by a kill
    log = RunLog(tmp_path, step=30)
    assert lines(tmp_path) == written[:4]
    log.metrics({"step": 40, "loss": 2.0})
    log.close()
    assert lines(tmp_path) == [*written[:4], {"step": 40, "loss": 2.0}]


def test_a_run_from_step_0_removes_all_lines(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 10, "loss": 1.0}\n')
    RunLog(tmp_path, step=0).close()
    assert lines(tmp_path) == []


def test_the_summary_is_written_atomically(tmp_path):
    log = RunLog(tmp_path)
    log.summary({"status": "finished", "steps": 3})
    log.close()
    assert json.loads((tmp_path / "summary.json").read_text()) == {
        "status": "finished",
        "steps": 3,
    }
    assert not list(tmp_path.glob(".*"))


def test_notices_are_printed_and_collected(tmp_path, capsys):
    log = RunLog(tmp_path)
    log.notice("3 images are missing")
    log.close()
    assert log.notices == ["3 images are missing"]
    assert capsys.readouterr().out == "3 images are missing\n"


def test_other_ranks_write_nothing(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    log = RunLog(None)
    log.say("text")
    log.notice("text")
    log.metrics(VALUES)
    log.summary({"status": "finished"})
    log.close()
    assert capsys.readouterr().out == "" and not list(tmp_path.iterdir())
