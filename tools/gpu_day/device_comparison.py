# SPDX-License-Identifier: Apache-2.0
"""Compare the values and gradients of one operator on two devices, with tolerances."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import mxnet as mx
import numpy as np

from tools.gpu_day.graph_operators import Case, forward

TOLERANCE = 1e-5
"""Tolerated error of float32 operators, relative to the largest value."""
TOLERANCES = {
    # Ampere and newer GPUs compute these operators in TF32, which keeps 10 bits of the mantissa.
    # So each factor of a product has a relative rounding error of up to 2**-11.
    **dict.fromkeys(("Convolution", "FullyConnected", "dot", "batch_dot"), 2e-3),
    # Two devices add the terms of a sum in different orders.
    **dict.fromkeys(("BatchNorm", "L2Normalization"), 1e-4),
}
RANDOM = ("Dropout", "_random", "_sample")
"""Prefixes of the names of operators with random outputs, which differ between devices."""
INDEX_OPERATORS = ("argsort", "argmax", "argmin")
"""Operators that return indices.

The values at these indices are compared, because the indices of equal values may be swapped.
"""
SIGMAS = 8
"""Tolerated difference between statistics of random outputs, in standard errors."""


class Agreement(NamedTuple):
    """Difference between the results of one operator on two devices."""

    op: str
    place: str
    """Net or head that contains the operator."""
    error: float
    """Largest difference of values or gradients, divided by the largest value.

    Where the largest value is below 1, the difference is not divided.  For random outputs, see
    `_compare_random`.
    """
    tolerance: float
    gradient: bool
    """Whether the comparison includes a gradient."""

    @property
    def holds(self) -> bool:
        """Return whether the error is within the tolerance."""
        return self.error <= self.tolerance


def compare(case: Case, reference: mx.Context, device: mx.Context) -> Agreement:
    """Compute an operator on two devices; compare the outputs and, if defined, the gradients."""
    if case.op.startswith(RANDOM):
        return _compare_random(case, reference, device)
    values = {f"i{index}": value for index, value in enumerate(case.inputs)}
    graph = case.symbol()
    outputs, _ = forward(graph, values, reference)
    random = np.random.default_rng(3)
    head_gradients = [
        random.uniform(0.5, 1.5, output.shape).astype(output.dtype) for output in outputs
    ]
    differentiable = True
    try:
        _, wanted = forward(graph, values, reference, head_gradients)
    except mx.MXNetError as error:
        if "non-differentiable" not in str(error) and "FGradient" not in str(error):
            raise
        differentiable = False
    found, gradients = forward(graph, values, device, head_gradients if differentiable else None)
    if case.op in INDEX_OPERATORS:
        outputs, found = (_values_at(case, indices) for indices in (outputs, found))
    pairs = list(zip(outputs, found, strict=True))
    if differentiable:
        pairs += [(wanted[name], gradients[name]) for name in wanted]
    tolerance = TOLERANCES.get(case.op, TOLERANCE)
    return Agreement(case.op, case.place, _error(pairs), tolerance, differentiable)


def _error(pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> float:
    """Return the largest difference between the two arrays of a pair, over all pairs.

    Each difference is divided as in `Agreement.error`.  The difference is infinite if the shapes
    differ, or if NaN or infinite values differ.
    """
    worst = 0.0
    for true, found in pairs:
        true, found = (np.asarray(a, dtype=np.float64) for a in (true, found))
        finite = np.isfinite(true)
        if true.shape != found.shape or not np.array_equal(true[~finite], found[~finite], True):
            return float("inf")
        if finite.any():
            scale = max(1.0, float(np.abs(true[finite]).max()))
            difference = float(np.abs(found[finite] - true[finite]).max())
            worst = max(worst, difference / scale if np.isfinite(difference) else float("inf"))
    return worst


def _values_at(case: Case, indices: list[np.ndarray]) -> list[np.ndarray]:
    """Return the input values at the indices that an operator such as argsort returned."""
    values = case.inputs[0]
    axis = int(case.attributes.get("axis", -1))
    found = []
    for array in indices:
        index = array.astype(np.int64)
        if index.ndim < values.ndim:
            index = np.expand_dims(index, axis)
        found.append(np.take_along_axis(values, index, axis))
    return found


def _compare_random(case: Case, reference: mx.Context, device: mx.Context) -> Agreement:
    """Compare an operator with random outputs on two devices: shape, mean, standard deviation.

    The error is expressed in units of SIGMAS standard errors, so the tolerance is 1.
    """
    values = {f"i{index}": value for index, value in enumerate(case.inputs)}
    true, found = (forward(case.symbol(), values, ctx)[0][0] for ctx in (reference, device))
    comparable = true.shape == found.shape and bool(np.isfinite(found).all())
    error = float("inf")
    if comparable:
        spread = max(float(true.std()), 1e-6)
        differences = abs(found.mean() - true.mean()), abs(found.std() - true.std())
        error = float(max(differences)) / spread * true.size**0.5 / SIGMAS
    return Agreement(case.op, case.place, error, 1.0, False)
