# SPDX-License-Identifier: Apache-2.0
"""Complete runs of run_train.py on one, two and three ranks, and the files that they write."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import mxnet as mx
import pytest
import yaml

from evaluation.pairs import write_pairs
from tests.conftest import face
from tests.parallel.ranks import HERE, ROOT, read_metrics, run, run_several, training, write_cfg

pytestmark = pytest.mark.parallel

SUMMARY = {
    *("status", "steps", "epochs", "ranks", "images_per_second", "data_wait_fraction"),
    *("final_loss", "verification", "peak_rss_mib", "versions"),
    "notices",
}
VERIFICATION = {
    *("accuracy", "accuracy_std", "tar_at_far_1e-3", "xnorm", "pairs"),
    "best_threshold",
}
LINE = {"step", "epoch", "loss", "lr", "images_per_second", "data_wait_fraction"}


def check_summary(folder: Path, **expected: object) -> dict:
    summary = json.loads((folder / "summary.json").read_text())
    assert set(summary) == SUMMARY
    assert {key: summary[key] for key in expected} == expected
    assert summary["images_per_second"] > 0
    assert 0 <= summary["data_wait_fraction"] <= 1
    assert summary["peak_rss_mib"] > 50
    return summary


def check_checkpoints(folder: Path, *steps: int) -> None:
    names = sorted(path.name for path in (folder / "checkpoints").iterdir())
    assert names == [f"step-{step:08d}" for step in steps]
    for name in names:
        assert (folder / "checkpoints" / name / "manifest.json").is_file()


def test_two_ranks_train_verify_and_write_all_files(tiny_records, tmp_path):
    cfg = write_cfg(
        tmp_path,
        tiny_records,
        train={"max_steps": 10, "checkpoint_every": 3, "keep_checkpoints": 2, "log_every": 2},
        eval={"sets": [str(tiny_records)], "every_steps": 6},
    )
    ended = run(2, training(cfg))
    assert ended.code == 0, ended.everything
    assert ended.stderr == ""
    folder = tmp_path / "runs" / "tiny-001"

    summary = check_summary(folder, status="finished", steps=10, epochs=0, ranks=2)
    assert set(summary["verification"]) == {"tiny"}
    assert set(summary["verification"]["tiny"]) == VERIFICATION
    assert summary["verification"]["tiny"]["pairs"] == 40
    check_checkpoints(folder, 9, 10)

    lines = read_metrics(folder)
    training_lines = [line for line in lines if "loss" in line]
    # A line every two steps, and one before every checkpoint and verification.
    assert [line["step"] for line in training_lines] == [2, 3, 4, 6, 8, 9, 10]
    assert all(set(line) >= LINE for line in training_lines)
    assert [line["images"] for line in training_lines] == [8 * x["step"] for x in training_lines]
    verified = [line for line in lines if "verification/tiny/accuracy" in line]
    assert [line["step"] for line in verified] == [6, 10]
    assert summary["final_loss"] == training_lines[-1]["loss"]

    assert [p.stat().st_size > 0 for p in (folder / "tensorboard").glob("events.*")] == [True]
    kept = yaml.safe_load((folder / "config.yaml").read_text())
    assert kept["optim"]["momentum"] == 0.9  # a default value
    assert kept["run"]["name"] == "tiny"
    assert kept["notes"]["ranks"] == 2 and kept["notes"]["versions"]["mxnet"] == "1.9.1"
    # Only rank 0 prints.
    assert {line.rank for line in ended.lines if line.rank is not None} == {0}
    assert len(re.findall(r"^verify tiny: accuracy", ended.stdout, re.MULTILINE)) == 2


def test_images_missing_from_the_idx_give_a_notice(make_records, tmp_path):
    records = make_records(8, 4)
    lines = (records / "train.idx").read_text().splitlines(keepends=True)
    (records / "train.idx").write_text("".join(lines[:20]))
    ended = run(1, training(write_cfg(tmp_path, records, train={"max_steps": 2})))
    assert ended.code == 0, ended.everything
    notice = f"{records}/train.idx: 13 of the 32 images that the header lists are not in the .idx"
    assert notice in ended.stdout.splitlines()
    assert notice in check_summary(tmp_path / "runs" / "tiny-001", steps=2)["notices"]


def test_images_of_another_size_train_and_verify(make_records, tmp_path):
    size = (65, 49)  # neither square nor even
    records = make_records(6, 4, image_size=size)
    images = [face(pair % 6, 100 + pair, size) for pair in range(20)]
    write_pairs(records / "pairs.bin", images, [pair % 2 == 0 for pair in range(10)])
    cfg = write_cfg(
        tmp_path,
        records,
        train={"max_steps": 3, "checkpoint_every": 3},
        eval={"sets": [str(records)]},
    )
    ended = run(1, training(cfg))
    assert ended.code == 0 and ended.stderr == "", ended.everything
    folder = tmp_path / "runs" / "tiny-001"
    summary = check_summary(folder, status="finished", steps=3)
    # The command reads the size from the checkpoint and gives the same results.
    command = ["-m", "evaluation", "verify", "--checkpoint", str(folder)]
    report = tmp_path / "report.json"
    done = subprocess.run(
        [sys.executable, *command, "--sets", str(records), "--device", "cpu", "--json", report],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(report.read_text())["verification"]["pairs"]
    assert found["accuracy"] == summary["verification"]["pairs"]["accuracy"]
    assert found["xnorm"] == pytest.approx(summary["verification"]["pairs"]["xnorm"], rel=1e-4)


def test_three_ranks_train_past_an_epoch_end(make_records, tmp_path):
    # 32 images, 6 per step: an epoch has five steps and drops the last two images.
    cfg = write_cfg(
        tmp_path,
        make_records(8, 4),
        data={"batch_size": 2},
        train={"max_steps": 0, "epochs": 2, "log_every": 3, "checkpoint_every": 100},
    )
    ended = run(3, training(cfg))
    assert ended.code == 0, ended.everything
    folder = tmp_path / "runs" / "tiny-001"
    check_summary(folder, status="finished", steps=10, epochs=2, ranks=3, verification={})
    check_checkpoints(folder, 10)


def test_heads_with_statistics_train_and_save_them(tiny_records, tmp_path):
    names = ["adaface", "curricularface", "adacos", "center", "git"]
    train = {"max_steps": 3, "checkpoint_every": 3}
    commands = [
        training(write_cfg(tmp_path / name, tiny_records, head={"name": name}, train=train))[1:]
        for name in names
    ]
    for name, ended in zip(names, run_several(2, tmp_path, commands), strict=True):
        assert ended.code == 0, ended.everything
        folder = tmp_path / name / "runs" / "tiny-001"
        check_summary(folder, status="finished", steps=3, ranks=2)
        kept = mx.nd.load(str(folder / "checkpoints" / "step-00000003" / "head.params"))
        assert len(kept) > 1, name  # weights and statistics


def test_one_rank_needs_no_launcher_and_a_finished_run_stays_unchanged(tiny_records, tmp_path):
    cfg = write_cfg(tmp_path, tiny_records, train={"max_steps": 4, "checkpoint_every": 2})
    first, second = (tmp_path / "runs" / f"tiny-{n:03d}" for n in (1, 2))
    ended = run(1, training(cfg))
    assert ended.code == 0, ended.everything
    assert ended.stderr == ""
    check_summary(first, status="finished", steps=4, ranks=1)
    check_checkpoints(first, 2, 4)
    before = {path: path.stat().st_mtime_ns for path in first.rglob("*")}

    # The same command creates a new run; here it starts from the weights of the first.
    ended = run(1, training(cfg, f"train.pretrained={first}"))
    assert ended.code == 0, ended.everything
    check_summary(second, status="finished", steps=4, ranks=1)
    assert "starts from the weights of" in ended.stdout and "step-00000004" in ended.stdout
    assert {path: path.stat().st_mtime_ns for path in first.rglob("*")} == before
    # The same images in the same order, but other weights, so other losses from the first step on.
    losses = [[line["loss"] for line in read_metrics(folder)] for folder in (first, second)]
    assert losses[0][0] != losses[1][0]


def test_symbols_of_libmxnet_are_not_global_in_the_process():
    ended = run(2, [HERE / "visible.py"])
    assert ended.code == 0, ended.everything
    assert ended.stdout.splitlines() == ["sum 3, global False"] * 2, ended.everything
