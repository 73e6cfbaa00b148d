# SPDX-License-Identifier: Apache-2.0
"""The command plot: curves that it draws, and its error messages."""

from __future__ import annotations

import numpy as np
import pytest

from evaluation import __main__ as command
from evaluation.score_files import write_scores


@pytest.fixture
def folder(tmp_path):
    issame = np.arange(40) % 2 == 0
    distances = np.random.default_rng(0).uniform(0, 2, 40) + ~issame
    for name in ("old", "new"):
        write_scores(tmp_path / f"{name}.npz", {"lfw": (distances, issame), "cfp": (distances, issame)})  # noqa: E501  # fmt: skip
        (tmp_path / name).mkdir()
        line = '{"step": 2, "loss": 3.5}\n{"step": 4, "loss": 2.5}\n'
        (tmp_path / name / "metrics.jsonl").write_text(line)
    return tmp_path


def plot(folder, *words):
    return command.main(["plot", *(word.replace("@", f"{folder}/") for word in words)])


def test_each_diagram_names_its_curves(folder, capsys):
    for diagram in ("roc", "det", "histogram"):
        words = (diagram, "@old.npz", "@new.npz", "--sets", "lfw", "--out", f"@{diagram}.svg")
        assert plot(folder, *words) == 0
        drawn = (folder / f"{diagram}.svg").read_text()
        assert "old lfw" in drawn and "new lfw" in drawn and "cfp" not in drawn
    assert plot(folder, "runs", "@old", "@new", "--out", "@runs.svg") == 0
    drawn = (folder / "runs.svg").read_text()
    assert all(f">{text}<" in drawn for text in ("old", "new", "loss", "step"))
    assert capsys.readouterr().out.splitlines()[-1] == f"{folder}/runs.svg"


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (("roc", "@old.npz", "--out", "@a.pdf"), "--out: must end in .png or .svg, got "),
        (("roc", "@old.npz", "--out", "@none/a.png"), "--out: the folder of the file does not "),
        (("roc", "@none.npz", "--out", "@a.png"), "none.npz: cannot be read, got "),
        (("roc", "@old.npz", "--sets", "x", "--out", "@a.png"), "--sets: must name sets in the "),
        (("roc", "@old.npz", "@old.npz", "--out", "@a.png"), "got 'old lfw' twice; rename a file"),
        (("runs", "@", "--out", "@a.png"), "metrics.jsonl: cannot be read, got "),
        (("runs", "@old", "--keys", "los", "--out", "@a.png"), "got 'los', but no line has "),
        (("runs", *["@old"] * 41, "--out", "@a.png"), "plot: draws at most 40 runs and 40 keys"),
    ],
)
def test_usage_errors_are_one_sentence(folder, capsys, words, problem):
    assert plot(folder, *words) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("error: ") and problem in err and err.count("\n") == 1
    assert not (folder / "a.png").exists()


def test_more_sets_than_a_diagram_can_show_are_refused(folder, capsys):
    scores = np.arange(4.0), np.arange(4) % 2 == 0
    write_scores(folder / "many.npz", {f"s{i}": scores for i in range(41)})
    assert plot(folder, "roc", "@many.npz", "--out", "@a.svg") == 2
    assert capsys.readouterr().err == (
        "error: plot: draws at most 40 sets, got 41; choose some with --sets\n"
    )
    assert plot(folder, "roc", "@many.npz", "--sets", "s3", "s40", "--out", "@a.svg") == 0
