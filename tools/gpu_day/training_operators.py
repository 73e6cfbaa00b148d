# SPDX-License-Identifier: Apache-2.0
"""Compare, on GPU and CPU, the operators that training uses outside nets and heads."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import mxnet as mx
import numpy as np

from tools.gpu_day.device_comparison import TOLERANCE, Agreement

Arrays = list[mx.nd.NDArray]


def _sgd(a: Arrays) -> Arrays:
    weight, gradient, momentum = a[0].copy(), a[1], a[2].copy()
    step = {"lr": 0.1, "momentum": 0.9, "wd": 5e-4, "rescale_grad": 0.125}
    return [mx.nd.sgd_mom_update(weight, gradient, momentum, out=weight, **step), momentum]


def _nag(a: Arrays) -> Arrays:
    weight, gradient, momentum = a[0].copy(), a[1], a[2].copy()
    step = {"lr": 0.1, "momentum": 0.9, "wd": 5e-4, "rescale_grad": 0.125}
    return [mx.nd.nag_mom_update(weight, gradient, momentum, out=weight, **step), momentum]


def _scatter(a: Arrays) -> Arrays:
    rows = mx.nd.array([[3, 0, 5]], ctx=a[0].context, dtype="int32")
    out = a[0].copy()
    mx.nd._internal._scatter_set_nd(out, a[1][:3], rows, shape=out.shape, out=out)
    return [out]


OPERATORS: dict[str, Callable[[Arrays], Arrays]] = {
    "multi_sum_sq": lambda a: [mx.nd.multi_sum_sq(*a, num_arrays=len(a))],
    "multi_all_finite": lambda a: [
        mx.nd.multi_all_finite(*a, num_arrays=len(a)),
        mx.nd.multi_all_finite(a[0] / 0, num_arrays=1),
    ],
    "add_n": lambda a: [mx.nd.add_n(*a)],
    "sgd_mom_update": _sgd,
    "nag_mom_update": _nag,
    "_scatter_set_nd": _scatter,
    "sort": lambda a: [mx.nd.sort(a[0], axis=0)],
    "flip": lambda a: [mx.nd.flip(a[0], axis=1)],
    "mean": lambda a: [a[0].mean()],
    "cast of labels": lambda a: [(a[0] * 100).astype("int32"), a[0].astype("float64")],
}


def compare_training(reference: mx.Context, device: mx.Context) -> Iterator[Agreement]:
    """Compute each operator of OPERATORS on two devices; yield the difference of the results."""
    random = np.random.default_rng(4)
    values = [random.normal(size=(12, 7)).astype(np.float32) for _ in range(3)]
    for name, compute in OPERATORS.items():
        true, found = (
            [
                a.asnumpy().astype(np.float64)
                for a in compute([mx.nd.array(v, ctx=ctx) for v in values])
            ]
            for ctx in (reference, device)
        )
        error = max(
            float(np.abs(a - b).max() / max(1.0, np.abs(a).max()))
            for a, b in zip(true, found, strict=True)
        )
        yield Agreement(name, "training", error, TOLERANCE, False)
