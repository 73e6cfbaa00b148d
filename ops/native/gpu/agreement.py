# SPDX-License-Identifier: Apache-2.0
"""Comparison of the GPU operators with the reference implementation in float64."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from ops.native.gpu import harness, reference

SCALE, EPSILON, MOMENTUM = 64.0, 1e-5, 0.9
# Largest allowed value of ``Agreement.error`` for each dtype.
TOLERANCES = {np.float32: 1e-5, np.float64: 1e-9}
# Sizes of the test cases of the margin softmax, as (rows, dimensions, classes).
HEADS = [(33, 130, 1000), (128, 512, 9000)]
# Sizes of the test cases of PReLU and batch normalisation, as (images, channels, pixels).
LAYERS = [(3, 5, 49), (8, 16, 28 * 28)]


class Agreement(NamedTuple):
    """Error of one result of an operator, compared with the reference, and the allowed error."""

    name: str
    dtype: str
    # Largest absolute difference, divided by the largest absolute value of the reference.  The
    # divisor is 1 if all absolute values of the reference are smaller than 1.
    error: float
    tolerance: float

    def right(self) -> bool:
        """Return whether the error is within the tolerance."""
        return self.error <= self.tolerance


class Arrays(NamedTuple):
    """Functions that copy an array from the host to the device, and from the device to the host."""

    to_device: Callable[[np.ndarray], Any]
    to_host: Callable[[Any], np.ndarray]


def head_case(rows: int, dims: int, classes: int) -> list[np.ndarray]:
    """Return random inputs of the margin softmax: embedding, centres, label, psi and slope.

    All arrays are float32.  psi is the cosine of the target with its margin, (rows,), and slope is
    the derivative of psi with respect to the cosine without margin, (rows,).
    """
    generator = np.random.default_rng(0)
    x, w = (generator.standard_normal((n, dims), np.float32) for n in (rows, classes))
    label = generator.integers(0, classes, rows)
    angles = generator.uniform(-1, 1, rows), generator.uniform(0.5, 2, rows)
    return [x, w, *(a.astype(np.float32) for a in (label, *angles))]


def compare(
    ours: harness.Harness, arrays: Arrays, heads: list = HEADS, layers: list = LAYERS
) -> Iterator[Agreement]:
    """Run every operator, and yield the agreement of each result with the reference."""
    for dtype, tolerance in TOLERANCES.items():
        found: list[tuple[str, Any, np.ndarray]] = []
        for size in heads:
            for chunk in (0, size[2] // 3 + 1):
                found += _head(ours, arrays, dtype, size, chunk)
        for size in layers:
            found += _layer(ours, arrays, dtype, size)
        for name, array, true in found:
            error = np.abs(arrays.to_host(array) - true).max() / max(1.0, np.abs(true).max())
            yield Agreement(name, np.dtype(dtype).name, float(error), tolerance)


def _head(
    ours: harness.Harness, arrays: Arrays, dtype: Any, size: tuple[int, int, int], chunk: int
) -> Iterator[tuple[str, Any, np.ndarray]]:
    values = [a.astype(dtype) for a in head_case(*size)]
    values[2][::5] = -1  # label of a row whose target is in another shard of the classes
    rows, name = size[0], f"softmax {'x'.join(map(str, size))}{f' by {chunk}' if chunk else ''}"
    gradient = np.random.default_rng(1).uniform(0.1, 1, rows).astype(dtype)
    x, w, label, psi, slope = values
    true = reference.margin_softmax(x, w, label, psi, slope, SCALE, gradient)
    inputs = [arrays.to_device(a) for a in values]
    results = ours.margin_softmax(inputs, SCALE, chunk)
    for field in results._fields[:5]:
        yield f"{name} {field}", getattr(results, field), getattr(true, field)
    dx, dw = ours.margin_softmax_gradients(
        inputs, results, arrays.to_device(gradient), SCALE, chunk
    )
    yield f"{name} d embedding", dx, true.embedding_gradient
    yield f"{name} d centres", dw, true.centres_gradient
    momentum, decay, each = 0.9, 5e-4, 1 / rows
    mean = reference.margin_softmax(x, w, label, psi, slope, SCALE, np.full(rows, each))
    start = np.ones_like(w)
    moved, v = reference.step(w, start, mean.centres_gradient, 0.1, momentum, decay)
    velocity, rate = arrays.to_device(start), arrays.to_device(np.array([0.1], dtype))
    numbers = (momentum, decay, each)
    ours.margin_softmax_step(inputs, results, velocity, rate, numbers, SCALE, chunk)
    yield f"{name} step, centres", inputs[1], moved
    yield f"{name} step, velocity", velocity, v


def _layer(
    ours: harness.Harness, arrays: Arrays, dtype: Any, size: tuple[int, int, int]
) -> Iterator[tuple[str, Any, np.ndarray]]:
    generator, channels, name = np.random.default_rng(2), size[1], "x".join(map(str, size))
    x, dy, gamma, beta, slope = (
        generator.uniform(0.2, 1.5, shape).astype(dtype)
        for shape in (size, size, channels, channels, channels)
    )
    # x gets values on both sides of 0, but none so near 0 that rounding changes the value's sign.
    x[1] -= 2
    on_x, on_dy, on_slope = (arrays.to_device(a) for a in (x, dy, slope))
    for field, array, true in zip(
        ("y", "d x", "d slope"),
        (ours.prelu(on_x, on_slope), *ours.prelu_gradients(on_x, on_slope, on_dy)),
        reference.prelu(x, slope, dy),
        strict=True,
    ):
        yield f"prelu {name} {field}", array, true
    beta += 0.01
    running = np.zeros(channels, dtype), np.ones(channels, dtype)
    inputs = [on_x, arrays.to_device(gamma), arrays.to_device(beta), None]
    expected = reference.batch_norm(x, gamma, beta, None, running, EPSILON, MOMENTUM, dy)
    moved = [arrays.to_device(a) for a in running]
    out = ours.batch_norm(inputs, moved, EPSILON, MOMENTUM)
    gradients = ours.batch_norm_gradients(inputs, *out[1:], on_dy, EPSILON)
    results = (*out, *moved, *gradients)  # no gradient of slope, because no PReLU follows
    for field, array, true in zip(expected._fields, results, expected):  # noqa: B905
        yield f"batch norm {name} {field}", array, true
