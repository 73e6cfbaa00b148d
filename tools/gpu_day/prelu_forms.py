# SPDX-License-Identifier: Apache-2.0
"""Compare results and times of three implementations of PReLU with one slope per channel.

The first implementation is a pair of depthwise 1x1 convolutions, which oneDNN vectorises.  The
second is MXNet's LeakyReLU.  The third is the fused operator of this project, if its library is
available.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import mxnet as mx
import numpy as np

import ops

SHAPE, SMALL_SHAPE = (64, 64, 56, 56), (8, 64, 28, 28)
ROUNDS = 9
TOLERANCE = 1e-3
"""Tolerated error relative to the largest value; TF32 rounds inputs of convolutions to 10 bits."""

Form = Callable[[mx.nd.NDArray, mx.nd.NDArray], mx.nd.NDArray]


def convolutions(x: mx.nd.NDArray, alpha: mx.nd.NDArray) -> mx.nd.NDArray:
    """Compute PReLU as `alpha * x + (1 - alpha) * relu(x)`; convolutions compute both products."""

    def scaled(values: mx.nd.NDArray, factor: mx.nd.NDArray) -> mx.nd.NDArray:
        channels = values.shape[1]
        weight = factor.reshape((-1, 1, 1, 1))
        sizes: dict[str, Any] = {"kernel": (1, 1), "num_filter": channels, "num_group": channels}
        return mx.nd.Convolution(values, weight, no_bias=True, **sizes)

    return scaled(x, alpha) + scaled(mx.nd.relu(x), 1 - alpha)


def leaky(x: mx.nd.NDArray, alpha: mx.nd.NDArray) -> mx.nd.NDArray:
    """Compute PReLU with MXNet's LeakyReLU."""
    return mx.nd.LeakyReLU(x, gamma=alpha, act_type="prelu")


def fused(x: mx.nd.NDArray, alpha: mx.nd.NDArray) -> mx.nd.NDArray:
    """Compute PReLU with the fused operator of this project."""
    return mx.nd.face_prelu(x, alpha)


def forms(ctx: mx.Context) -> tuple[dict[str, Form], str]:
    """Return the available implementations by name, and the reason if the fused one is missing.

    The reason is "" if the fused operator is available.
    """
    found: dict[str, Form] = {"two convolutions": convolutions, "LeakyReLU": leaky}
    try:
        ops.use("native", ctx.device_type, ctx.device_id)
    except ops.OperatorError as error:
        return found, str(error)
    finally:
        ops.use("plain")
    return {**found, "fused": fused}, ""


def measure_forms(ctx: mx.Context, shape: tuple[int, int, int, int]) -> dict[str, dict[str, float]]:
    """Return the error of each implementation, and the ms of a forward and backward pass."""
    random = np.random.default_rng(2)
    x, pull = (random.normal(size=shape).astype(np.float32) for _ in range(2))
    alpha = random.uniform(0.1, 0.4, shape[1]).astype(np.float32)
    true = reference(x, alpha, pull)
    found: dict[str, dict[str, float]] = {}
    for name, form in forms(ctx)[0].items():
        on_x, on_alpha, on_pull = (mx.nd.array(a, ctx=ctx) for a in (x, alpha, pull))
        on_x.attach_grad()
        on_alpha.attach_grad()

        def step(
            form: Form = form, x: Any = on_x, alpha: Any = on_alpha, pull: Any = on_pull
        ) -> Any:
            with mx.autograd.record():
                y = form(x, alpha)
            y.backward(pull)
            return y

        results = [step(), on_x.grad, on_alpha.grad]
        error = max(
            float(np.abs(got.asnumpy() - want).max() / max(1.0, np.abs(want).max()))
            for got, want in zip(results, true, strict=True)
        )
        mx.nd.waitall()
        times = []
        for _ in range(ROUNDS):
            start = time.perf_counter()
            step()
            mx.nd.waitall()
            times.append(1000 * (time.perf_counter() - start))
        found[name] = {"milliseconds": round(statistics.median(times), 3), "error": error}
    return found


def reference(
    x: np.ndarray, alpha: np.ndarray, pull: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Compute PReLU in float64; return its output and the gradients of its input and its slopes.

    ``pull`` is the gradient of the output.

    He et al., "Delving Deep into Rectifiers", arXiv:1502.01852, equation 1.
    """
    slopes = alpha.astype(np.float64)[None, :, None, None]
    below = np.minimum(x, 0).astype(np.float64)
    return (
        np.maximum(x, 0) + slopes * below,
        np.where(x > 0, pull, slopes * pull),
        (pull * below).sum(axis=(0, 2, 3)),
    )
