# SPDX-License-Identifier: Apache-2.0
"""Gallery of losses: plots of two losses, the reader of MNIST, and refusals."""

from __future__ import annotations

import dataclasses
import gzip
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

import ops
from heads import HEADS, build_head
from tools import loss_gallery
from tools.digits import draw_digits, read_mnist
from tools.gallery.page import RULES
from tools.gallery.plots import PANEL, SIZE, TITLE, colours
from tools.gallery.settings import LOSSES

ROOT = Path(__file__).resolve().parents[2]
PAIR = ("arcface", "triplet")


def gallery(*arguments: object) -> subprocess.CompletedProcess:
    command = [sys.executable, ROOT / "tools" / "loss_gallery.py", *map(str, arguments)]
    # The number of threads changes the order of sums.
    environment = {**os.environ, "OMP_NUM_THREADS": "2"}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> tuple[Path, subprocess.CompletedProcess]:
    out = tmp_path_factory.mktemp("gallery")
    words = ["--quick", "--epochs", 1, "--only", *PAIR]
    done = gallery(*words, "--out", out, "--json", out / "rows.json")
    assert done.returncode == 0, done.stderr
    return out, done


def test_each_loss_has_a_plot_and_a_row(made):
    out, _ = made
    assert sorted(p.name for p in out.iterdir()) == [
        "arcface.png",
        "index.html",
        "rows.json",
        "sheet.jpg",
        "triplet.png",
    ]
    rows = json.loads((out / "rows.json").read_text())["rows"]
    assert [row["name"] for row in rows] == list(PAIR)
    assert all(0 <= row["test_accuracy"] <= 1 and row["epochs"] == 1 for row in rows)
    for name in PAIR:
        plot = cv2.imread(str(out / f"{name}.png"))
        assert plot.shape == (SIZE[1], SIZE[0], 3)
        panels = plot[TITLE:, :PANEL], plot[TITLE:, -PANEL:]
        for panel in panels:  # each digit has points in its colour
            assert all((panel == colour).all(axis=2).sum() > 20 for colour in colours())


def test_the_page_shows_all_plots_and_names_the_source_of_the_digits(made):
    out, done = made
    text = (out / "index.html").read_text()
    for name in PAIR:
        assert f'src="{name}.png"' in text
    assert len(re.findall(r"test accuracy 0\.\d{4}", text)) == len(PAIR)
    assert "drawn in the fonts of OpenCV, not MNIST" in text
    assert "drawn in the fonts of OpenCV, not MNIST" in done.stdout


@pytest.fixture
def plain_afterwards():
    yield
    ops.use("plain")


def test_the_same_seed_gives_the_same_plot(tmp_path, capsys, plain_afterwards):
    write_mnist(tmp_path, 640, 200)
    options = ["--mnist", str(tmp_path), "--only", "elasticface", "--epochs", "2"]
    plots = []
    for run, seed in enumerate((1, 1, 2)):
        out = tmp_path / str(run)
        assert loss_gallery.main([*options, "--out", str(out), "--seed", str(seed)]) == 0
        printed = capsys.readouterr().out
        assert printed.startswith("MNIST: 640 training images, 200 test images\n")
        plots.append((out / "elasticface.png").read_bytes())
    assert plots[0] == plots[1] != plots[2]


def write_mnist(folder: Path, train: int, test: int) -> None:
    """Write drawn digits as the four files of MNIST, two of them compressed."""
    digits = draw_digits(train, test, seed=3)
    for half, images, labels in (("train", *digits[:2]), ("t10k", *digits[2:])):
        shape = np.array(images.shape, ">u4").tobytes()
        packed = gzip.compress(bytes((0, 0, 8, 3)) + shape + images.tobytes())
        (folder / f"{half}-images-idx3-ubyte.gz").write_bytes(packed)
        plain = bytes((0, 0, 8, 1)) + np.array(labels.shape, ">u4").tobytes()
        (folder / f"{half}-labels-idx1-ubyte").write_bytes(
            plain + labels.astype(np.uint8).tobytes()
        )


def test_the_mnist_reader_returns_the_written_digits(tmp_path):
    write_mnist(tmp_path, 50, 20)
    for read, drawn in zip(read_mnist(tmp_path), draw_digits(50, 20, seed=3)):
        assert read.dtype == drawn.dtype
        assert (read == drawn).all()


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda f: (f / "t10k-labels-idx1-ubyte").unlink(), "must hold t10k-labels-idx1-ubyte.gz"),
        (lambda f: cut(f / "train-images-idx3-ubyte.gz"), "cannot be read"),
        (lambda f: cut(f / "train-labels-idx1-ubyte"), "must hold 58 bytes, got 29"),
        (
            lambda f: (f / "train-images-idx3-ubyte.gz").write_bytes(b"no archive"),
            "cannot be read",
        ),
        (
            lambda f: (f / "train-labels-idx1-ubyte").write_bytes(b"<html>not found</html>"),
            "must begin with the header of an idx file with 1 dimensions, got 3c68746d",
        ),
        (
            lambda f: (f / "train-labels-idx1-ubyte").write_bytes(
                (f / "t10k-labels-idx1-ubyte").read_bytes()
            ),
            "must hold a label for each of 50 images, got 20",
        ),
    ],
)
def test_a_damaged_file_is_refused_by_name(tmp_path, damage, says):
    write_mnist(tmp_path, 50, 20)
    damage(tmp_path)
    with pytest.raises(ValueError, match=re.escape(says)) as error:
        read_mnist(tmp_path)
    assert str(tmp_path) in str(error.value)


def cut(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (
            ["--mnist", "nowhere"],
            "--mnist: must be a folder with the files of MNIST, got 'nowhere'",
        ),
        (["--only", "arcfase"], "--only: unknown loss 'arcfase'; did you mean 'arcface'? known: "),
        (["--epochs", "0"], "--epochs: must be above 0 and below 10000, got 0; 10 is usual"),
        (["--seed", "-1"], "--seed: must be from 0 to 2147483647, got -1; 1 is usual"),
    ],
)
def test_wrong_options_are_refused_in_one_sentence(tmp_path, capsys, options, says):
    assert loss_gallery.main([*options, "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"loss_gallery: {says}")
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_loss_that_is_not_finite_is_refused_by_name(
    tmp_path, capsys, monkeypatch, plain_afterwards
):
    setting = dataclasses.replace(LOSSES["softmax"], lr=1e30)
    monkeypatch.setitem(LOSSES, "softmax", setting)
    write_mnist(tmp_path, 640, 100)
    options = ["--mnist", str(tmp_path), "--only", "softmax", "--epochs", "4"]
    assert loss_gallery.main([*options, "--out", str(tmp_path / "out")]) == 1
    error = capsys.readouterr().err
    assert re.match(r"loss_gallery: softmax: the loss of step \d+ is not finite, got nan; ", error)
    assert not list((tmp_path / "out").iterdir())


def test_every_loss_has_valid_settings():
    assert set(LOSSES) == set(HEADS)
    for name, setting in LOSSES.items():
        build_head(name, 10, 2, **setting.head)
        assert setting.rule in RULES
        assert not setting.by_person or setting.batch % 10 == 0
