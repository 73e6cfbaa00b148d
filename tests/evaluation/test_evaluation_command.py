# SPDX-License-Identifier: Apache-2.0
"""Output, files and error messages of python -m evaluation."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from evaluation import __main__ as command
from evaluation.pairs import write_pairs
from tests.runs import save_run


@pytest.fixture
def with_damage(checkpoint, tmp_path) -> Path:
    """Return a copy of the run folder with a newer, damaged checkpoint."""
    folder = shutil.copytree(checkpoint, tmp_path / "damaged")
    newer = folder / "checkpoints" / "step-00000040"
    shutil.copytree(folder / "checkpoints" / "step-00000007", newer)
    with (newer / "net.params").open("ab") as file:
        file.write(b"x")
    return folder


def test_verify_prints_a_table_and_writes_json(sets, checkpoint, tmp_path, capsys):
    report = tmp_path / "report.json"
    status = command.main(
        ["verify", "--checkpoint", str(checkpoint), "--sets", str(sets), "--json", str(report)]
        + ["--batch-size", "5", "--device", "cpu"]
    )
    assert status == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == "set pairs accuracy threshold tar@far 1e-3 xnorm".split()
    assert [line.split()[:2] for line in lines[1:3]] == [["one", "12"], ["two", "15"]]
    assert "±" in lines[1]
    assert lines[3].startswith("threshold: cosine above which")
    assert lines[4].startswith("-: the set has too few")
    written = json.loads(report.read_text())
    distance = written["verification"]["one"]["best_threshold"]
    assert lines[1].split()[5] == f"{1 - distance / 2:.4f}"
    assert list(written["verification"]) == ["one", "two"]
    assert written["verification"]["one"]["tar_at_far_1e-3"] is None
    assert written["checkpoint"] == str(checkpoint / "checkpoints" / "step-00000007")


def test_a_damaged_checkpoint_is_refused(sets, with_damage, capsys):
    damaged = with_damage / "checkpoints" / "step-00000040"
    assert command.main(["verify", "--checkpoint", str(damaged), "--sets", str(sets)]) == 2
    assert "net.params: has changed since it was saved" in capsys.readouterr().err


def test_a_damaged_newest_checkpoint_is_skipped_with_a_notice(sets, with_damage, capsys):
    arguments = ["verify", "--checkpoint", str(with_damage), "--sets", str(sets)]
    assert command.main([*arguments, "--device", "cpu"]) == 0
    damaged = with_damage / "checkpoints" / "step-00000040" / "net.params"
    err = capsys.readouterr().err
    assert err.startswith(f"evaluation: skipped a damaged checkpoint: {damaged}: has changed ")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    "change, problem",
    [
        ({"--checkpoint": "nowhere"}, "nowhere: no checkpoint found"),
        ({"--sets": "nowhere.bin"}, "nowhere.bin: must be a file or a folder"),
        ({"--batch-size": "0"}, "--batch-size: must be at least 1"),
        ({"--json": "nowhere/report.json"}, "--json: the folder of the file does not exist"),
    ],
)
def test_usage_errors_are_one_sentence(sets, checkpoint, capsys, change, problem):
    arguments = {"--checkpoint": str(checkpoint), "--sets": str(sets), "--device": "cpu", **change}
    status = command.main(["verify", *(word for item in arguments.items() for word in item)])
    out, err = capsys.readouterr()
    assert status == 2
    assert out == ""
    assert err.startswith(f"error: {problem}") and err.count("\n") == 1
    assert "Traceback" not in err


def test_a_run_without_checkpoints_is_refused(sets, tmp_path, capsys):
    (tmp_path / "empty" / "checkpoints").mkdir(parents=True)
    empty = str(tmp_path / "empty")
    assert command.main(["verify", "--checkpoint", empty, "--sets", str(sets)]) == 2
    assert "empty: no checkpoint found" in capsys.readouterr().err


def test_a_set_of_another_size_is_refused(checkpoint, tmp_path, capsys):
    small = cv2.imencode(".png", np.zeros((8, 8, 3), np.uint8))[1].tobytes()
    write_pairs(tmp_path / "small.bin", [small] * 20, [i % 2 == 0 for i in range(10)])
    arguments = ["verify", "--checkpoint", str(checkpoint), "--sets", str(tmp_path / "small.bin")]
    assert command.main([*arguments, "--device", "cpu"]) == 2
    assert (
        "small.bin: image 0 of pair 0: the image is not 112 pixels high and"
        in capsys.readouterr().err
    )


@pytest.mark.parametrize(
    "command_line", [["verify"], ["compare", "--base", "CHECKPOINT"]], ids=["verify", "compare"]
)
def test_sets_are_checked_before_the_network_is_built(
    checkpoint, sets, tmp_path, capsys, monkeypatch, command_line
):
    monkeypatch.setattr("evaluation.commands.verify.build_net_on", None)
    monkeypatch.setattr("evaluation.commands.compare.build_net_on", None)
    images, _ = pickle.loads((sets / "one.bin").read_bytes())
    images[5] = cv2.imencode(".png", np.zeros((112, 96, 3), np.uint8))[1].tobytes()
    write_pairs(tmp_path / "odd.bin", images, [i % 2 == 0 for i in range(12)])
    write_pairs(tmp_path / "few.bin", images[:4], [True, False])
    words = [str(checkpoint) if word == "CHECKPOINT" else word for word in command_line]
    for name, problem in [
        (
            "odd",
            "image 1 of pair 2: the image is not 112 pixels high and 112 pixels wide, got 112 x ",
        ),
        ("few", "verification with 10 folds needs at least 10 pairs, got 2 pairs; "),
    ]:
        path = str(tmp_path / f"{name}.bin")
        assert command.main([*words, "--checkpoint", str(checkpoint), "--sets", path]) == 2
        out, err = capsys.readouterr()
        assert out == "" and err.startswith(f"error: {path}: {problem}") and err.count("\n") == 1


def test_the_image_size_of_the_checkpoint_is_used(tmp_path, capsys):
    save_run(tmp_path / "run", image_size=(96, 64))
    pixels = np.random.default_rng(0).integers(0, 256, (20, 96, 64, 3), dtype=np.uint8)
    images = [cv2.imencode(".png", x)[1].tobytes() for x in pixels]
    write_pairs(tmp_path / "tall.bin", images, [i % 2 == 0 for i in range(10)])
    arguments = ["--checkpoint", str(tmp_path / "run"), "--sets", str(tmp_path / "tall.bin")]
    assert command.main(["verify", *arguments, "--device", "cpu"]) == 0
    assert capsys.readouterr().out.splitlines()[1].split()[:2] == ["tall", "10"]


@pytest.mark.parametrize("verb", ["verify", "compare"])
def test_a_truncated_image_is_named(checkpoint, tmp_path, capfd, make_face, verb):
    images = [make_face(0, shot) for shot in range(24)]
    images[9] = images[9][: len(images[9]) * 3 // 4] + b"\xff\xd9"
    write_pairs(tmp_path / "truncated.bin", images, [i % 2 == 0 for i in range(12)])
    arguments = [verb, "--checkpoint", str(checkpoint), "--sets", str(tmp_path / "truncated.bin")]
    arguments += ["--base", str(checkpoint)] if verb == "compare" else []
    assert command.main([*arguments, "--device", "cpu"]) == 2
    out, err = capfd.readouterr()
    assert err == (
        f"error: {tmp_path}/truncated.bin: image 1 of pair 4: the image is cut off, got an "
        "end-of-image marker before its last pixels; make the verification set again\n"
    )
    assert out == ""


def test_face_verify_runs_the_command_verify(monkeypatch):
    calls = []
    monkeypatch.setattr("evaluation.commands.verify.run", calls.append)
    monkeypatch.setattr("sys.argv", ["face-verify", "--checkpoint", "run", "--sets", "a.bin"])
    assert command.face_verify() == 0
    (options,) = calls
    assert (options.command, options.sets) == ("verify", ["a.bin"])


def test_a_tilde_is_the_home_folder(monkeypatch):
    monkeypatch.setenv("HOME", "/home/someone")
    words = ["compare", "--base=~/base", "--checkpoint=~/run", "--sets", "~/a.bin", "--json=~/a"]
    options = command.build_parser().parse_args(words)
    paths = [options.base, options.model, *options.sets, options.json]
    assert list(map(str, paths)) == [f"/home/someone/{x}" for x in ("base", "run", "a.bin", "a")]
