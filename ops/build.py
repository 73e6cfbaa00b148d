# SPDX-License-Identifier: Apache-2.0
"""Compile the operators to a shared library.  Command: python -m ops

The set-up of the project compiles the operators.  After a change of the sources, the first use of
the operators compiles them again.

The library is in ``sys.prefix``/lib/face_ops.  Its name is a checksum of the sources, the compiler
options and the MXNet version, so a change of any of these causes a new build.  The library contains
code for three CPU instruction levels (AVX-512, AVX2 and baseline x86-64), and chooses a level at
run time (ops/native/dispatch.cc).  If MXNet supports CUDA and nvcc is available, the library also
contains the GPU operators.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from ops.native.gpu import nvcc

NATIVE = Path(__file__).parent / "native"
LEVELS = {
    "avx512": [
        "-mavx512f",
        "-mavx512vl",
        "-mavx512dq",
        "-mavx512bw",
        "-mavx2",
        "-mfma",
        "-mbmi2",
        "-mprefer-vector-width=512",
    ],
    "avx2": ["-mavx2", "-mfma", "-mbmi2"],
    "baseline": [],
}
# No option may let the compiler change the order of sums: the code of one instruction level must
# return the same results in every build.
OPTIONS = [
    "-fno-gnu-unique",
    "-std=c++17",
    "-O3",
    "-fPIC",
    "-fopenmp",
    "-fno-math-errno",
    "-fno-trapping-math",
]


class BuildError(RuntimeError):
    """Error for operators that cannot be compiled; the message gives the reason."""


def library() -> Path:
    """Return the path of the library for the current sources, whether or not the file exists.

    A file name that ends in "-gpu.so" means that the library contains the GPU operators.  Such a
    library is used even if nvcc is missing: a container without nvcc may contain a library that was
    compiled when its image was built.
    """
    digest = hashlib.sha256()
    for source in sorted(p for p in NATIVE.rglob("*.*") if "__pycache__" not in p.parts):
        digest.update(source.relative_to(NATIVE).as_posix().encode() + source.read_bytes())
    digest.update(repr((LEVELS, OPTIONS, _mxnet())).encode())
    name = Path(sys.prefix) / "lib" / "face_ops" / digest.hexdigest()[:16]
    with_gpu = name.with_name(f"{name.name}-gpu.so")
    if with_gpu.is_file():
        return with_gpu
    without = name.with_suffix(".so")
    # A process without MXNet calls only CPU functions.  So do not import MXNet to look for a GPU.
    if "mxnet" not in sys.modules and without.is_file():
        return without
    return with_gpu if _toolkit() else without


def compile_library() -> Path:
    """Compile the library, unless its file exists already; return its path.

    A new library replaces the libraries of earlier builds, which are removed.

    Raises
    ------
    BuildError
        If there is no C++ compiler, if a compiler fails, if MXNet is not installed, or if the
        library's folder is not writable.
    """
    path = library()
    if path.is_file():
        return path
    compiler = shutil.which(os.environ.get("CXX", "g++"))
    if compiler is None:
        raise BuildError(
            f"ops: cannot find the C++ compiler, got {os.environ.get('CXX', 'g++')!r} (environment "
            "variable CXX, by default g++); install g++ (apt-get install g++) and run python -m ops"
        )
    mxnet = _mxnet_folder()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path.parent / "lock", "w") as lock:
            # All ranks start at the same time.  One rank compiles, and the other ranks wait here.
            fcntl.flock(lock, fcntl.LOCK_EX)
            if path.is_file():
                return path
            with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
                _compile(compiler, mxnet, Path(scratch))
                os.replace(Path(scratch) / "ops.so", path)
    except OSError as error:
        raise BuildError(
            f"ops: the folder {path.parent} must be writable, got: {error.strerror}; change the "
            "folder's permissions or free disk space"
        ) from None
    for old in path.parent.glob("*.so"):
        if old != path:
            old.unlink()
    return path


def _compile(compiler: str, mxnet: Path, scratch: Path) -> None:
    include = [f"-I{mxnet / 'include'}", f"-I{mxnet / 'include' / 'mxnet'}"]
    jobs = {
        level: [*flags, f"-DLEVEL={level}", str(NATIVE / "level.cc")]
        for level, flags in LEVELS.items()
    }
    jobs |= {
        "dispatch": [str(NATIVE / "dispatch.cc")],
        "bus": [str(NATIVE / "bus.cc")],
        "decoder": [str(NATIVE / "jpeg" / "decoder.cc")],
        "feed": [*include, str(NATIVE / "feed.cc")],
        "lib_api": [*include, "-w", str(mxnet / "src" / "lib_api.cc")],
    }
    toolkit = _toolkit()
    if toolkit:
        include.append("-DFACE_GPU")
    for source in (NATIVE / "library.cc", *sorted(NATIVE.glob("*/*_op.cc"))):
        jobs[source.stem] = [*include, str(source)]

    def run(arguments: list[str]) -> None:
        done = subprocess.run(
            [compiler, *OPTIONS, f"-I{NATIVE}", *arguments], capture_output=True, text=True
        )
        if done.returncode:
            lines = done.stderr.strip().splitlines()
            first = next((line for line in lines if "error" in line), "no message")
            raise BuildError(
                f"ops: the operators do not compile, got: {first}; check that {compiler} supports "
                f"C++17 (the compilation of {arguments[-1]} failed)"
            )

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        objects = [scratch / f"{name}.o" for name in jobs]
        commands = [
            ["-c", *arguments[:-1], "-o", str(target), arguments[-1]]
            for target, arguments in zip(objects, jobs.values(), strict=True)
        ]
        list(pool.map(run, commands))
    # Horovod loads libmxnet with global symbols.  Without -Bsymbolic, the dynamic linker would bind
    # the library of operators to libmxnet's instances of C++ standard library templates, which have
    # another ABI.
    if toolkit is None:
        run(["-shared", "-Wl,-Bsymbolic", "-o", str(scratch / "ops.so"), *map(str, objects)])
        return
    try:
        objects += nvcc.compile_objects(toolkit, list(nvcc.SOURCES), scratch, os.cpu_count() or 1)
        nvcc.link(toolkit, objects, scratch / "ops.so")
    except nvcc.ToolkitError as error:
        raise BuildError(str(error)) from None


def _mxnet_folder() -> Path:
    spec = find_spec("mxnet")  # an import of MXNet would take more than a second
    if spec is None or spec.origin is None:
        raise BuildError("ops: MXNet must be installed, got none; run make setup")
    return Path(spec.origin).parent


def _mxnet() -> tuple[str, str]:
    for name in ("mxnet", "mxnet-cu112"):
        try:
            return name, version(name)
        except PackageNotFoundError:
            continue
    import mxnet as mx

    return "of the image", mx.__version__


@cache
def _toolkit() -> nvcc.Toolkit | None:
    """Return the nvcc to use; None if no nvcc works or MXNet does not support CUDA."""
    if not nvcc.executables():
        return None
    # Ask MXNet first: most processes need MXNet anyway, and a test of nvcc takes longer than its
    # import.
    import mxnet as mx

    if not mx.runtime.Features().is_enabled("CUDA"):
        return None
    try:
        return nvcc.find()
    except nvcc.ToolkitError:
        return None
