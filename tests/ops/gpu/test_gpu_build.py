# SPDX-License-Identifier: Apache-2.0
"""Compilation of the GPU operators with nvcc, and the benchmark of the operators."""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ops.native.gpu import nvcc
from ops.native.gpu.agreement import Arrays, compare

ROOT = Path(__file__).resolve().parents[3]
BENCHMARK = ROOT / "benchmarks" / "gpu_operators.py"


@pytest.fixture(scope="module")
def toolkit():
    try:
        return nvcc.find()
    except nvcc.ToolkitError as error:
        pytest.skip(str(error))


def test_nvcc_compiles_the_operators(toolkit, tmp_path, monkeypatch):
    # Only for the oldest GPU family, which has the fewest instructions: all families take minutes.
    oldest = nvcc.architectures(toolkit.release)[:2]
    monkeypatch.setattr(nvcc, "architectures", lambda release: oldest)
    sources = [*nvcc.SOURCES, nvcc.HERE / "harness.cc"]
    nvcc.link(toolkit, nvcc.compile_objects(toolkit, sources, tmp_path, 2), tmp_path / "gpu.so")
    # The library loads without a GPU, a driver or cuBLAS, and reports what is missing.
    loaded = ctypes.CDLL(str(tmp_path / "gpu.so"))
    loaded.face_gpu_fault.restype = ctypes.c_char_p
    if not list(Path("/dev").glob("nvidia[0-9]*")):
        assert loaded.face_gpu_fault(0)


def test_nvcc_supports_all_chosen_gpu_families(toolkit):
    known = subprocess.run([toolkit.nvcc, "--help"], capture_output=True, text=True).stdout
    for option in nvcc.architectures(toolkit.release)[1::2]:
        for name in option.replace("arch=", "").replace("code=", "").split(","):
            assert f"'{name}'" in known, name


@pytest.mark.parametrize(
    ("release", "families"),
    [
        ((11, 0), [50, 60, 70, 80]),
        ((11, 8), [50, 60, 70, 80, 90]),
        ((12, 4), [50, 60, 70, 80, 90]),
        ((12, 8), [50, 60, 70, 80, 90, 100, 120]),
        ((13, 0), [75, 80, 90, 100, 120]),
    ],
)
def test_the_cuda_release_determines_the_gpu_families(release, families):
    options = nvcc.architectures(release)
    assert options[::2] == ["-gencode"] * (len(families) + 1)
    assert options[1::2] == [
        *(f"arch=compute_{family},code=sm_{family}" for family in families),
        f"arch=compute_{families[-1]},code=compute_{families[-1]}",
    ]


def test_a_missing_nvcc_is_reported_with_a_remedy(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("CUDA_HOME", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(nvcc.ToolkitError, match="need nvcc of CUDA 11.0 or newer, got .*CUDA_H"):
        nvcc.find()


def test_an_old_nvcc_is_refused(monkeypatch, tmp_path):
    fake = tmp_path / "bin" / "nvcc"
    fake.parent.mkdir()
    fake.write_text("#!/bin/sh\necho 'Cuda compilation tools, release 10.2, V10.2.89'\n")
    fake.chmod(0o755)
    monkeypatch.setenv("CUDA_HOME", str(tmp_path))
    monkeypatch.setattr(nvcc.Path, "glob", lambda self, pattern: iter(()))
    monkeypatch.setattr(nvcc.shutil, "which", lambda name: None)
    with pytest.raises(nvcc.ToolkitError, match=f"got {fake} of CUDA 10.2; install"):
        nvcc.find()


def test_all_operators_agree_with_their_definitions(device):
    sizes = {"heads": [(5, 12, 40)], "layers": [(3, 2, 8)]}
    found = list(compare(device.operators, Arrays(device.array, lambda a: a), **sizes))
    assert {result.dtype for result in found} == {"float32", "float64"}
    assert len(found) == 2 * (2 * 9 + 3 + 8)
    assert all(result.right() for result in found), [r for r in found if not r.right()]


def benchmark(*arguments, **environment):
    return subprocess.run(
        [sys.executable, str(BENCHMARK), *map(str, arguments)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )


def test_the_benchmark_runs_with_a_stand_in_for_cupy(library, tmp_path):
    sizes = ["--check", "5x12x40", "--heads", "3x8x20", "--layers", "2x3x8", "--repeat", 2]
    done = benchmark(
        *("--library", library, *sizes, "--json", tmp_path / "rows.json"),
        PYTHONPATH=str(Path(__file__).with_name("stand_in")),
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "right  float64  prelu 3x5x49 d slope" in done.stdout and "WRONG" not in done.stdout
    rows = json.loads((tmp_path / "rows.json").read_text())["rows"]
    assert {row["name"].split()[0] for row in rows} == {"ours", "cupy", "limit"}
    assert all(row["milliseconds"] > 0 for row in rows)


def test_the_benchmark_reports_a_missing_cupy_or_gpu(tmp_path):
    (tmp_path / "cupy.py").write_text("raise ImportError('libcuda.so.1 is missing')\n")
    done = benchmark(PYTHONPATH=str(tmp_path))
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr == (
        "gpu_operators: the benchmark needs an NVIDIA GPU, its driver and CuPy, got the error: "
        "libcuda.so.1 is missing; on a machine with a GPU install cupy-cuda11x, cupy-cuda12x or "
        "cupy-cuda13x\n"
    )


def test_the_benchmark_refuses_invalid_sizes():
    done = benchmark("--heads", "3x8")
    assert (
        done.returncode == 2 and "each size must be three whole numbers of 1 or more" in done.stderr
    )
