# SPDX-License-Identifier: Apache-2.0
"""The gallery: two losses on drawn digits, the reader of MNIST, the pictures, refusals."""

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
from tools.gallery.pictures import (
    COLUMNS,
    NAME,
    PANEL,
    SIZE,
    SMALL,
    TITLE,
    colours,
    draw,
    sheet,
    stack_on_circle,
)
from tools.gallery.settings import LOSSES
from tools.gallery.training import _person_batches, classify

ROOT = Path(__file__).resolve().parents[2]
PAIR = ("arcface", "triplet")


def gallery(*arguments: object) -> subprocess.CompletedProcess:
    command = [sys.executable, ROOT / "tools" / "loss_gallery.py", *map(str, arguments)]
    # Sums are taken in another order by another number of threads.
    environment = {**os.environ, "OMP_NUM_THREADS": "2"}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> tuple[Path, subprocess.CompletedProcess]:
    out = tmp_path_factory.mktemp("gallery")
    done = gallery("--quick", "--out", out, "--json", out / "rows.json", "--only", *PAIR)
    assert done.returncode == 0, done.stderr
    return out, done


def test_two_losses_tell_the_digits_apart(made):
    out, done = made
    assert sorted(p.name for p in out.iterdir()) == [
        "arcface.png",
        "index.html",
        "rows.json",
        "sheet.jpg",
        "triplet.png",
    ]
    rows = json.loads((out / "rows.json").read_text())["rows"]
    assert [row["name"] for row in rows] == list(PAIR)
    assert all(row["test_accuracy"] > 0.6 for row in rows), done.stdout
    for name in PAIR:
        picture = cv2.imread(str(out / f"{name}.png"))
        assert picture.shape == (SIZE[1], SIZE[0], 3)
        panels = picture[TITLE:, :PANEL], picture[TITLE:, -PANEL:]
        for panel in panels:  # each digit is there in its colour
            assert all((panel == colour).all(axis=2).sum() > 20 for colour in colours())


def test_the_page_shows_them_and_says_what_the_digits_are(made):
    out, done = made
    text = (out / "index.html").read_text()
    for name in PAIR:
        assert f'src="{name}.png"' in text
    assert len(re.findall(r"test accuracy 0\.\d{4}", text)) == len(PAIR)
    assert "drawn here in the fonts of OpenCV, not MNIST" in text
    assert "drawn here in the fonts of OpenCV, not MNIST" in done.stdout


@pytest.fixture
def plain_afterwards():
    yield
    ops.use("plain")


def test_the_same_seed_gives_the_same_picture(tmp_path, capsys, plain_afterwards):
    write_mnist(tmp_path, 640, 200)
    options = ["--mnist", str(tmp_path), "--only", "elasticface", "--epochs", "2"]
    pictures = []
    for run, seed in enumerate((1, 1, 2)):
        out = tmp_path / str(run)
        assert loss_gallery.main([*options, "--out", str(out), "--seed", str(seed)]) == 0
        said = capsys.readouterr().out
        assert said.startswith("MNIST: 640 images for training, 200 for the test\n")
        pictures.append((out / "elasticface.png").read_bytes())
    assert pictures[0] == pictures[1] != pictures[2]


def write_mnist(folder: Path, train: int, test: int) -> None:
    """Write drawn digits as the four files of MNIST, two of them packed."""
    digits = draw_digits(train, test, seed=3)
    for half, images, labels in (("train", *digits[:2]), ("t10k", *digits[2:])):
        shape = np.array(images.shape, ">u4").tobytes()
        packed = gzip.compress(bytes((0, 0, 8, 3)) + shape + images.tobytes())
        (folder / f"{half}-images-idx3-ubyte.gz").write_bytes(packed)
        plain = bytes((0, 0, 8, 1)) + np.array(labels.shape, ">u4").tobytes()
        (folder / f"{half}-labels-idx1-ubyte").write_bytes(
            plain + labels.astype(np.uint8).tobytes()
        )


