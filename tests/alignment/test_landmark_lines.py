# SPDX-License-Identifier: Apache-2.0
"""Lines of the layouts of landmark files."""

from __future__ import annotations

import pytest

from alignment.landmark_lines import parse_line

X, Y = [1.5, 20, 11, 3, 18], [5, 6.25, 12, 20, 21]
PAIRS = [[x, y] for x, y in zip(X, Y, strict=True)]
FLAT = [str(value) for pair in PAIRS for value in pair]
BOX = ["0", "0", "9", "9"]


@pytest.mark.parametrize(
    ("line", "path"),
    [
        ("a/b.jpg " + " ".join(FLAT), "a/b.jpg"),
        ("a b/c d.jpg\t" + "\t".join(FLAT), "a b/c d.jpg"),
        ("photo 12 1.jpg " + " ".join(FLAT) + "  ", "photo 12 1.jpg"),
        ("shot 7 " + " ".join(FLAT), "shot 7"),
        ("a.jpg," + ",".join(FLAT), "a.jpg"),
        ('"a, b.jpg", ' + ", ".join(FLAT), "a, b.jpg"),
        ("\t".join(["/data/Asian/m.1/m.1_0001.jpg", "7", *FLAT]), "/data/Asian/m.1/m.1_0001.jpg"),
        ("\t".join(["0", "a b.jpg", "7", *BOX, *map(str, X), *map(str, Y)]), "a b.jpg"),
        ("äöü/ß.jpg " + " ".join(FLAT), "äöü/ß.jpg"),
        ("a.jpg " + " ".join(f"{float(v):+.3e}" for v in FLAT), "a.jpg"),
    ],
)
def test_every_layout_gives_the_path_and_the_points(line, path):
    parsed = parse_line(line)
    assert parsed is not None and parsed.path == path
    assert parsed.points is not None and parsed.points.tolist() == PAIRS


@pytest.mark.parametrize("fields", [["1", "a.jpg", "7"], ["0", "a.jpg", "7", *BOX]])
def test_a_line_of_a_list_without_points_gives_the_path_alone(fields):
    parsed = parse_line("\t".join(fields))
    assert parsed is not None and parsed.path == "a.jpg" and parsed.points is None


@pytest.mark.parametrize(
    "line",
    [
        "",
        "a.jpg",
        " ".join(FLAT),
        "a.jpg " + " ".join(FLAT[:9]),
        "a.jpg " + " ".join([*FLAT[:9], "x"]),
        "a.jpg " + " ".join([*FLAT[:9], "nan"]),
        "\t".join(["0", "a.jpg", "7", *BOX, *FLAT[:9]]),
    ],
)
def test_other_lines_have_no_layout(line):
    assert parse_line(line) is None


def test_a_long_line_of_numbers_is_parsed_in_linear_time():
    assert parse_line("1 " * 30_000 + "x") is None
