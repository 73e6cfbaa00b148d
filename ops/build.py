# SPDX-License-Identifier: Apache-2.0
"""Compile the operators:  python -m ops    (set-up does it; after a change: when first used)

The library lies in the environment's own folder (``sys.prefix``/lib/face_ops), named by a checksum
of its sources, the compiler's options and MXNet's version, so that it is built again when one of
them changes and belongs to the environment it was built for.  Every level of instructions is in it;
which one is used is decided where it runs (ops/native/dispatch.cc).  Where MXNet is the one for
CUDA and there is an nvcc, the operators for GPUs are in it too.
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
from pathlib import Path

import mxnet as mx

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
# Nothing that lets sums be taken in another order: a level gives the same numbers every time.
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
    """The operators cannot be compiled; the message says why."""


def library() -> Path:
    """Return where the library of these sources lies, or would lie; "-gpu": with those for GPUs.

    One that has them is taken where there is no nvcc too: it was compiled for this environment,
    when an image was made say.
    """
    digest = hashlib.sha256()
    for source in sorted(p for p in NATIVE.rglob("*.*") if "__pycache__" not in p.parts):
        digest.update(source.relative_to(NATIVE).as_posix().encode() + source.read_bytes())
    digest.update(repr((LEVELS, OPTIONS, _mxnet())).encode())
    name = Path(sys.prefix) / "lib" / "face_ops" / digest.hexdigest()[:16]
    with_gpu = name.with_name(f"{name.name}-gpu.so")
    return with_gpu if with_gpu.is_file() or _toolkit() else name.with_suffix(".so")


def compile_library() -> Path:
    """Compile the library if it is not there; return its place.

    Raises
    ------
    BuildError
        If there is no C++ compiler or it fails.
    """
    place = library()
    if place.is_file():
        return place
    compiler = shutil.which(os.environ.get("CXX", "g++"))
    if compiler is None:
        raise BuildError(
            f"ops: no C++ compiler found, got {os.environ.get('CXX', 'g++')!r}; install it "
            "(apt-get install g++) and call python -m ops"
        )
    mxnet = Path(mx.__file__).parent
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with open(place.parent / "lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # several ranks start at once: one of them compiles
            if place.is_file():
                return place
            with tempfile.TemporaryDirectory(dir=place.parent) as scratch:
                _compile(compiler, mxnet, Path(scratch))
                os.replace(Path(scratch) / "ops.so", place)
    except OSError as error:
        raise BuildError(f"ops: {place.parent} cannot be written, got {error.strerror}") from None
    for old in place.parent.glob("*.so"):
        if old != place:
            old.unlink()
    return place


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
            raise BuildError(f"ops: the compiler failed, got: {first}; {compiler} {arguments[-1]}")

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        objects = [scratch / f"{name}.o" for name in jobs]
        commands = [
            ["-c", *arguments[:-1], "-o", str(target), arguments[-1]]
            for target, arguments in zip(objects, jobs.values(), strict=True)
        ]
        list(pool.map(run, commands))
    # -Bsymbolic: Horovod loads libmxnet for the whole process to see, whose templates of the
    # standard library are of another ABI; the ones in here must be taken.
    if toolkit is None:
        run(["-shared", "-Wl,-Bsymbolic", "-o", str(scratch / "ops.so"), *map(str, objects)])
        return
    try:
        objects += nvcc.compile_objects(toolkit, list(nvcc.SOURCES), scratch, os.cpu_count() or 1)
        nvcc.link(toolkit, objects, scratch / "ops.so")
    except nvcc.ToolkitError as error:
        raise BuildError(str(error)) from None


def _mxnet() -> tuple[str, str]:
    for name in ("mxnet", "mxnet-cu112"):
        try:
            return name, version(name)
        except PackageNotFoundError:
            continue
    return "of the image", mx.__version__


@cache
def _toolkit() -> nvcc.Toolkit | None:
    """Return the nvcc for an MXNet with CUDA; None where one of the two is missing."""
    if not mx.runtime.Features().is_enabled("CUDA"):
        return None
    try:
        return nvcc.find()
    except nvcc.ToolkitError:
        return None
