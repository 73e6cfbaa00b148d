# SPDX-License-Identifier: Apache-2.0
"""Margin functions against their equations in float64."""

import math

import mxnet as mx
import numpy as np
import pytest

from heads.margins import (
    additive_angle,
    additive_angles,
    additive_cosine,
    combined_margin,
    multiplied_angle,
    unguarded_angle,
)

DEGREES = np.arange(180)
# name -> (function of F and the cosine, value in float64 from the angle)
CASES = {
    "cosine": (
        lambda F, c: additive_cosine(F, c, 0.35),
        lambda t: math.cos(t) - 0.35,
    ),
    "angle": (
        lambda F, c: additive_angle(F, c, 0.5),
        lambda t: (math.cos(t + 0.5) if t < math.pi - 0.5 else math.cos(t) - 0.5 * math.sin(0.5)),
    ),
    "angle easy": (
        lambda F, c: additive_angle(F, c, 0.5, easy_margin=True),
        lambda t: math.cos(t + 0.5) if math.cos(t) > 0 else math.cos(t),
    ),
    "factor 1.35": (lambda F, c: multiplied_angle(F, c, 1.35, 0.0), lambda t: fold(1.35 * t)),
    "factor 4": (lambda F, c: multiplied_angle(F, c, 4.0, 0.0), lambda t: fold(4 * t)),
    "combined guarded": (
        lambda F, c: combined_margin(F, c, 1.0, 0.3, 0.2),
        lambda t: (math.cos(t + 0.3) if t < math.pi - 0.3 else math.cos(t) - 0.3 * math.sin(0.3))
        - 0.2,
    ),
    "combined folded": (
        lambda F, c: combined_margin(F, c, 0.9, 0.4, 0.15),
        lambda t: fold(0.9 * t + 0.4) - 0.15,
    ),
    "combined all": (
        lambda F, c: combined_margin(F, c, 1.2, 0.3, 0.2),
        lambda t: fold(1.2 * t + 0.3) - 0.2,
    ),
    "cosine easy": (
        lambda F, c: combined_margin(F, c, m3=0.35, easy_margin=True),
        lambda t: math.cos(t) - 0.35 if t < math.pi / 2 else math.cos(t),
    ),
    "combined easy": (
        lambda F, c: combined_margin(F, c, 1.2, 0.3, 0.2, easy_margin=True),
        lambda t: fold(1.2 * t + 0.3) - 0.2 if t < math.pi / 2 else math.cos(t),
    ),
    "angles easy": (
        lambda F, c: additive_angles(F, c, F.ones_like(c) * 0.5, easy_margin=True)[:2],
        lambda t: math.cos(t + 0.5) if t < math.pi / 2 else math.cos(t),
    ),
}


def fold(angle):
    """The cosine, continued downwards past pi: every half turn takes off another 2."""
    turns, value = 0, angle
    while value > math.pi:
        turns, value = turns + 1, value - math.pi
    return math.cos(value) - 2 * turns


def evaluate(function, cosine):
    psi, slope = function(mx.nd, mx.nd.array(cosine))
    return psi.asnumpy(), slope.asnumpy()


@pytest.mark.parametrize("name", CASES)
def test_value_at_every_degree(name):
    function, value = CASES[name]
    angle = np.radians(DEGREES) + 1e-3  # off the joints, where float32 may take either side
    psi, _ = evaluate(function, np.cos(angle))
    # Half a unit in the last place of a cosine is that over sin t in the angle.
    limit = 2e-6 + 4 * 6e-8 / np.sin(angle)
    assert np.all(abs(psi - [value(t) for t in angle]) < limit)


