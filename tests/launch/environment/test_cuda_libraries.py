# SPDX-License-Identifier: Apache-2.0
"""The import hook that loads the CUDA libraries of the wheels before mxnet."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
HOOKS = ROOT / "launch" / "environment"
GPU_VENV = ROOT / ".venv-gpu"
QUIET = "MXNET_CUDNN_LIB_CHECKING"


@pytest.fixture
def cuda_libraries(monkeypatch):
    """Import the module and remove its import hook at the end of the test."""
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    monkeypatch.setenv(QUIET, "")  # makes monkeypatch restore it
    monkeypatch.delenv(QUIET)
    from launch.environment import cuda_libraries

    return cuda_libraries


def lay_out(site: Path, libraries: list[tuple[str, str]]) -> list[str]:
    """Create empty files at the paths of the libraries; return the paths in the given order."""
    paths = [site / "nvidia" / wheel / "lib" / name for wheel, name in libraries]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return [str(path) for path in paths]


def test_the_driver_is_loaded_first_and_dependencies_before_dependents(cuda_libraries, tmp_path):
    paths = lay_out(tmp_path, list(reversed(cuda_libraries.LIBRARIES)))
    loaded: list[str] = []
    assert cuda_libraries.preload(tmp_path, loaded.append) == len(paths) == 18
    assert loaded[0] == "libcuda.so.1"
    assert sorted(loaded[1:]) == sorted(paths)
    names = [Path(path).name for path in loaded]
    for library, needs in [
        ("libcublas.so.11", "libcublasLt.so.11"),
        ("libcusolver.so.11", "libcublas.so.11"),
        ("libcusolver.so.11", "libcusparse.so.11"),
        ("libcudnn.so.8", "libcublas.so.11"),
        ("libcudnn_ops_infer.so.8", "libcublas.so.11"),
        ("libcudnn_ops_train.so.8", "libcudnn_ops_infer.so.8"),
        ("libcudnn_cnn_infer.so.8", "libcudnn_ops_infer.so.8"),
        ("libcudnn_cnn_train.so.8", "libcudnn_cnn_infer.so.8"),
        ("libcudnn_cnn_train.so.8", "libcudnn_ops_train.so.8"),
        ("libcudnn_adv_infer.so.8", "libcudnn_ops_infer.so.8"),
        ("libcudnn_adv_train.so.8", "libcudnn_adv_infer.so.8"),
        ("libcudnn_adv_train.so.8", "libcudnn_ops_train.so.8"),
    ]:
        assert names.index(needs) < names.index(library)


def test_nothing_is_loaded_without_the_wheels(cuda_libraries, tmp_path):
    def load(name: str) -> None:
        raise AssertionError(f"{name} was loaded")

    assert cuda_libraries.preload(tmp_path, load) == 0
    assert QUIET not in os.environ  # the warning matters for the system's own cuDNN


@pytest.mark.parametrize(("before", "after"), [(None, "0"), ("1", "1")])
def test_the_cudnn_version_warning_is_disabled(
    before, after, cuda_libraries, tmp_path, monkeypatch
):
    if before is not None:
        monkeypatch.setenv(QUIET, before)
    lay_out(tmp_path, list(cuda_libraries.LIBRARIES))
    cuda_libraries.preload(tmp_path, lambda name: None)
    assert os.environ[QUIET] == after


def test_a_missing_wheel_is_reported(cuda_libraries, tmp_path):
    lay_out(tmp_path, [pair for pair in cuda_libraries.LIBRARIES if pair[0] != "cudnn"])
    with pytest.raises(ImportError) as caught:
        cuda_libraries.preload(tmp_path, lambda name: None)
    missing = tmp_path / "nvidia/cudnn/lib/libcudnn.so.8"
    assert str(caught.value) == (
        f"mxnet: the installation of the CUDA 11 libraries is incomplete, got no {missing}; "
        "remove .venv-gpu and call `make gpu` again"
    )


def test_a_missing_driver_is_reported(cuda_libraries, tmp_path):
    lay_out(tmp_path, list(cuda_libraries.LIBRARIES))

    def load(name: str) -> None:
        raise OSError(f"{name}: cannot open shared object file: No such file or directory")

    with pytest.raises(ImportError) as caught:
        cuda_libraries.preload(tmp_path, load)
    assert str(caught.value) == (
        "mxnet: this build of MXNet requires an NVIDIA driver, got libcuda.so.1: "
        "cannot open shared object file: No such file or directory; install the NVIDIA driver "
        "(450.80.02 or newer), or use the CPU environment, .venv"
    )
    assert caught.value.__suppress_context__


# A stand-in for mxnet that prints the effect of both import hooks.
FAKE_MXNET = """
import ctypes, numpy
assert numpy.bool is bool
try:
    ctypes.CDLL("libcudart.so.11.0")
    print("libraries are there")
