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

from evaluation import __main__ as evaluation
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
    *("best_threshold", "eer", "auc"),
}
LINE = {"step", "epoch", "loss", "lr", "images_per_second", "data_wait_fraction"}


def check_summary(folder: Path, **expected: object) -> dict:
    summary = json.loads((folder / "summary.json").read_text())
    assert set(summary) - {"best"} == SUMMARY
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


HEADS_WITH_STATISTICS = ("adaface", "curricularface", "adacos", "center", "git")


@pytest.fixture(scope="module")
def on_two_ranks(tiny_records, tmp_path_factory):
    """Return the folder and the results of runs on two ranks; "verified" is a long run."""
    folder = tmp_path_factory.mktemp("two-ranks")
    commands = {
        "verified": write_cfg(
            folder / "verified",
            tiny_records,
            train={"max_steps": 10, "checkpoint_every": 3, "keep_checkpoints": 2, "log_every": 2},
            eval={"sets": [str(tiny_records)], "every_steps": 6, "best": "tiny/auc"},
        )
    }
    short = {"max_steps": 3, "checkpoint_every": 3}
    for name in HEADS_WITH_STATISTICS:
        commands[name] = write_cfg(folder / name, tiny_records, head={"name": name}, train=short)
    run = folder / "verified" / "runs" / "tiny-001"
    verify = ["verify", "--model", run, "--device", "cpu", "--sets", tiny_records]
    verifications = {
        "verify": [*verify, "--json", folder / "two.json"],
        "refused": [*verify, "--threshold-from", "nothing"],
    }
    lists = [*(training(cfg)[1:] for cfg in commands.values()), *verifications.values()]
    results = run_several(2, folder, lists)
    return folder, dict(zip((*commands, *verifications), results, strict=True))


def test_two_ranks_train_verify_and_write_all_files(on_two_ranks):
    ended = on_two_ranks[1]["verified"]
    assert ended.code == 0, ended.everything
    assert ended.stderr == ""
    folder = on_two_ranks[0] / "verified" / "runs" / "tiny-001"

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


@pytest.fixture(scope="module")
def on_one_rank(tiny_records, make_records, tmp_path_factory):
    """Return the folder and the results of runs on one rank.

    "short index": 13 images of the set are not in its .idx.  "size": images of another size.
    "first", "second": two runs of one configuration; the second starts from the first's weights.
    """
    folder = tmp_path_factory.mktemp("one-rank")
    short = make_records(8, 4)
    lines = (short / "train.idx").read_text().splitlines(keepends=True)
    (short / "train.idx").write_text("".join(lines[:20]))
    size = (65, 49)  # neither square nor even
    records = make_records(6, 4, image_size=size)
    images = [face(pair % 6, 100 + pair, size) for pair in range(20)]
    write_pairs(records / "pairs.bin", images, [pair % 2 == 0 for pair in range(10)])
    steps = {"train": {"max_steps": 3, "checkpoint_every": 3}}
    again = write_cfg(folder / "again", tiny_records, train={"max_steps": 4, "checkpoint_every": 2})
    commands = {
        "short index": training(write_cfg(folder / "short", short, train={"max_steps": 2})),
        "size": training(
            write_cfg(folder / "size", records, eval={"sets": [str(records)]}, **steps)
        ),
        "first": training(again),
        "second": training(again, f"train.pretrained={folder / 'again' / 'runs' / 'tiny-001'}"),
    }
    results = run_several(1, folder, [command[1:] for command in commands.values()])
    for ended in results:
        assert ended.code == 0 and ended.stderr == "", ended.everything
    return folder, dict(zip(commands, results, strict=True)), records


def test_images_missing_from_the_idx_give_a_notice(on_one_rank):
    folder, results, _ = on_one_rank
    pattern = r".*/train\.idx: 13 of the 32 images that the header lists are not in the \.idx"
    (notice,) = (x for x in results["short index"].stdout.splitlines() if re.fullmatch(pattern, x))
    assert notice in check_summary(folder / "short" / "runs" / "tiny-001", steps=2)["notices"]


def test_images_of_another_size_train_and_verify(on_one_rank, tmp_path):
    folder, _, records = on_one_rank
    folder = folder / "size" / "runs" / "tiny-001"
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


def test_verify_on_two_ranks_has_the_results_of_one_process(on_two_ranks, tiny_records, tmp_path):
    folder, results = on_two_ranks
    assert results["verify"].code == 0, results["verify"].everything
    assert results["verify"].stdout.splitlines().count("Verification") == 1
    assert results["refused"].code == 2
    assert results["refused"].stderr.count("error: --threshold-from: must be") == 1
    run, report = folder / "verified" / "runs" / "tiny-001", tmp_path / "one.json"
    words = ["verify", "--model", run, "--device", "cpu", "--sets", tiny_records, "--json", report]
    assert evaluation.main([*map(str, words)]) == 0
    one, two = (json.loads(path.read_text()) for path in (report, folder / "two.json"))
    for found, alone in zip(two["verification"].values(), one["verification"].values()):
        for a, b in ((found, alone), (found["no_flip"], alone["no_flip"])):
            assert a["accuracy"] == b["accuracy"] and a["xnorm"] == pytest.approx(b["xnorm"])


def test_two_ranks_keep_the_best_checkpoint(on_two_ranks):
    folder = on_two_ranks[0] / "verified" / "runs" / "tiny-001"
    best = json.loads((folder / "summary.json").read_text())["best"]
    assert best["metric"] == "tiny/auc" and best["step"] in (6, 10)
    assert [str(path) for path in (folder / "best").iterdir()] == [best["checkpoint"]]


@pytest.mark.parametrize("name", HEADS_WITH_STATISTICS)
def test_a_head_with_statistics_trains_and_saves_them(name, on_two_ranks):
    ended = on_two_ranks[1][name]
    assert ended.code == 0, ended.everything
    folder = on_two_ranks[0] / name / "runs" / "tiny-001"
    check_summary(folder, status="finished", steps=3, ranks=2)
    kept = mx.nd.load(str(folder / "checkpoints" / "step-00000003" / "head.params"))
    assert len(kept) > 1  # weights and statistics


def test_the_same_command_creates_a_new_run_after_a_finished_one(on_one_rank):
    folder, results, _ = on_one_rank
    first, second = (folder / "again" / "runs" / f"tiny-{n:03d}" for n in (1, 2))
    check_summary(first, status="finished", steps=4, ranks=1)
    check_checkpoints(first, 2, 4)
    check_summary(second, status="finished", steps=4, ranks=1)
    assert "starts from the weights of" in results["second"].stdout
    assert "step-00000004" in results["second"].stdout
    # The second run started after the last change of the first.
    last = max(path.stat().st_mtime_ns for path in first.rglob("*"))
    assert last <= min(path.stat().st_mtime_ns for path in second.glob("config.yaml"))
    # The same images in the same order, but other weights, so other losses from the first step on.
    losses = [[line["loss"] for line in read_metrics(folder)] for folder in (first, second)]
    assert losses[0][0] != losses[1][0]


def test_symbols_of_libmxnet_are_not_global_in_the_process():
    ended = run(2, [HERE / "visible.py"])
    assert ended.code == 0, ended.everything
    assert ended.stdout.splitlines() == ["sum 3, global False"] * 2, ended.everything
