# SPDX-License-Identifier: Apache-2.0
"""The command check-bin: planted faults, and intact sets."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from evaluation.pairs import write_pairs
from evaluation.people import write_people
from tools.data import __main__ as data


@pytest.fixture
def content(make_face) -> tuple[list[bytes], list[bool]]:
    """Return images and answers of 20 pairs without a fault."""
    images = []
    for pair in range(20):
        other = pair if pair % 2 == 0 else pair + 30
        images += [make_face(pair, 0), make_face(other, 1)]
    return images, [pair % 2 == 0 for pair in range(20)]


def check(folder: Path, content, *words: str) -> int:
    write_pairs(folder / "set.bin", *content)
    return data.main(["check-bin", str(folder / "set.bin"), *words])


def test_an_intact_set_has_no_finding(tmp_path, content, capsys):
    write_people(tmp_path / "set.bin", [p for i in range(20) for p in (i, i + 30 * (i % 2))])
    assert check(tmp_path, content, "--strict") == 0
    assert capsys.readouterr().out == (
        f"{tmp_path}/set.bin: 20 pairs, 40 distinct images, 0 findings\n"
    )


def test_every_planted_fault_is_found_and_nothing_else(tmp_path, content, make_face, capsys):
    images, same = content
    images[0] = images[0][: len(images[0]) // 2]
    images[3] = b"no image"
    images[4] = make_face(2, 0, (100, 100))
    images[7] = images[7][:700] + b"\xff\xd9"
    images[9] = images[8]  # pair 4 of one person
    images[11] = images[10]  # pair 5 of different people
    images[24], images[25] = images[20], images[21]  # pair 12 repeats pair 10
    images[26], images[27] = images[21], images[20]  # pair 13 contradicts pair 10
    ok, jpeg = cv2.imencode(".png", np.zeros((1, 1, 3), np.uint8))
    assert ok
    huge = bytearray(jpeg.tobytes())
    huge[16:24] = b"\0\1\0\0\0\1\0\0"
    images[29] = bytes(huge)
    write_people(tmp_path / "set.bin", ["one"] * 40)
    assert check(tmp_path, (images, same)) == 0
    *findings, summary = capsys.readouterr().out.splitlines()
    texts = [line.removeprefix(f"{tmp_path}/set.bin: ") for line in findings]
    starts = [
        "image 0 of pair 0 is truncated, got ",
        "image 1 of pair 1 is no image, got 8 bytes",
        "image 0 of pair 2 is 100x100 pixels, but most images are 112x112 pixels",
        "image 1 of pair 3 is damaged, got ",
        "image 1 of pair 14 has more than 67108864 pixels, got 65536x65536 pixels",
        "pair 4 of one person has the same image twice",
        "pair 5 of different people has the same image twice",
        "pair 12 repeats pair 10",
        "pair 13 contradicts pair 10, which has the same images",
        f"{tmp_path}/set.people.txt: lines 3 and 4: must name two people",
    ]
    assert len(texts) == len(starts) and summary.endswith(f"{len(starts)} findings")
    for text, start in zip(texts, starts, strict=True):
        assert text.startswith(start)
    assert check(tmp_path, (images, same), "--strict", "--show", "2") == 2
    assert "8 further findings" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("same", "finding"),
    [
        ([True] * 20, "all 20 pairs are of one kind"),
        ([True] * 10 + [False] * 10, "10 of 10 consecutive folds lack pairs of one person"),
    ],
)
def test_sets_that_give_no_accuracy_are_findings(tmp_path, content, same, finding, capsys):
    assert check(tmp_path, (content[0], same)) == 0
    assert finding in capsys.readouterr().out


def test_few_pairs_are_a_finding(tmp_path, content, capsys):
    assert check(tmp_path, (content[0][:8], content[1][:4])) == 0
    assert "the set has fewer than 10 pairs, got 4" in capsys.readouterr().out


def test_a_file_that_is_no_set_is_an_error(tmp_path, capsys):
    (tmp_path / "set.bin").write_bytes(b"x")
    assert data.main(["check-bin", str(tmp_path / "set.bin")]) == 2
    assert capsys.readouterr().err.startswith(f"error: {tmp_path}/set.bin: the pickle ")
    assert data.main(["check-bin", str(tmp_path / "none.bin")]) == 2
    assert data.main(["check-bin", str(tmp_path), "--show", "-1"]) == 2
    assert "--show: must be at least 0, got -1" in capsys.readouterr().err
