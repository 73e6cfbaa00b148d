# SPDX-License-Identifier: Apache-2.0
"""Fixtures that compile the GPU operators with g++ for the emulated device of emulation.h."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ops.native.gpu import nvcc
from tests.ops.gpu.device import Device

HERE = Path(__file__).parent
OPTIONS = [
    *("-std=c++17", "-O1", "-fPIC", "-Wall", "-Wextra", "-Werror"),
    "-U_FORTIFY_SOURCE",  # its longjmp refuses to switch stacks
    *(f"-I{nvcc.HERE}", f"-I{HERE}"),
]


@pytest.fixture(autouse=True)
def native():
    """Override the fixture of tests/ops: MXNet does not load these operators."""


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the library for the emulated device; skip the test if there is no compiler."""
    compiler = shutil.which(os.environ.get("CXX", "g++"))
    if compiler is None:
        pytest.skip("no C++ compiler for the emulated GPU")
    folder = tmp_path_factory.mktemp("emulated")
    blas, target = folder / "blas.so", folder / "operators.so"

    def run(*arguments: object) -> None:
        done = subprocess.run(
            [compiler, *OPTIONS, *map(str, arguments)], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr

    def compile_one(source: Path) -> Path:
        options = ["-x", "c++", f'-DFACE_CUBLAS="{blas}"', "-c", source]
        run(*options, "-o", folder / f"{source.name}.o")
        return folder / f"{source.name}.o"

    with ThreadPoolExecutor(2) as pool:
        stand_in = pool.submit(run, "-shared", HERE / "blas_stand_in.cc", "-o", blas)
        sources = [*nvcc.SOURCES, nvcc.HERE / "harness.cc", HERE / "emulation.cc"]
        objects = list(pool.map(compile_one, sources))
        stand_in.result()
    run("-shared", *objects, "-o", target, "-ldl")
    return target


@pytest.fixture
def device(library: Path) -> Device:
    """Return the emulated device; check after the test that nothing was written beside an array."""
    emulated = Device(library)
    yield emulated
    emulated.check_guards()


@pytest.fixture
def orders(device: Device) -> Callable[[Callable], object]:
    """Return ``orders(compute)``, which checks that all orders of threads give one result.

    It returns that result.
    """
    import numpy as np

    def compute_all(compute: Callable) -> object:
        results = []
        for order in ("forward", "backward", "shuffled"):
            device.order(order)
            results.append([np.array(a) for a in compute()])
        for other in results[1:]:
            for one, two in zip(results[0], other, strict=True):
                assert np.array_equal(one, two, equal_nan=True)
        return results[0]

    return compute_all