except OSError:
    print("no libraries")
"""


@pytest.fixture
def site(tmp_path):
    folder = tmp_path / "site"
    folder.mkdir()
    for hook in ("cuda_libraries", "numpy_aliases"):
        (folder / f"mxnet_{hook}.py").write_text((HOOKS / f"{hook}.py").read_text())
        (folder / f"mxnet_{hook}.pth").write_text(f"import mxnet_{hook}\n")
    (folder / "mxnet").mkdir()
    (folder / "mxnet" / "__init__.py").write_text(FAKE_MXNET)
    return folder


def import_mxnet(
    site: Path, *before: Path, libraries: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Import mxnet in a new process.

    Its search path starts with the folders ``before`` and ``site``.  LD_LIBRARY_PATH contains
    ``site``, which has the driver, and then ``libraries``.
    """
    program = f"import site; site.addsitedir({str(site)!r}); import mxnet"
    path = ":".join(map(str, (*before, site)))  # before the packages of this environment
    search = ":".join(map(str, filter(None, (site, libraries))))
    return subprocess.run(
        [sys.executable, "-c", program],
        env={"PYTHONPATH": path, "PATH": os.environ["PATH"], "LD_LIBRARY_PATH": search},
        capture_output=True,
        text=True,
    )


def compile_libraries(site: Path, cuda_libraries: object) -> None:
    """Compile a driver and the libraries of the wheels, each with its soname."""
    source = site / "empty.c"
    source.write_text("int of_the_wheel;\n")
    paths = [(site / "nvidia" / w / "lib" / name) for w, name in cuda_libraries.LIBRARIES]
    for path in (site / "libcuda.so.1", *paths):
        path.parent.mkdir(parents=True, exist_ok=True)
        named = f"-Wl,-soname,{path.name}"
        command = ["g++", "-x", "c", "-shared", "-fPIC", named, "-o", path, source]
        subprocess.run(command, check=True)


def test_libraries_are_found_by_name_when_mxnet_is_imported(site, cuda_libraries):
    compile_libraries(site, cuda_libraries)
    done = import_mxnet(site)
    assert (done.returncode, done.stdout, done.stderr) == (0, "libraries are there\n", "")


def test_another_mxnet_earlier_in_the_path_loads_no_libraries(site, cuda_libraries, tmp_path):
    compile_libraries(site, cuda_libraries)
    other = tmp_path / "other" / "mxnet"
    other.mkdir(parents=True)
    (other / "__init__.py").write_text(FAKE_MXNET)
    done = import_mxnet(site, other.parent)
    assert (done.returncode, done.stdout, done.stderr) == (0, "no libraries\n", "")


# Libraries that cuDNN and NVRTC load by name on first use.
PARTS = [
    *(
        f"libcudnn_{part}_{use}.so.8"
        for part in ("ops", "cnn", "adv")
        for use in ("infer", "train")
    ),
    "libnvrtc-builtins.so.11.8",
]
# Prints which of two libraries of the same name the linker loads.
ASK_PARTS = f"""
import ctypes
for name in {PARTS}:
    part = ctypes.CDLL(name)
    print(name, "wheel" if hasattr(part, "of_the_wheel") else "host")
"""


def test_libraries_of_the_wheels_precede_ld_library_path(site, cuda_libraries, tmp_path):
    compile_libraries(site, cuda_libraries)
    (site / "mxnet" / "__init__.py").write_text(ASK_PARTS)
    host, source = tmp_path / "host", tmp_path / "host.c"
    host.mkdir()
    source.write_text("int of_the_host;\n")
    for name in PARTS:
        command = [
            "g++",
            "-x",
            "c",
            "-shared",
            "-fPIC",
            f"-Wl,-soname,{name}",
            "-o",
            host / name,
            source,
        ]
        subprocess.run(command, check=True)
    done = import_mxnet(site, libraries=host)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [f"{name} wheel" for name in PARTS]


@pytest.mark.skipif(
    not (GPU_VENV / ".stamp-horovod").is_file(), reason="there is no .venv-gpu; make gpu makes it"
)
def test_the_gpu_environment_trains_a_step():
    done = subprocess.run(
        [GPU_VENV / "bin" / "python", "-m", "launch.environment.gpu_check"],
        cwd=ROOT,
        env={k: v for k, v in os.environ.items() if k != "LD_LIBRARY_PATH"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    message = done.stdout.splitlines()[-1]
    assert message.startswith("mxnet 1.9.1: CUDA, CUDNN, NCCL on; num_gpus ")
    assert "trained a step on cpu(0)" in message
