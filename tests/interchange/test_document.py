# SPDX-License-Identifier: Apache-2.0
"""The commands of docs/interchange.md, run in their order on a small sample."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import numpy as np
import pytest

from evaluation import __main__ as evaluation
from evaluation.pairs import write_pairs
from interchange import __main__ as interchange
from tests.runs import save_run

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "interchange.md"
SIZE = (32, 32)  # of the images in pixels; the sample's 112x112 would take ten times as long
PROGRAMS = {"evaluation": evaluation.main, "interchange": interchange.main}
PLACEHOLDERS = {"PATH", "FOLDER"}


def steps() -> list[tuple[str, str]]:
    """Return the Python programs and the commands of the page as pairs (kind, text)."""
    found = []
    for line in re.finditer(r"^```python\n(.*?)^```$|^    (python [^\n]+)$", text(), re.M | re.S):
        code, command = line.groups()
        if code or not PLACEHOLDERS & set(shlex.split(command)):
            found.append(("code", code) if code else ("command", command))
    return found


def text() -> str:
    return DOCUMENT.read_text(encoding="utf-8")


@pytest.fixture
def sample(tmp_path, monkeypatch, make_face) -> Path:
    """Make the folders that `make train` leaves, and make their parent the working folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data" / "sample_faces").mkdir(parents=True)
    images = [make_face(person, shot, SIZE) for person in range(10) for shot in range(4)]
    order = [i + j for i in range(0, 40, 4) for j in (0, 1)] + list(range(2, 22))
    pairs = [images[i] for i in order]
    issame = [True] * 10 + [False] * 10
    write_pairs(tmp_path / "data" / "sample_faces" / "sample_val.bin", pairs, issame)
    results = {"sample_val": {"pairs": 20, "best_threshold": 1.2}}
    net = {"name": "mobilefacenet", "embedding_size": 128}  # arcface_torch has width 1 alone
    run = tmp_path / "runs" / "demo-001"
    save_run(run, net=net, image_size=SIZE, verification=results)
    return tmp_path


def test_the_commands_run_in_their_order(sample, capsys):
    cosines = []
    for kind, content in steps():
        if kind == "code":
            exec(compile(content, "docs/interchange.md", "exec"), {"__name__": "document"})
        else:
            python, flag, program, *words = shlex.split(content)
            assert (python, flag) == ("python", "-m")
            assert PROGRAMS[program](words) == 0, capsys.readouterr().err
        printed = capsys.readouterr().out
        cosines += re.findall(r"^(?:cosine )?(-?[01]\.\d+)\b", printed, re.M)
    # embed, load_embedder and ONNX Runtime give one cosine; compare-images adds mirror images.
    plain = [float(value) for value in cosines if len(value) > 7]
    mirrored = [float(value) for value in cosines if len(value) <= 7]
    assert len(plain) == 3 and len(mirrored) == 2
    np.testing.assert_allclose(plain, plain[0], atol=1e-4)
    np.testing.assert_allclose(mirrored, mirrored[0], atol=1e-4)
    embeddings = np.load("embeddings.npz")["embeddings"]
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, atol=1e-6)


def test_the_readmes_link_to_the_page():
    for name in ("README.md", "README.zh.md"):
        assert "(docs/interchange.md)" in (DOCUMENT.parents[1] / name).read_text(encoding="utf-8")
