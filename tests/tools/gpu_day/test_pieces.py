# SPDX-License-Identifier: Apache-2.0
"""Comparison of operators, PReLU and batches: coverage, and detection of differences."""

from __future__ import annotations

import mxnet as mx
import numpy as np
import pytest

from tools.gpu_day import device_comparison, hand_over_race, pieces
from tools.gpu_day.device_comparison import compare
from tools.gpu_day.graph_operators import Case, cases
from tools.gpu_day.prelu_forms import measure_forms
from tools.gpu_day.results import Parts, read_parts
from tools.gpu_day.training_operators import OPERATORS, compare_training

CPU, OTHER = mx.cpu(0), mx.cpu(1)


@pytest.fixture(scope="module")
def found() -> list[Case]:
    return list(cases())


def test_all_kinds_of_operators_are_found(found):
    names = {case.op for case in found}
    assert len(names) > 60
    assert names >= {
        *("Convolution", "BatchNorm", "FullyConnected", "L2Normalization", "Dropout"),
        *("pick", "take", "log_softmax", "arccos", "where", "argsort", "topk", "gather_nd", "dot"),
        *("_contrib_index_copy", "_contrib_arange_like", "_np_cumsum", "broadcast_like"),
    }
    places = {case.place for case in found}
    assert {"net mobilefacenet", "net iresnet", "head arcface", "head triplet"} <= places


def test_each_operator_agrees_with_itself(found):
    first = {case.op: case for case in reversed(found)}
    results = [compare(case, CPU, OTHER) for case in first.values()]
    assert not [result for result in results if not result.holds]
    assert sum(result.gradient for result in results) > 40


def case_of(op: str, *inputs: np.ndarray, **attributes: str) -> Case:
    return Case(op, attributes, [np.asarray(a, np.float32) for a in inputs], "test")


@pytest.mark.parametrize("where", ["value", "gradient", "not finite"])
def test_a_difference_is_detected(where, monkeypatch):
    forward = device_comparison.forward

    def other(graph, values, ctx, gradients=None):
        outputs, found = forward(graph, values, ctx, gradients)
        if ctx == OTHER and where == "value":
            outputs[0][0] += 1e-3
        elif ctx == OTHER and where == "not finite":
            outputs[0][0] = np.nan
        elif ctx == OTHER:
            found["i0"][1] *= 1.001
        return outputs, found

    case = case_of("exp", [0.1, 0.5, 1.0])
    assert compare(case, CPU, OTHER).holds
    monkeypatch.setattr(device_comparison, "forward", other)
    result = compare(case, CPU, OTHER)
    assert not result.holds and result.gradient


def test_indices_of_equal_values_may_differ(monkeypatch):
    case = case_of("argsort", [[2.0, 1.0, 1.0]], axis="1")
    forward = device_comparison.forward
    order = {"equal": [[2, 1, 0]], "wrong": [[2, 0, 1]]}
    for name, holds in (("equal", True), ("wrong", False)):

        def other(graph, values, ctx, gradients=None, name=name):
            outputs, found = forward(graph, values, ctx, gradients)
            return ([np.array(order[name])] if ctx == OTHER else outputs), found

        monkeypatch.setattr(device_comparison, "forward", other)
        assert compare(case, CPU, OTHER).holds == holds


def test_random_operators_are_compared_by_mean_and_deviation(monkeypatch):
    case = case_of("_random_normal_like", np.zeros(500), scale="2.0")
    assert compare(case, CPU, OTHER).holds
    wider = case_of("_random_normal_like", np.zeros(500), scale="9.0")
    forward = device_comparison.forward
    monkeypatch.setattr(
        device_comparison,
        "forward",
        lambda graph, values, ctx: forward((wider if ctx == OTHER else case).symbol(), values, ctx),
    )
    assert not compare(case, CPU, OTHER).holds


def test_operators_of_the_training_step_agree_with_themselves():
    results = list(compare_training(CPU, OTHER))
    assert len(results) == len(OPERATORS)
    assert all(result.holds for result in results)


def test_all_implementations_of_prelu_agree():
    forms = measure_forms(OTHER, (2, 8, 5, 5))
    assert {"two convolutions", "LeakyReLU"} <= set(forms)
    assert all(form["error"] < 1e-5 for form in forms.values()), forms


def test_batches_arrive_unchanged():
    counts = hand_over_race.wrong_batches(OTHER, 6, 4, 32, 0.125)
    assert counts == {"batches": 6, "wrong": 0, "wrong_later": 0}


def test_wrong_and_overwritten_batches_are_counted(monkeypatch):
    copy, kept = hand_over_race.copy_to_ndarray, []

    def broken(tensor, ctx):
        kept.append(copy(tensor, ctx))
        if len(kept) == 2:
            kept[1][0, 0, 0, 0] += 1 / 128  # one step of one pixel
        if len(kept) == 5:
            mx.nd.waitall()
            kept[2][:] = 0  # as if its memory were reused
        return kept[-1]

    monkeypatch.setattr(hand_over_race, "copy_to_ndarray", broken)
    counts = hand_over_race.wrong_batches(OTHER, 6, 4, 32, 0.125)
    assert counts == {"batches": 6, "wrong": 1, "wrong_later": 2}


def test_the_report_names_wrong_operators(tmp_path):
    parts = Parts(tmp_path / "parts")
    wrong = device_comparison.Agreement("exp", "head arcface", 0.5, 1e-5, True)
    pieces._report(parts, "operators", [wrong] * 7, ["log of head center: ValueError: no"])
    (part,) = read_parts(tmp_path / "parts")
    assert part.state == "failed"
    assert part.value.startswith(
        "log of head center: ValueError: no; exp of head arcface: the relative difference is"
    )
    assert part.value.endswith("and 3 more in the log")
