# SPDX-License-Identifier: Apache-2.0
"""States and traced functions for statistics over batches."""

from __future__ import annotations

import mxnet as mx

from heads.head import Head
from heads.statistics import TracedFunction, alone, create_state


def test_a_state_is_a_parameter_without_a_gradient():
    head = Head(prefix="head_")
    head.mean = create_state(head, "mean", (2,), mx.init.Constant(3.0))
    head.initialize()
    assert list(head._collect_params_with_prefix()) == ["mean"]
    assert head.mean.grad_req == "null" and head.mean.name == "head_mean"
    assert head.mean.data().asnumpy().tolist() == [3, 3]


def test_a_traced_function_equals_the_function_and_has_no_parameters():
    calls = []

    def both(F, one, other):
        calls.append(F)
        return one + other, one * other

    traced = TracedFunction(both)
    for shift in (0, 1):
        arrays = mx.nd.array([1, 2]) + shift, mx.nd.array([3, 4])
        found = [array.asnumpy().tolist() for array in traced(*arrays)]
        assert found == [[4 + shift, 6 + shift], [3 * (1 + shift), 4 * (2 + shift)]]
    assert len(calls) == 1 and not list(traced.collect_params())


def test_alone_returns_the_statistic_of_its_rows():
    assert alone(mx.nd.array([1, 3]), mx.nd.mean).asscalar() == 2
