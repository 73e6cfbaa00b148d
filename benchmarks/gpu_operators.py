# SPDX-License-Identifier: Apache-2.0
"""Check and time the GPU operators:  python benchmarks/gpu_operators.py

The benchmark needs an NVIDIA GPU, CuPy and nvcc, but not MXNet.  First it compares every operator
with its definition, computed in NumPy with float64.  Then it times a margin softmax: forward,
backward and the update of the class centres.  The baselines are a CuPy version that stores the
matrix of logits, and the matrix products alone.  Last, the benchmark times PReLU and batch
normalisation; the baseline is the copy of an array.  Each implementation runs once per round; the
table shows the median, minimum and maximum over ``--repeat`` rounds.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

# This project may not be installed in the environment with CuPy, so import it from the checkout.
ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from launch.config.paths import home_path
from ops.native.gpu import agreement, harness, nvcc

HEADS = [(128, 512, 10_572), (128, 512, 85_742), (512, 512, 85_742), (128, 512, 360_232)]
LAYERS = [(128, 64, 112 * 112), (128, 128, 28 * 28), (128, 512, 7 * 7)]
SCALE, EPSILON, MOMENTUM = agreement.SCALE, agreement.EPSILON, agreement.MOMENTUM


class RequirementError(RuntimeError):
    """Error for a machine without something that the benchmark needs, such as a GPU or CuPy."""


def main() -> int:
    """Parse the command line, run the benchmark and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--check",
        type=_sizes,
        default=agreement.HEADS,
        help="heads to compare with NumPy, as sizes BxExC,... (batch size, embedding size, number "
        "of classes)",
    )
    parser.add_argument(
        "--heads",
        type=_sizes,
        default=HEADS,
        help="heads to time, as sizes BxExC,... (batch size, embedding size, number of classes)",
    )
    parser.add_argument(
        "--layers",
        type=_sizes,
        default=LAYERS,
        help="layers to time, as sizes NxCxP,... (batch size, channels, pixels per channel)",
    )
    parser.add_argument(
        "--repeat", type=int, default=15, help="number of timed rounds (default: 15)"
    )
    parser.add_argument(
        "--library",
        type=home_path,
        help="shared library of the operators (default: compile the operators with nvcc)",
    )
    parser.add_argument(
        "--json",
        type=home_path,
        help="JSON file to write with the machine description and the result rows",
    )
    arguments = parser.parse_args()
    try:
        cupy = _cupy()
        with tempfile.TemporaryDirectory() as scratch:
            library = arguments.library or compile_library(Path(scratch))
            stream = cupy.cuda.Stream(non_blocking=True)
            with stream:
                ours = harness.Harness(library, cupy.empty, lambda a: a.data.ptr, stream.ptr)
                if fault := ours.fault():
                    raise RequirementError(f"this GPU cannot run the operators: {fault}")
                return run(cupy, ours, stream, arguments)
    except (RequirementError, nvcc.ToolkitError) as error:
        print(f"gpu_operators: {error}", file=sys.stderr)
        return 2


def run(cupy: Any, ours: harness.Harness, stream: Any, arguments: argparse.Namespace) -> int:
    """Check and time the operators and print the results; return 1 if a result is wrong, else 0."""
    device = cupy.cuda.runtime.getDeviceProperties(0)["name"].decode()
    print(device)
    wrong = 0
    arrays = agreement.Arrays(cupy.asarray, cupy.asnumpy)
    for result in agreement.compare(ours, arrays, arguments.check):
        wrong += not result.right()
        verdict = "right" if result.right() else "WRONG"
        print(f"{verdict}  {result.dtype}  {result.name:42} error {result.error:.1e}")
    rows: list[dict[str, Any]] = []
    for sizes, candidates in ((arguments.heads, heads), (arguments.layers, layers)):
        for size in sizes:
            named = candidates(cupy, ours, *size)
            rows += measure(cupy, named, "x".join(map(str, size)), stream, arguments.repeat)
    if arguments.json:
        machine = {"device": device, "python": sys.version.split()[0]}
        arguments.json.write_text(json.dumps({"machine": machine, "rows": rows}, indent=1) + "\n")
    if wrong:
        print(
            f"gpu_operators: {wrong} results differ from NumPy's; see the lines with WRONG",
            file=sys.stderr,
        )
    return 1 if wrong else 0


def compile_library(folder: Path) -> Path:
    """Compile the operators with nvcc into a folder; return the path of the library."""
    toolkit = nvcc.find()
    print(f"compiling with {toolkit.nvcc}, CUDA {'.'.join(map(str, toolkit.release))}")
    objects = nvcc.compile_objects(
        toolkit, [*nvcc.SOURCES, ROOT / "ops" / "native" / "gpu" / "harness.cc"], folder, 4
    )
    nvcc.link(toolkit, objects, folder / "operators.so")
    return folder / "operators.so"


