# SPDX-License-Identifier: Apache-2.0
"""Construction of heads by name: parameters, settings, errors."""

from __future__ import annotations

import mxnet as mx
import numpy as np
import pytest

from heads import HEADS, build_head
from ranges import settings
from tests.heads.by_hand import refusal


@pytest.mark.parametrize("name", HEADS)
def test_parameters_start_random_and_reproducible(name):
    states = []
    for _ in range(2):
        mx.random.seed(5)
        head = build_head(name, 400, 16)
        head.initialize()
        parameters = head._collect_params_with_prefix()
        states.append({key: p.data().asnumpy() for key, p in parameters.items()})
    for key, value in states[0].items():
        np.testing.assert_array_equal(value, states[1][key])
    learnt = {key: p.shape for key, p in parameters.items() if p.grad_req != "null"}
    if "weight" not in learnt:
        assert not learnt  # losses on pairs
        return
    centres = 1200 if name == "sub_center_arcface" else 400
    expected = {"weight": (centres, 16), **({"radius": (1,)} if name == "ring" else {})}
    assert learnt == expected
    deviation = np.sqrt(3 / (400 + 16) * 2 / 3) if name == "lgm" else 0.01
    assert abs(states[0]["weight"].std() / deviation - 1) < 0.05


@pytest.mark.parametrize("name", HEADS)
def test_defaults_are_in_their_ranges(name):
    declared = settings(HEADS[name])
    assert [each.problem(each.default) for each in declared.values()] == [""] * len(declared)
    options = {key: each.default for key, each in declared.items()}
    assert isinstance(build_head(name, 7, 5, **options), HEADS[name])


@pytest.mark.parametrize(
    ("name", "options", "sentence"),
    [
        ("arcfase", {}, "head.name: unknown head 'arcfase'; did you mean 'arcface'? known: softm"),
        ("zzz", {}, "head.name: unknown head 'zzz'; known: softmax, l2_softmax, normface"),
        ("cosface", {"m2": 0.5}, "head.m2: unknown setting of head 'cosface'; known: m3, scale"),
        ("mps", {"scale": 3}, "head.scale: unknown setting of head 'mps'; known: margin"),
    ],
)
def test_unknown_names_are_refused(name, options, sentence):
    assert refusal(name, **options).startswith(sentence)


def test_every_head_stores_the_reduction_over_ranks():
    def reduce(rows, by):
        return by(rows)

    assert build_head("adaface", 7, 5, reduce)._reduce is reduce
    assert build_head("arcface", 7, 5, reduce)._reduce is reduce
