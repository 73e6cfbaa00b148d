# SPDX-License-Identifier: Apache-2.0
"""Compile the operators:  python ops/build.py

The library lies in the environment's own folder (``sys.prefix``/lib/face_ops), named by a checksum
of its sources, the compiler's options and MXNet's version, so that it is built again when one of
them changes and belongs to the environment it was built for.  Every level of instructions is in it;
which one is used is decided where it runs (ops/native/dispatch.cc).
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

NATIVE = Path(__file__).parent / "native"
LEVELS = {
    "avx512": [
        *("-mavx512f", "-mavx512vl", "-mavx512dq", "-mavx512bw", "-mavx2", "-mfma"),
        "-mprefer-vector-width=512",
    ],
    "avx2": ["-mavx2", "-mfma"],
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
    """Return where the library of these sources lies, or would lie."""
    digest = hashlib.sha256()
    for source in sorted(NATIVE.iterdir()):
        digest.update(source.name.encode() + source.read_bytes())
    digest.update(repr((LEVELS, OPTIONS, _mxnet_version())).encode())
    return Path(sys.prefix) / "lib" / "face_ops" / f"{digest.hexdigest()[:16]}.so"


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
            "(apt-get install g++) and call python ops/build.py"
        )
    mxnet = Path(find_spec("mxnet").origin).parent  # type: ignore[union-attr,arg-type]
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
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
        "operators": [*include, str(NATIVE / "operators.cc")],
        "lib_api": [*include, "-w", str(mxnet / "src" / "lib_api.cc")],
    }

    def run(arguments: list[str]) -> None:
        done = subprocess.run([compiler, *OPTIONS, *arguments], capture_output=True, text=True)
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
    linking = ["-shared", "-Wl,-Bsymbolic"]
    run([*linking, "-o", str(scratch / "ops.so"), *map(str, objects)])


def _mxnet_version() -> str:
    for name in ("mxnet", "mxnet-cu112"):
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return "unknown"


if __name__ == "__main__":
    try:
        print(compile_library())
    except BuildError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
