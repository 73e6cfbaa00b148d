# SPDX-License-Identifier: Apache-2.0
"""The first lines of a run, and summary.json of each status."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

from launch.ranks.comm import Comm
from training.faults import Stopped, TrainingError
from training.history import History
from training.log import RunLog
from training.loop import Totals
from training.report import announce, reporting
from training.run import Progress

VERSIONS = {"mxnet": "1.9.1", "decode": "native"}


def loop(history=None):
    return SimpleNamespace(
        totals=Totals(images=800, seconds=4.0, idle_seconds=1.0, final_loss=2.5),
        progress=Progress(step=10),
        epochs=2,
        verification={"tiny": {"accuracy": 0.75, "best_threshold": 1.234}},
        history=history or History(),
        skips_bad_images=history is not None,
        best=None,
        stops_early=False,
    )


def summary(folder):
    return json.loads((folder / "summary.json").read_text())


def first_lines(folder, capsys, progress):
    log = RunLog(folder)
    announce(
        log,
        SimpleNamespace(folder="runs/demo-001", progress=progress),
        ranks={"ranks": 2, "device": "cpu(0)"},
        data={"data": "/set", "images": 120},
        recipe=["net tiny", "optimizer sgd"],
        notices=["", "operators: native", ""],
    )
    assert log.notices == ["operators: native"]
    log.close()
    return capsys.readouterr().out.splitlines()


def test_a_new_run_prints_ranks_data_and_notices(tmp_path, capsys):
    assert first_lines(tmp_path, capsys, Progress()) == [
        "run runs/demo-001  ranks 2  device cpu(0)",
        "data /set  images 120",
        "net tiny",
        "optimizer sgd",
        "operators: native",
    ]


def test_a_resumed_run_prints_its_position(tmp_path, capsys):
    lines = first_lines(tmp_path, capsys, Progress(step=6, images=48, epoch=1, consumed=8))
    assert lines[4] == "resumed at step 6, epoch 1, after 8 images of this epoch"


def test_the_summary_of_a_finished_run_is_complete(tmp_path):
    log = RunLog(tmp_path)
    log.notice("decoder: native")
    with reporting(log, loop(), Comm(), VERSIONS):
        pass
    found = summary(tmp_path)
    assert found.pop("peak_rss_mib") > 1
    assert found == {
        "status": "finished",
        "steps": 10,
        "epochs": 2,
        "ranks": 1,
        "images_per_second": 200.0,
        "data_wait_fraction": 0.25,
        "final_loss": 2.5,
        "verification": {"tiny": {"accuracy": 0.75, "best_threshold": 1.234}},
        "notices": ["decoder: native"],
        "versions": VERSIONS,
    }


def test_the_last_line_has_accuracy_threshold_folder_and_next_command(tmp_path, capsys):
    with reporting(RunLog(tmp_path), loop(), Comm(), VERSIONS, next_command="python -m x"):
        pass
    assert capsys.readouterr().out == (
        "finished: step 10  loss 2.5000  tiny accuracy 0.7500 at squared distance 1.23  "
        f"folder {tmp_path}  next: python -m x\n"
    )


def test_a_risen_loss_is_in_the_log_the_summary_and_the_last_line(tmp_path, capsys):
    history = History(margin=1.0, first_loss=14.0, last_loss=29.0)
    with reporting(RunLog(tmp_path), loop(history), Comm(), VERSIONS):
        pass
    first, last = capsys.readouterr().out.splitlines()
    assert first.startswith("warning: the loss rose from 14 to 29")
    assert last.startswith("finished: step 10")
    assert "  warning: the loss rose from 14 to 29, so the net has not learned" in last
    found = summary(tmp_path)
    assert (found["status"], found["notices"]) == ("finished", [first])


def test_the_summary_names_the_skipped_images(tmp_path):
    history = History(skipped={"6": "train.rec: the image of key 6 cannot be decoded"})
    with reporting(RunLog(tmp_path), loop(history), Comm(), VERSIONS):
        pass
    found = summary(tmp_path)["skipped_images"]
    assert found == {
        "count": 1,
        "images": ["train.rec: the image of key 6 cannot be decoded"],
    }


@pytest.mark.parametrize(
    ("end", "status"),
    [(Stopped("stopped at step 10"), "stopped"), (TrainingError("the disk is full"), "failed")],
)
def test_the_summary_of_an_early_end_has_the_reason(tmp_path, end, status):
    with pytest.raises(type(end)), reporting(RunLog(tmp_path), loop(), Comm(), VERSIONS):
        raise end
    assert (summary(tmp_path)["status"], summary(tmp_path)["reason"]) == (status, str(end))


def test_other_exceptions_write_no_summary(tmp_path):
    with pytest.raises(ZeroDivisionError), reporting(RunLog(tmp_path), loop(), Comm(), VERSIONS):
        raise ZeroDivisionError
    assert not (tmp_path / "summary.json").exists()


def test_a_full_disk_at_the_end_is_reported(tmp_path, capsys, monkeypatch):
    log = RunLog(tmp_path)

    def refuse(values):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(log, "summary", refuse)
    with reporting(log, loop(), Comm(), VERSIONS):
        pass
    assert capsys.readouterr().out == (
        "summary.json cannot be written, got No space left on device; check the disk "
        "space and the permissions of its folder\n"
    )
