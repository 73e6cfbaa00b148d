# SPDX-License-Identifier: Apache-2.0
"""The base class of heads: checks of settings and sizes, margin fraction, dtype."""

from __future__ import annotations

import math
from typing import Annotated

import mxnet as mx
import numpy as np
import pytest

from heads import HEADS, build_head
from heads.head import ClassHead, Head, require
from ranges import Within, above


class Squares(Head):
    """A head of one setting that records how it was built."""

    def __init__(
        self, num_classes, embedding_size, *, m: Annotated[float, Within(0, 1)] = 0.5, **kw
    ):
        super().__init__(**kw)
        self.m = m

    @staticmethod
    def problems(options):
        if options["m"] == 0.25:
            yield "m", "must not be a quarter"

    def hybrid_forward(self, F, embedding, label, margin_fraction):
        loss = F.sum(F.square(embedding), axis=1)
        return F.broadcast_mul(loss, margin_fraction), F.zeros_like(loss)


class Cubes(Squares):
    """A subclass whose range differs from that of its parent."""

    def __init__(self, *size, m: Annotated[float, above(2)] = 3.0):
        super().__init__(*size)
        self.m = m


def test_values_out_of_range_are_refused():
    for value, text in (
        (2, "must be a number from 0 up to 1, got 2"),
        (0.25, "must not be a quar"),
    ):
        with pytest.raises(ValueError, match=f"^head.m: {text}"):
            Squares(3, 4, m=value)
    assert Squares(3, 4, m=1).m == 1


def test_a_subclass_is_checked_by_its_own_ranges():
    assert Cubes(3, 4).m == 3 and Cubes(3, 4, m=2.5).m == 2.5
    with pytest.raises(ValueError, match="^head.m: must be a number above 2, got 1"):
        Cubes(3, 4, m=1)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("arcface", {"m2": 2.0}),
        ("arcface", {"m2": "0.5"}),
        ("arcface", {"scale": math.inf}),
        ("arcface", {"scale": math.nan}),
        ("intra", {"m2": -1}),
        ("git", {"center_rate": 2}),
        ("magface", {"high": 5}),
        ("triplet", {"mining": "easy"}),
    ],
)
def test_a_class_and_build_head_raise_the_same_error(name, options):
    sentences = []
    for build in (lambda **given: build_head(name, 7, 5, **given), HEADS[name]):
        size = (7, 5) if build is HEADS[name] else ()
        with pytest.raises(ValueError, match=f"^head.{next(iter(options))}: ") as refused:
            build(*size, **options)
        sentences.append(str(refused.value))
    assert sentences[0] == sentences[1]


@pytest.mark.parametrize("name", [name for name in HEADS if issubclass(HEADS[name], ClassHead)])
def test_bad_sizes_are_refused(name):
    with pytest.raises(ValueError, match="^num_classes: must be a whole number from [23], got 1; "):
        build_head(name, 1, 5)
    with pytest.raises(ValueError, match="^embedding_size: must be a whole number from 1, got 0; "):
        build_head(name, 7, 0)


def test_the_fraction_is_1_unless_it_is_given():
    head, x, label = Squares(3, 4), mx.nd.array([[1, 2, 0, 0]]), mx.nd.array([0])
    assert head(x, label)[0].asscalar() == 5
    assert head(x, label, mx.nd.array([0.5]))[0].asscalar() == 2.5


def test_a_head_computes_in_the_type_it_is_cast_to():
    head = build_head("arcface", 3, 3)
    head.initialize()
    head.cast("float64")
    x = mx.nd.array([[3, 4, 0]], dtype="float64")
    loss, _ = head(x, mx.nd.array([1], dtype="float64"))
    assert {np.dtype(array.dtype).name for array in (loss, head.weight.data())} == {"float64"}


def test_require_names_what_is_wrong():
    require("head.scale", float, above(0), 1)
    with pytest.raises(ValueError, match="^head.scale: must be a number above 0, got 0; 64 is"):
        require("head.scale", float, above(0, "64 is usual"), 0)
