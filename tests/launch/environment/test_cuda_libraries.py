# SPDX-License-Identifier: Apache-2.0
"""The CUDA libraries of the wheels are loaded before mxnet, from whatever folder they lie in."""

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
    """Return the module without the hook that importing it sets."""
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    monkeypatch.setenv(QUIET, "")  # so that the end of the test sets it back
    monkeypatch.delenv(QUIET)
    from launch.environment import cuda_libraries

    return cuda_libraries


def lay_out(site: Path, libraries: list[tuple[str, str]]) -> list[str]:
    """Make empty files in the places of the wheels' libraries; return them in that order."""
    paths = [site / "nvidia" / wheel / "lib" / name for wheel, name in libraries]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return [str(path) for path in paths]


def test_the_driver_first_then_each_library_after_what_it_needs(cuda_libraries, tmp_path):
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


def test_nothing_where_the_wheels_are_not(cuda_libraries, tmp_path):
    def load(name: str) -> None:
        raise AssertionError(f"{name} was loaded")

    assert cuda_libraries.preload(tmp_path, load) == 0
    assert QUIET not in os.environ  # the system's own cuDNN: whether it fits is to be said


@pytest.mark.parametrize(("before", "after"), [(None, "0"), ("1", "1")])
def test_mxnet_is_quiet_about_the_cudnn_that_is_meant(
    before, after, cuda_libraries, tmp_path, monkeypatch
):
    if before is not None:
        monkeypatch.setenv(QUIET, before)
    lay_out(tmp_path, list(cuda_libraries.LIBRARIES))
    cuda_libraries.preload(tmp_path, lambda name: None)
    assert os.environ[QUIET] == after


def test_a_wheel_that_is_missing_is_named(cuda_libraries, tmp_path):
    lay_out(tmp_path, [pair for pair in cuda_libraries.LIBRARIES if pair[0] != "cudnn"])
    with pytest.raises(ImportError) as caught:
        cuda_libraries.preload(tmp_path, lambda name: None)
    missing = tmp_path / "nvidia/cudnn/lib/libcudnn.so.8"
    assert str(caught.value) == (
        f"mxnet: some of the CUDA 11 libraries are missing, got no {missing}; "
        "remove .venv-gpu and call `make gpu` again"
    )


def test_a_missing_driver_is_one_sentence(cuda_libraries, tmp_path):
    lay_out(tmp_path, list(cuda_libraries.LIBRARIES))

    def load(name: str) -> None:
        raise OSError(f"{name}: cannot open shared object file: No such file or directory")

    with pytest.raises(ImportError) as caught:
        cuda_libraries.preload(tmp_path, load)
    assert str(caught.value) == (
        "mxnet: this is MXNet for NVIDIA GPUs and their driver cannot be loaded, got libcuda.so.1: "
        "cannot open shared object file: No such file or directory; install the NVIDIA driver "
        "(450.80.02 or newer), or use the CPU environment, .venv"
    )
    assert caught.value.__suppress_context__


# A site-packages with both hooks, whose mxnet says what the hooks have done before it.
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
    """Import mxnet in a new process whose site-packages is ``site``, ``before`` coming first.

    ``libraries`` is a folder in LD_LIBRARY_PATH, behind that of the driver.
    """
    program = f"import site; site.addsitedir({str(site)!r}); import mxnet"
    path = ":".join(map(str, (*before, site)))  # before those of this environment
    search = ":".join(map(str, filter(None, (site, libraries))))
    return subprocess.run(
        [sys.executable, "-c", program],
        env={"PYTHONPATH": path, "PATH": os.environ["PATH"], "LD_LIBRARY_PATH": search},
        capture_output=True,
        text=True,
    )


def compile_libraries(site: Path, cuda_libraries: object) -> None:
    """Make a driver and the wheels' libraries, with the names inside that the linker goes by."""
    source = site / "empty.c"
    source.write_text("int of_the_wheel;\n")
    paths = [(site / "nvidia" / w / "lib" / name) for w, name in cuda_libraries.LIBRARIES]
    for path in (site / "libcuda.so.1", *paths):
        path.parent.mkdir(parents=True, exist_ok=True)
        named = f"-Wl,-soname,{path.name}"
        command = ["g++", "-x", "c", "-shared", "-fPIC", named, "-o", path, source]
        subprocess.run(command, check=True)


def test_libraries_are_found_by_name_once_mxnet_is_imported(site, cuda_libraries):
    compile_libraries(site, cuda_libraries)
    done = import_mxnet(site)
    assert (done.returncode, done.stdout, done.stderr) == (0, "libraries are there\n", "")


def test_another_mxnet_before_it_gets_no_libraries(site, cuda_libraries, tmp_path):
    compile_libraries(site, cuda_libraries)
    other = tmp_path / "other" / "mxnet"
    other.mkdir(parents=True)
    (other / "__init__.py").write_text(FAKE_MXNET)
    done = import_mxnet(site, other.parent)
    assert (done.returncode, done.stdout, done.stderr) == (0, "no libraries\n", "")


# What cuDNN and NVRTC load by name when they are first needed.
PARTS = [
    *(
        f"libcudnn_{part}_{use}.so.8"
        for part in ("ops", "cnn", "adv")
        for use in ("infer", "train")
    ),
    "libnvrtc-builtins.so.11.8",
]
# Says, as libcudnn.so.8 would find out, which of two parts of one name is taken.
ASK_PARTS = f"""
import ctypes
for name in {PARTS}:
    part = ctypes.CDLL(name)
    print(name, "wheel" if hasattr(part, "of_the_wheel") else "host")
"""


def test_parts_of_another_release_in_ld_library_path_are_not_taken(site, cuda_libraries, tmp_path):
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
def test_the_gpu_environment_computes():
    done = subprocess.run(
        [GPU_VENV / "bin" / "python", "-m", "launch.environment.gpu_check"],
        cwd=ROOT,
        env={k: v for k, v in os.environ.items() if k != "LD_LIBRARY_PATH"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    said = done.stdout.splitlines()[-1]
    assert said.startswith("mxnet 1.9.1: CUDA, CUDNN, NCCL on; num_gpus ")
    assert "trained a step on cpu(0)" in said
