# SPDX-License-Identifier: Apache-2.0
"""One operator on two devices: values and gradients, and how far apart they may be."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import mxnet as mx
import numpy as np

from tools.gpu_day.graph_operators import Case, forward

TOLERANCE = 1e-5
"""Of the largest value, for operators of float32."""
TOLERANCES = {
    # TF32, which Ampere and newer GPUs take for these, has 10 bits: 2**-11 for each factor.
    **dict.fromkeys(("Convolution", "FullyConnected", "dot", "batch_dot"), 2e-3),
    **dict.fromkeys(("BatchNorm", "L2Normalization"), 1e-4),  # sums of squares, in another order
}
RANDOM = ("Dropout", "_random", "_sample")
"""Beginnings of the names of operators that draw numbers: each device has its own."""
PLACES = ("argsort", "argmax", "argmin")
"""Operators that return places, which may differ where values are alike: these are compared."""
SIGMAS = 8


class Agreement(NamedTuple):
    """How far an operator on a device is from the same on another one."""

    op: str
    place: str
    error: float
    """Largest difference of values and gradients, against the largest value or 1."""
    tolerance: float
    gradient: bool
    """Whether it has a gradient, which was compared too."""

    @property
    def holds(self) -> bool:
        """Whether the error is within the tolerance."""
        return self.error <= self.tolerance


def compare(case: Case, reference: mx.Context, device: mx.Context) -> Agreement:
    """Compute an operator on two devices and compare."""
    if case.op.startswith(RANDOM):
        return _compare_random(case, reference, device)
    values = {f"i{place}": value for place, value in enumerate(case.inputs)}
    graph = case.symbol()
    outputs, _ = forward(graph, values, reference)
    random = np.random.default_rng(3)
    pulls = [random.uniform(0.5, 1.5, output.shape).astype(output.dtype) for output in outputs]
    differentiable = True
    try:
        _, wanted = forward(graph, values, reference, pulls)
    except mx.MXNetError as error:
        if "non-differentiable" not in str(error) and "FGradient" not in str(error):
            raise
        differentiable = False
    found, gradients = forward(graph, values, device, pulls if differentiable else None)
    if case.op in PLACES:
        outputs, found = (_at_places(case, places) for places in (outputs, found))
    pairs = list(zip(outputs, found, strict=True))
    if differentiable:
        pairs += [(wanted[name], gradients[name]) for name in wanted]
    tolerance = TOLERANCES.get(case.op, TOLERANCE)
    return Agreement(case.op, case.place, _error(pairs), tolerance, differentiable)


def _error(pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> float:
    """Return the largest difference; what is not finite in one alone is infinitely far away."""
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


def _at_places(case: Case, places: list[np.ndarray]) -> list[np.ndarray]:
    """Return the values at the places that an operator has found along its axis."""
    values = case.inputs[0]
    axis = int(case.attributes.get("axis", -1))
    found = []
    for array in places:
        index = array.astype(np.int64)
        if index.ndim < values.ndim:
            index = np.expand_dims(index, axis)
        found.append(np.take_along_axis(values, index, axis))
    return found


def _compare_random(case: Case, reference: mx.Context, device: mx.Context) -> Agreement:
    """Compare shape, mean and deviation of what two devices draw."""
    values = {f"i{place}": value for place, value in enumerate(case.inputs)}
    true, found = (forward(case.symbol(), values, ctx)[0][0] for ctx in (reference, device))
    alike = true.shape == found.shape and bool(np.isfinite(found).all())
    error = float("inf")
    if alike:
        spread = max(float(true.std()), 1e-6)
        differences = abs(found.mean() - true.mean()), abs(found.std() - true.std())
        error = float(max(differences)) / spread * true.size**0.5 / SIGMAS
    return Agreement(case.op, case.place, error, 1.0, False)