def test_what_is_read_is_what_was_written(tmp_path):
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
            "must begin as an idx file of 1 dimensions, got 3c68746d",
        ),
        (
            lambda f: (f / "train-labels-idx1-ubyte").write_bytes(
                (f / "t10k-labels-idx1-ubyte").read_bytes()
            ),
            "must hold a label for each of 50 images, got 20",
        ),
    ],
)
def test_damaged_files_are_named(tmp_path, damage, says):
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
        (["--seed", "-1"], "--seed: must be from 0 to 2147483647, got -1; any of them will do"),
    ],
)
def test_refusals_are_one_sentence(tmp_path, capsys, options, says):
    assert loss_gallery.main([*options, "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"loss_gallery: {says}")
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_loss_that_is_not_finite_is_named(tmp_path, capsys, monkeypatch, plain_afterwards):
    setting = dataclasses.replace(LOSSES["softmax"], lr=1e30)
    monkeypatch.setitem(LOSSES, "softmax", setting)
    write_mnist(tmp_path, 640, 100)
    options = ["--mnist", str(tmp_path), "--only", "softmax", "--epochs", "4"]
    assert loss_gallery.main([*options, "--out", str(tmp_path / "out")]) == 1
    error = capsys.readouterr().err
    assert re.match(r"loss_gallery: softmax: the loss of step \d+ is not finite, got nan; ", error)
    assert not list((tmp_path / "out").iterdir())


def test_every_loss_has_settings_that_its_head_takes():
    assert set(LOSSES) == set(HEADS)
    for name, setting in LOSSES.items():
        build_head(name, 10, 2, **setting.head)
        assert setting.rule in RULES
        assert not setting.by_person or setting.batch % 10 == 0


def test_classes_are_found_by_the_rule_of_the_loss():
    weight = np.array([[1.0, 0.0], [0.0, 2.0], *[[-1.0, -1.0]] * 8])
    points = np.array([[2.0, 1.5], [0.5, 0.2]])
    means = weight / np.linalg.norm(weight, axis=1, keepdims=True)
    assert classify("product", points, {"weight": weight}, means).tolist() == [1, 0]
    bias = np.array([0.0, 1.0] + [0.0] * 8)
    found = classify("product", points, {"weight": weight, "bias": bias}, means)
    assert found.tolist() == [1, 1]
    assert classify("cosine", points, {"weight": weight}, means).tolist() == [0, 0]
    assert classify("mean cosine", points, {}, means).tolist() == [0, 0]
    assert classify("distance", np.array([[0.2, 1.5]]), {"weight": weight}, means).tolist() == [1]
    # Two centres of each class, its rows one after the other: the nearer one counts.
    doubled = np.repeat(weight, 2, axis=0)
    doubled[1] = [2.0, 1.5]
    assert classify("cosine", points[:1], {"weight": doubled}, means).tolist() == [0]


def test_batches_of_people_hold_equally_many_of_each():
    labels = np.random.default_rng(1).integers(0, 10, 500)
    batches = list(_person_batches(labels, 40, 1000, np.random.default_rng(2)))
    assert len(batches) == 25
    for batch in batches:
        assert np.bincount(labels[batch], minlength=10).tolist() == [4] * 10
    seen = np.bincount(np.concatenate(batches), minlength=500)
    for n in range(10):  # every image of a digit as often as the others, but for the last round
        assert np.ptp(seen[labels == n]) <= 1


def test_the_sheet_shows_the_right_panel_of_each():
    red, blue = np.array([0, 0, 255], np.uint8), np.array([255, 0, 0], np.uint8)
    pictures = []
    for number in range(8):
        picture = np.full((SIZE[1], SIZE[0], 3), 255, np.uint8)
        picture[TITLE:, :PANEL] = red
        picture[TITLE:, -PANEL:] = blue if number % 2 else 0
        pictures.append((f"loss {number}", cv2.imencode(".png", picture)[1].tobytes()))
    whole = cv2.imdecode(np.frombuffer(sheet(pictures), np.uint8), cv2.IMREAD_COLOR)
    assert whole.shape == (2 * (NAME + SMALL), COLUMNS * SMALL, 3)
    for number in range(8):
        row, column = divmod(number, COLUMNS)
        pixel = whole[row * (NAME + SMALL) + NAME + SMALL // 2, column * SMALL + SMALL // 2]
        assert np.abs(pixel.astype(int) - (blue if number % 2 else 0)).max() < 12
    assert whole[-SMALL // 2, -SMALL // 2].min() > 240  # no ninth loss


def test_points_that_share_a_direction_are_stacked():
    points = np.array([[0.0, 1.0], [0.0, 1.0], [0.0, 1.0], [-1.0, -0.2]])
    stacked = stack_on_circle(points, np.array([1, 0, 1, 3]))
    lengths = np.linalg.norm(stacked, axis=1)
    assert np.allclose(lengths, [1.25, 1.0, 1.5, 1.0])  # the 0 lies under the 1s
    assert np.allclose(stacked[:3, 0], 0)


def test_axes_are_equal_and_y_points_upwards():
    points = np.random.default_rng(1).uniform([-2.0, -1.0], [2.0, 1.0], (3000, 2))
    labels = (points[:, 1] > 0).astype(int)
    halves = [("train", points, labels), ("test", points / 2, labels)]
    png = np.frombuffer(draw("a title", "settings", halves, False, 1), np.uint8)
    picture = cv2.imdecode(png, cv2.IMREAD_COLOR)[TITLE:]
    extents = []
    for panel in (picture[:, :PANEL], picture[:, -PANEL:]):
        rows, columns = zip(*(np.nonzero((panel == c).all(axis=2)) for c in colours()[:2]))
        assert np.median(rows[1]) < PANEL / 2 < np.median(rows[0])
        extents.append((np.ptp(np.concatenate(columns)), np.ptp(np.concatenate(rows))))
    (width, height), (small_width, small_height) = extents
    assert width == pytest.approx(2 * height, rel=0.03)
    # One scale for both panels.
    assert (small_width, small_height) == pytest.approx((width / 2, height / 2), rel=0.03)
