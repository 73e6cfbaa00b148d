# SPDX-License-Identifier: Apache-2.0
"""Check and time the fused operators for GPUs (step 4 of `tools.gpu_day`)."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import mxnet as mx
import numpy as np

import ops
from heads import build_head
from nets.blocks import ConvNormPReLU
from tools.gpu_day.commands import python, run
from tools.gpu_day.results import Parts, Skipped

if TYPE_CHECKING:
    from tools.gpu_day.setting import Setting

LIMIT_S = 45
TIMED = ["--heads", "128x512x85742", "--layers", "128x64x12544", "--repeat", "7"]
MISSING_CODE = 2  # benchmarks/gpu_operators.py exits with this code if CuPy or nvcc is missing.
TOLERANCE = 2e-3
"""Tolerated error relative to the largest value; operators with TF32 round inputs to 10 bits."""
CHANNELS, CLASSES, IMAGES = 32, 50, 16


def measure(setting: Setting, parts: Parts) -> None:
    """Run benchmarks/gpu_operators.py, then compare fused with plain operators on two GPUs."""
    with parts.part("operators against float64, beside CuPy"):
        table = setting.scratch / "operators.json"
        command = python("benchmarks/gpu_operators.py", *TIMED, "--json", table)
        ended = run(command, limit_s=LIMIT_S)
        if ended.code == MISSING_CODE:
            raise Skipped(ended.last_line())
        rows = json.loads(table.read_text())["rows"] if table.is_file() else []
        timed = {row["name"]: f"{row['milliseconds']:.2f} ms" for row in rows}
        what, last = "operators against float64, beside CuPy", ended.last_line()
        parts.require(
            what,
            ended.code == 0,
            timed,
            f"gpu_operators.py ended with exit code {ended.code}; last line: {last}",
        )
    for index in range(2):
        what = f"fused against plain, {setting.device} {index}"
        with parts.part(what):
            if setting.gpus and index >= setting.gpus:
                raise Skipped(f"needs {index + 1} GPUs, got {setting.gpus}")
            errors = fused_against_plain(mx.Context(setting.device, index))
            wrong = {name: f"{e:.1e}" for name, e in errors.items() if not e <= TOLERANCE}
            value = {name: f"{error:.1e}" for name, error in errors.items()}
            parts.require(what, not wrong, value, f"errors exceed {TOLERANCE:g}: {wrong}")


def fused_against_plain(ctx: mx.Context) -> dict[str, float]:
    """Return how much fused and plain operators differ in the loss and in each gradient.

    Each value is the largest absolute difference divided by the largest absolute plain result, or
    by 1e-3 if that result is smaller.

    Raises
    ------
    Skipped
        If the device has no fused operators.
    """
    plain = _step(ctx, "plain")
    try:
        fused = _step(ctx, "native")
    except ops.OperatorError as error:
        raise Skipped(str(error)) from None
    finally:
        ops.use("plain")
    return {
        name: float(np.abs(fused[name] - true).max() / max(1e-3, np.abs(true).max()))
        for name, true in plain.items()
    }


def _step(ctx: mx.Context, choice: str) -> dict[str, np.ndarray]:
    """Compute a block and a head, forward and backward, with plain or native (fused) operators.

    Return the loss and the gradients by name.
    """
    ops.use(choice, ctx.device_type, ctx.device_id)
    mx.random.seed(9)
    block = ConvNormPReLU(3, CHANNELS, 3, 2, 1, prefix="block_")
    head = build_head("arcface", CLASSES, CHANNELS, m2=0.3, scale=16.0)
    for part in (block, head):
        # The CPU draws the initial weights, so that they are equal for all devices.
        part.initialize(mx.init.Xavier())
        part.collect_params().reset_ctx(ctx)
        part.hybridize()
    random = np.random.default_rng(6)
    image = mx.nd.array(random.normal(size=(IMAGES, 3, 28, 28)), ctx=ctx)
    label = mx.nd.array(random.integers(0, CLASSES, IMAGES), ctx=ctx)
    with mx.autograd.record():
        embedding = block(image).mean(axis=(2, 3))
        loss, _ = head(embedding, label, mx.nd.ones((1,), ctx=ctx))
    loss.backward()
    found = {"loss": loss.asnumpy()}
    for part in (block, head):
        for name, parameter in sorted(part._collect_params_with_prefix().items()):
            if parameter.grad_req != "null":
                found[name] = parameter.grad(ctx).asnumpy()
    return found