def heads(cupy: Any, ours: harness.Harness, B: int, E: int, C: int) -> dict[str, Callable[[], Any]]:
    """Return implementations of a margin softmax: a dictionary from a name to a function to time.

    B is the batch size, E the embedding size and C the number of classes.
    """
    inputs = [cupy.asarray(a) for a in agreement.head_case(B, E, C)]
    x, w, label, psi, slope = inputs
    gradient = cupy.asarray(np.full(B, 1 / B, np.float32))
    velocity, rate = cupy.asarray(np.zeros((C, E), np.float32)), gradient[:1] * 0
    results = ours.margin_softmax(inputs, SCALE)
    row, target = cupy.asarray(np.arange(B)), label.astype("int64")

    def plain(backward: bool) -> Any:
        inverse_x = 1 / cupy.sqrt((x * x).sum(1, keepdims=True) + 1e-10)
        inverse_w = 1 / cupy.sqrt((w * w).sum(1, keepdims=True) + 1e-10)
        unit_x, unit_w = x * inverse_x, w * inverse_w
        logits = unit_x @ unit_w.T * np.float32(SCALE)
        logits[row, target] = psi * np.float32(SCALE)
        p = cupy.exp(logits - logits.max(1, keepdims=True))
        p /= p.sum(1, keepdims=True)
        loss = -cupy.log(p[row, target])
        if not backward:
            return loss
        p[row, target] = (p[row, target] - 1) * slope
        p *= gradient[:, None] * np.float32(SCALE)
        dx, dw = p @ unit_w, p.T @ unit_x
        dx = inverse_x * (dx - (dx * unit_x).sum(1, keepdims=True) * unit_x)
        return dx, inverse_w * (dw - (dw * unit_w).sum(1, keepdims=True) * unit_w)

    numbers = (0.9, 0.0, 1 / B)
    step = (inputs, results, velocity, rate, numbers, SCALE)
    scores = x @ w.T
    return {
        "ours softmax forward": lambda: ours.margin_softmax(inputs, SCALE),
        "ours softmax backward": lambda: ours.margin_softmax_gradients(
            inputs, results, gradient, SCALE
        ),
        "ours softmax step": lambda: ours.margin_softmax_step(*step),
        "cupy softmax forward": lambda: plain(False),
        "cupy softmax forward and backward": lambda: plain(True),
        "limit softmax products, forward": lambda: (x @ w.T, scores @ w),
        "limit softmax products, backward": lambda: (x @ w.T, scores.T @ x),
    }


def layers(
    cupy: Any, ours: harness.Harness, N: int, C: int, P: int
) -> dict[str, Callable[[], Any]]:
    """Return PReLU and batch normalisation: a dictionary from a name to a function to time.

    N is the batch size, C the number of channels and P the number of pixels per channel.
    """
    generator = np.random.default_rng(0)
    x, dy = (cupy.asarray(generator.standard_normal((N, C, P), np.float32)) for _ in range(2))
    ones, slope = (cupy.asarray(np.full(C, v, np.float32)) for v in (1, 0.25))
    inputs, running = [x, ones, slope, slope], [ones * 0, ones * 1]
    _, mean, inverse = ours.batch_norm(inputs, running, EPSILON, MOMENTUM)
    return {
        "ours prelu forward": lambda: ours.prelu(x, slope),
        "ours prelu backward": lambda: ours.prelu_gradients(x, slope, dy),
        "ours batch norm, prelu forward": lambda: ours.batch_norm(
            inputs, running, EPSILON, MOMENTUM
        ),
        "ours batch norm, prelu backward": lambda: ours.batch_norm_gradients(
            inputs, mean, inverse, dy, EPSILON
        ),
        "limit copy": lambda: x.copy(),
    }


def measure(
    cupy: Any, named: dict[str, Callable[[], Any]], size: str, stream: Any, repeat: int
) -> list[dict[str, Any]]:
    """Time each function once per round, for ``repeat`` rounds; print and return the results."""
    pool = cupy.get_default_memory_pool()
    times: dict[str, list[float]] = {name: [] for name in named}
    peaks = {}
    # The first call of each function is a warm-up, which also measures the peak memory.
    for name, compute in named.items():
        stream.synchronize()
        pool.free_all_blocks()
        before = pool.used_bytes()
        compute()
        stream.synchronize()
        peaks[name] = (pool.total_bytes() - before) / 2**20
    for _ in range(repeat):
        for name, compute in named.items():
            start, end = cupy.cuda.Event(), cupy.cuda.Event()
            start.record(stream)
            compute()
            end.record(stream)
            end.synchronize()
            times[name].append(cupy.cuda.get_elapsed_time(start, end))
    rows = []
    for name, found in times.items():
        median, low, high = statistics.median(found), min(found), max(found)
        row_name = f"{name} {size}"
        row = {"name": row_name, "milliseconds": median, "spread": [low, high]}
        rows.append({**row, "peak_mib": peaks[name]})
        print(f"{row_name:52} {median:9.3f} ms ({low:.3f} to {high:.3f}) {peaks[name]:8.0f} MiB")
    return rows


def _sizes(text: str) -> list[tuple[int, ...]]:
    sizes = [tuple(int(side) for side in size.split("x")) for size in text.split(",")]
    if any(len(size) != 3 or min(size) < 1 for size in sizes):
        raise argparse.ArgumentTypeError(
            f"each size must be three whole numbers of 1 or more, got {text}; write for example "
            "128x512x10572"
        )
    return sizes


def _cupy() -> Any:
    try:
        import cupy

        if not cupy.cuda.runtime.getDeviceCount():
            raise RequirementError(
                "the benchmark needs an NVIDIA GPU, got none; run it on a machine with one"
            )
    except RequirementError:
        raise
    except Exception as error:  # CuPy raises its own classes for errors of the NVIDIA driver.
        raise RequirementError(
            f"the benchmark needs an NVIDIA GPU, its driver and CuPy, got the error: {error}; "
            "on a machine with a GPU install cupy-cuda11x, cupy-cuda12x or cupy-cuda13x"
        ) from None
    return cupy


if __name__ == "__main__":
    sys.exit(main())
