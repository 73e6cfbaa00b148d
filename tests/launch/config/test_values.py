# SPDX-License-Identifier: Apache-2.0
"""Conversion of single YAML values, and its error messages."""

from __future__ import annotations

from typing import Annotated, Literal

import pytest

from launch.config.duration import Duration
from launch.config.values import name_hint, read_value
from ranges import at_least, setting


def read(annotation, value, where="a.b"):
    problems = []
    return read_value(setting("b", annotation, None), value, where, problems), problems


@pytest.mark.parametrize(
    ("annotation", "value", "expected"),
    [
        (float, 2, 2.0),
        (int, 2, 2),
        (float, "1e-3", 0.001),
        (float, "-1.5E3", -1500.0),
        (float, ".5e+1", 5.0),
        (float, "2.e1", 20.0),
        (int, "1e6", 1_000_000),
        (int, 64.0, 64),
        (list[float], ["1e-3", 2], [0.001, 2.0]),
        (str, "1e-3", "1e-3"),
        (bool, False, False),
        (Literal["a", "b"], "b", "b"),
        (list[int], [1, 2], [1, 2]),
        (list[int], 3, [3]),
        (list[str], [], []),
        (Duration, "10 %", Duration(10, "%")),
        (list[Duration], "1 epoch", [Duration(1, "epochs")]),
        (str, "~/x", "~/x"),  # the key contains no path
    ],
)
def test_valid_values_are_converted(annotation, value, expected):
    found, problems = read(annotation, value)
    assert problems == [] and found == expected and type(found) is type(expected)


@pytest.mark.parametrize(
    ("annotation", "value", "sentences"),
    [
        (
            list[int],
            [1, "x", 2, None],
            ["a.b[1]: must be a whole number, got 'x'", "a.b[3]: must be a whole number, got None"],
        ),
        (list[int], "x", ["a.b: must be a whole number, got 'x'"]),
        (
            Annotated[int, at_least(1, "4 is usual")],
            "1e-3",
            ["a.b: must be a whole number from 1, got '1e-3'; 4 is usual"],
        ),
        (float, "1e999", ["a.b: must be a number, got inf"]),
        (int, "1e300", ["a.b: must be a whole number, got '1e300'"]),
        (int, 1.5, ["a.b: must be a whole number, got 1.5"]),
        (float, "3", ["a.b: must be a number, got '3'"]),
        (float, "1e3" + "0" * 40, ["a.b: must be a number, got '1e3" + "0" * 40 + "'"]),
        (bool, "1e3", ["a.b: must be true or false, got '1e3'; write it without quotes"]),
        (float, "x", ["a.b: must be a number, got 'x'"]),
        (str, 3, ["a.b: must be text, got 3"]),
        (
            str,
            "${NO_A}${NO_B}",
            [
                f"a.b: the environment variable {name} is not set, got '${{NO_A}}{rest}'; set it "
                f"in the command: {name}=... horovodrun ..."
                for name, rest in (("NO_A", "${NO_B}"), ("NO_B", "${NO_B}"))
            ],
        ),
        (
            Duration,
            5,
            [
                "a.b: expected a duration like '51200000 images', '100000 steps', '2.5 epochs' or "
                "'10 %', got 5"
            ],
        ),
    ],
)
def test_invalid_values_are_reported_by_key(annotation, value, sentences):
    assert read(annotation, value)[1] == sentences


def test_a_hint_names_the_most_similar_or_all_names():
    assert name_hint("traim", ["run", "train"]) == "; did you mean 'train'?"
    assert name_hint("x", ["run", "train"]) == "; known: run, train"


@pytest.mark.parametrize("key", ["run.dir", "data.remote_cache", "data.records", "eval.sets"])
@pytest.mark.parametrize("text", ["", "  ", "${EMPTY_FOLDER}"])
def test_an_empty_path_is_not_the_working_folder(key, text, monkeypatch):
    monkeypatch.setenv("EMPTY_FOLDER", "")
    problems = []
    is_list = key in ("data.records", "eval.sets")
    annotation = list[str] if is_list else str
    read_value(setting("b", annotation, None), text, key, problems)
    lists = f", or {key}=[] for none" if is_list else ""
    assert problems == [f"{key}: must be a path, got {text!r}; write a path{lists}"]


def test_train_pretrained_may_be_empty():
    assert read(str, "", "train.pretrained") == ("", [])