@pytest.mark.parametrize("name", CASES)
def test_slope_is_the_derivative(name):
    function, value = CASES[name]
    angle = np.radians(DEGREES[1:]) + 1e-3
    _, slope = evaluate(function, np.cos(angle))
    step = 1e-6
    numeric = [
        (value(t + step) - value(t - step)) / (math.cos(t + step) - math.cos(t - step))
        for t in angle
    ]
    np.testing.assert_allclose(slope, numeric, rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize("name", [name for name in CASES if "easy" not in name])
def test_value_falls_monotonically_with_the_angle(name):
    angle = np.linspace(1e-3, math.pi - 1e-3, 2001)
    psi, slope = evaluate(CASES[name][0], np.cos(angle))
    assert np.all(np.diff(psi) <= 1e-6)
    assert psi[-1] < psi[0]
    assert np.all(slope >= -1e-3)


@pytest.mark.parametrize("name", CASES)
def test_ends_are_finite_and_right(name):
    function, value = CASES[name]
    psi, slope = evaluate(function, np.array([1.0, -1.0, 1.0000001, -1.0000001]))
    np.testing.assert_allclose(psi[:2], [value(0.0), value(math.pi)], atol=2e-6)
    np.testing.assert_allclose(psi[2:], psi[:2], atol=1e-6)
    assert np.all(np.isfinite(slope))


def test_guard_takes_over_where_the_angle_would_pass_pi():
    joint = math.pi - 0.5
    psi, slope = evaluate(CASES["angle"][0], np.cos([joint - 1e-3, joint + 1e-3]))
    np.testing.assert_allclose(psi[0], -1.0, atol=1e-5)
    np.testing.assert_allclose(psi[0] - psi[1], 0.117, atol=1e-3)
    np.testing.assert_allclose(slope[1], 1.0)


def test_the_guard_may_be_left_out():
    angle = np.radians(DEGREES) + 1e-3
    found = unguarded_angle(mx.nd, mx.nd.array(np.cos(angle)), 0.5).asnumpy()
    np.testing.assert_allclose(found, np.cos(angle + 0.5), atol=2e-5)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", [name for name in CASES if "easy" in name])
def test_an_easy_margin_begins_beside_a_right_angle(name, dtype):
    function, value = CASES[name]
    # Nothing but rounding: a product of two rows of length 1 that are at right angles.
    right = mx.nd.array([0.0, -0.0, 6e-8, -6e-8, -1e-6, -0.5], dtype=dtype)
    psi, slope = (a.asnumpy() for a in function(mx.nd, right))
    np.testing.assert_array_equal(psi, right.asnumpy())
    np.testing.assert_array_equal(slope, 1.0)
    near = np.array([1e-6, 1e-4])
    psi, slope = (a.asnumpy() for a in function(mx.nd, mx.nd.array(near, dtype=dtype)))
    np.testing.assert_allclose(psi, [value(math.acos(c)) for c in near], atol=1e-6)
    step = 1e-4  # in the angle, from 90 degrees on downwards
    numeric = (value(math.pi / 2 - 2 * step) - value(math.pi / 2 - 1e-9)) / math.sin(2 * step)
    np.testing.assert_allclose(slope, numeric, rtol=1e-3)


def test_no_easy_margin_gives_no_slope_towards_the_margin():
    cosine = mx.nd.array([-1.0, -0.9, -0.1, 0.0, 0.1, 0.9])
    margins = mx.nd.array([0.5, 0.1, 0.5, 0.5, 0.5, 0.1])
    by_margin = additive_angles(mx.nd, cosine, margins, easy_margin=True)[2].asnumpy()
    expected = -np.sin(np.arccos([0.1, 0.9]) + [0.5, 0.1])
    np.testing.assert_array_equal(by_margin[:4], 0.0)
    np.testing.assert_allclose(by_margin[4:], expected, rtol=1e-5)


def test_multiplied_angle_tends_to_the_square_of_the_factor():
    _, slope = evaluate(CASES["factor 4"][0], np.array([1.0]))
    np.testing.assert_allclose(slope, 16.0, rtol=1e-4)


def test_neutral_margins_change_nothing():
    cosine = np.linspace(-1, 1, 101).astype(np.float32)
    psi, slope = evaluate(combined_margin, cosine)
    np.testing.assert_array_equal(psi, cosine)
    np.testing.assert_array_equal(slope, 1.0)


@pytest.mark.parametrize("name", CASES)
def test_symbol_equals_array(name):
    cosine = mx.nd.array(np.cos(np.radians(DEGREES)))
    outputs = mx.sym.Group(CASES[name][0](mx.sym, mx.sym.var("cosine")))
    symbolic = outputs.bind(mx.cpu(), {"cosine": cosine})
    for ours, theirs in zip(symbolic.forward(), CASES[name][0](mx.nd, cosine), strict=True):
        np.testing.assert_array_equal(ours.asnumpy(), theirs.asnumpy())
