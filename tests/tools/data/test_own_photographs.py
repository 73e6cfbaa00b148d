# SPDX-License-Identifier: Apache-2.0
"""The commands of docs/own_photographs.md, run in their order on photographs of rendered people."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from evaluation import __main__ as evaluation
from evaluation.pairs import read_pairs
from pipeline.records.open import open_records
from tests.photographs import draw_photograph, encode
from tools.data import __main__ as data

ROOT = Path(__file__).resolve().parents[3]
DOCUMENT = ROOT / "docs" / "own_photographs.md"
PROGRAMS = {"evaluation": evaluation.main, "tools.data": data.main}
PEOPLE = ("anna", "ben", "carl", "dora", "emma")
NET = ("net.width=0.125", "net.embedding_size=8")  # a smaller net than that of the page


def commands() -> list[list[str]]:
    """Return the words of the commands of the page that begin with "python"."""
    text = DOCUMENT.read_text(encoding="utf-8")
    return [shlex.split(line) for line in re.findall(r"^    (python [^\n]+)$", text, re.M)]


@pytest.fixture
def photographs(tmp_path, monkeypatch) -> Path:
    """Make a folder of photographs and a file of pairs; make its parent the working folder."""
    monkeypatch.chdir(tmp_path)
    for person, name in enumerate(PEOPLE):
        for shot in range(1, 5):
            path = tmp_path / "photographs" / name / f"{shot}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encode(draw_photograph(person, shot)[0]))
    (tmp_path / "photographs" / "notes.txt").write_text("no image")
    lines = []
    for person, name in enumerate(PEOPLE):
        other = PEOPLE[(person + 1) % len(PEOPLE)]
        for shot in (1, 2):
            lines.append(f"{name}/{shot}.jpg {name}/{shot + 1}.jpg 1")
            lines.append(f"{name}/{shot}.jpg {other}/{shot}.jpg 0")
    (tmp_path / "pairs.txt").write_text("\n".join(lines) + "\n")
    return tmp_path


def run(words: list[str]) -> str:
    """Run a command of the page; return its error output, or "" after success."""
    python, *rest = words
    assert python == "python"
    if rest[0] == "run_train.py":
        command = [sys.executable, str(ROOT / rest[0]), *rest[1:], *NET]
        done = subprocess.run(command, capture_output=True, text=True)
        return "" if done.returncode == 0 else done.stdout + done.stderr
    assert rest[0] == "-m"
    # A rendered face is not always found; --centre keeps the pairs of the test complete.
    extra = ["--centre"] if rest[2] == "align" or "--align" in rest else []
    device = ["--device", "cpu"] if rest[1] == "evaluation" else []
    code = PROGRAMS[rest[1]]([*rest[2:], *extra, *device])
    return "" if code == 0 else f"{words}: exit code {code}"


def test_the_commands_of_the_page_run_in_their_order(photographs, capsys):
    names = []
    for words in commands():
        problem = run(words)
        assert not problem, problem + capsys.readouterr().err
        names.append(words[3] if words[1] == "-m" else words[1])
    assert names == [
        *("align", "pack", "check", "run_train.py", "make-bin", "check-bin", "show-bin"),
        *("verify", "compare-images", "embed"),
    ]
    out = capsys.readouterr().out
    assert "faces: 20 of 20 photographs yield images of 112x112 pixels" in out
    assert "20 images of 5 identities" in out
    assert "own_val.bin: 20 pairs, 15 distinct images, 0 findings" in out
    assert re.search(r"^cosine -?[01]\.\d+$", out, re.M)
    assert len(open_records(["own_set"], Path("cache")).keys) == 20
    for name in ("faces/contact_sheet.png", "pairs.png"):
        assert cv2.imread(name) is not None
    assert read_pairs("own_val.bin").issame.tolist() == [True, False] * 10
    people = Path("own_val.people.txt").read_text().splitlines()
    assert people[:4] == ["anna", "anna", "anna", "ben"]
    assert np.load("embeddings.npz")["embeddings"].shape == (20, 8)
