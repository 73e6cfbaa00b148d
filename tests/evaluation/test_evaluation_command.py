# SPDX-License-Identifier: Apache-2.0
"""Output, files and error messages of python -m evaluation."""

from __future__ import annotations

import json
import pickle
import runpy
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from evaluation import __main__ as command
from evaluation.groups import write_groups
from evaluation.pairs import write_pairs
from evaluation.people import write_people
from evaluation.score_files import read_scores
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


def test_verify_prints_tables_and_writes_files(sets, checkpoint, tmp_path, capsys):
    files = {name: tmp_path / f"report.{name}" for name in ("json", "markdown", "latex", "scores")}
    status = command.main(
        ["verify", "--checkpoint", str(checkpoint), "--sets", str(sets), "--device", "cpu"]
        + ["--batch-size", "5", "--threshold-from", "two", "--far", "0.5"]
        + [word for name, path in files.items() for word in (f"--{name}", str(path))]
    )
    assert status == 0
    out = capsys.readouterr().out
    lines = out.splitlines()
    assert lines[0] == "Verification" and lines[1].split()[:3] == ["set", "pairs", "people"]
    assert [line.split()[:2] for line in lines[2:4]] == [["one", "12"], ["two", "15"]]
    assert (
        "-: the set has too few different-person pairs; TAR at FAR needs at least 10 / FAR" in out
    )
    written = json.loads(files["json"].read_text())
    assert written["checkpoint"] == str(checkpoint / "checkpoints" / "step-00000007")
    assert list(written["verification"]) == ["one", "two"]
    one, two = written["verification"].values()
    assert lines[2].split()[8] == f"{100 * one['no_flip']['accuracy']:.2f}"
    assert f" {1 - one['best_threshold'] / 2:.4f} " in lines[2]
    assert one["roc"][0]["tar"] is None and one["roc"][0]["negatives"] == 6
    assert two["at_thresholds_of"]["set"] == "two"
    assert list(one["at_thresholds_of"]["errors"]) == ["best accuracy"]
    assert "Errors at the thresholds selected on two" in files["markdown"].read_text()
    assert files["latex"].read_text().count(r"\begin{tabular}") == 3
    scores = read_scores(files["scores"])
    assert {name: len(found.cosines) for name, found in scores.items()} == {"one": 12, "two": 15}
    assert scores["one"].issame.sum() == 6


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
        ({"--scores": "nowhere/a.npz"}, "--scores: the folder of the file does not exist"),
        ({"--threshold-from": "lfw"}, "--threshold-from: must be the name of a set, got 'lfw'; "),
        ({"--far": "2"}, "--far: each rate must be above 0 and below 1, got 2.0"),
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
    assert capsys.readouterr().out.splitlines()[2].split()[:2] == ["tall", "10"]


def test_groups_are_reported_and_people_in_two_groups_are_named(sets, checkpoint, capsys):
    people = [f"p{i // 2}" if i % 4 < 2 else f"q{i}" for i in range(24)]
    write_people(sets / "one.bin", people)
    write_groups(sets / "one.bin", ["Asian" if i < 13 else "Indian" for i in range(24)])
    arguments = ["--checkpoint", str(checkpoint), "--sets", str(sets / "one.bin")]
    assert command.main(["verify", *arguments, "--device", "cpu"]) == 0
    out, err = capsys.readouterr()
    assert "one: pairs within a group at the threshold" in out
    assert "one: FMR [%] between groups at the threshold" in out and "over all images" in out
    assert err == (
        "evaluation: one: p6 is in several groups, got Asian, Indian; each image counts in its "
        "own group\n"
    )


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


def test_the_program_ends_with_the_code_of_its_command(tmp_path, monkeypatch, capsys):
    words = ["plot", "roc", str(tmp_path / "a.npz"), "--out", str(tmp_path / "a.png")]
    monkeypatch.setattr("sys.argv", ["python -m evaluation", *words])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(command.__file__, run_name="__main__")
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith(f"error: {tmp_path}/a.npz: cannot be read, got ")
