# SPDX-License-Identifier: Apache-2.0
"""Ranges of settings, and the errors of values outside."""

from __future__ import annotations

import math
from typing import Annotated, Literal

import pytest

from ranges import Setting, Within, above, at_least, checked_options, setting, settings

NAN = math.nan


@pytest.mark.parametrize(
    ("range_", "text", "inside", "outside"),
    [
        (Within(0, 1), "from 0 up to 1", [0, 0.5, 1], [-0.1, 1.1, NAN, math.inf]),
        (Within(0, 1, open_high=True), "from 0 to below 1", [0, 0.9], [1, -1]),
        (Within(0, 8, open_low=True), "above 0 up to 8", [1e-9, 8], [0, 9]),
        (Within(-math.inf, 2, open_high=True), "below 2", [-5, 1], [2]),
        (Within(-math.inf, 2), "up to 2", [2], [2.1, -math.inf]),
        (above(0), "above 0", [1e-9, 1e9], [0, math.inf]),
        (at_least(1), "from 1", [1, 2], [0, NAN]),
        (Within(0, 2**31 - 1), "from 0 up to 2147483647", [2**31 - 1], [2**31]),
        (Within(0, math.pi / 2), "from 0 up to 1.5708", [1.57], [1.58]),
        (Within(-math.inf), "", [0], [NAN]),
    ],
)
def test_ranges(range_, text, inside, outside):
    assert str(range_) == text
    assert [value in range_ for value in inside] == [True] * len(inside)
    assert [value in range_ for value in outside] == [False] * len(outside)


def problem(annotation, value):
    return setting("x", annotation, None).problem(value)


@pytest.mark.parametrize(
    ("annotation", "good", "bad"),
    [
        (float, [1, 1.5, -2], {"1.5": "a number", True: "a number", NAN: "a number"}),
        (int, [1, -2], {1.0: "a whole number", False: "a whole number", None: "a whole number"}),
        (Annotated[int, at_least(1)], [1], {0: "a whole number from 1"}),
        (bool, [True, False], {1: "true or false"}),
        (str, ["", "a"], {1: "text"}),
        (Literal["a", "b"], ["a"], {"c": "one of 'a', 'b'"}),
        (Literal[1, 2], [1], {True: "one of 1, 2"}),
        (list[int], [[], [1, 2]], {3: "a list, each entry a whole number"}),
        (complex, [1j], {2: "a complex"}),
    ],
)
def test_types(annotation, good, bad):
    assert [problem(annotation, value) for value in good] == [""] * len(good)
    for value, noun in bad.items():
        assert problem(annotation, value) == f"must be {noun}, got {value!r}"


@pytest.mark.parametrize(
    ("annotation", "value", "sentence"),
    [
        (
            Annotated[float, above(0, "30 is usual")],
            0.0,
            "must be a number above 0, got 0.0; 30 is usual",
        ),
        (bool, "true", "must be true or false, got 'true'; write it without quotes"),
        (
            Literal["dali", "cpu"],
            "dalli",
            "must be one of 'dali', 'cpu', got 'dalli'; did you mean 'dali'?",
        ),
        (
            list[Annotated[int, Within(1, 100)]],
            [5, 101, 0],
            "must be a whole number from 1 up to 100, got 101",
        ),
    ],
)
def test_advice(annotation, value, sentence):
    assert problem(annotation, value) == sentence


def test_an_annotation_without_a_range():
    assert setting("a", Annotated[float, "a note"], 1.0) == Setting("a", float, None, 1.0)
    assert setting("a", float, 1.0).entry is None
    assert setting("a", list[str], []).entry == Setting("a", str, None, None)


def function(size, *, width: Annotated[float, above(0)] = 1.0, flag: bool = False):
    """Return the options."""


class Block:
    """A block whose bounds exclude each other."""

    def __init__(self, size, *, low: Annotated[int, at_least(0, "0 is usual")] = 0, high: int = 9):
        pass

    @staticmethod
    def problems(options):
        if options["low"] > options["high"]:
            yield "low", f"must not be above high, got {options['low']} and {options['high']}"


def test_settings_of_functions_and_classes():
    assert settings(function) == {
        "width": Setting("width", float, above(0), 1.0),
        "flag": Setting("flag", bool, None, False),
    }
    assert settings(Block) == {
        "low": Setting("low", int, at_least(0, "0 is usual"), 0),
        "high": Setting("high", int, None, 9),
    }


def test_settings_of_base_classes_follow_until_a_constructor_takes_no_more():
    class Child(Block):
        def __init__(self, size, *, low: Annotated[int, above(4)] = 5, **kwargs):
            pass

    class Grandchild(Child):
        pass

    class Last(Child):
        def __init__(self, *, flag: bool = True):
            pass

    low = Setting("low", int, above(4), 5)
    assert settings(Child) == {"low": low}  # high has no range: it is internal to Block
    assert settings(Grandchild) == {"low": low}
    assert settings(Last) == {"flag": Setting("flag", bool, None, True)}


BUILDERS = {"function": function, "block": Block}


def test_options_are_of_the_declared_type():
    found = checked_options("net", "function", BUILDERS, {"width": 2, "flag": True})
    assert found == {"width": 2.0, "flag": True} and isinstance(found["width"], float)
    assert checked_options("net", "block", BUILDERS, {}) == {}


@pytest.mark.parametrize(
    ("name", "options", "sentence"),
    [
        ("blok", {}, "net.name: unknown net 'blok'; did you mean 'block'? known: function, block"),
        ("x", {}, "net.name: unknown net 'x'; known: function, block"),
        ("block", {"hi": 1}, "net.hi: unknown setting of net 'block'; known: low, high"),
        ("block", {"low": -1}, "net.low: must be a whole number from 0, got -1; 0 is usual"),
        ("block", {"low": 10}, "net.low: must not be above high, got 10 and 9"),
    ],
)
def test_options_that_are_refused(name, options, sentence):
    with pytest.raises(ValueError) as caught:
        checked_options("net", name, BUILDERS, options)
    assert str(caught.value) == sentence
