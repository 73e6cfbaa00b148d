# SPDX-License-Identifier: Apache-2.0
"""Find nvcc, and compile the GPU operators with it.

Any release from CUDA 11.0 on is suitable.  The compiled library contains the CUDA runtime and uses
the cuBLAS that MXNet has already loaded (blas.cu), so it loads no further CUDA library.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).parent
SOURCES = tuple(sorted(HERE.glob("*.cu")))
COMPILERS = ("g++", "g++-13", "g++-12", "g++-11", "g++-10", "g++-9")


class ToolkitError(RuntimeError):
    """The GPU operators cannot be compiled with nvcc; the message gives the reason."""


class Toolkit(NamedTuple):
    """Path of an nvcc, its CUDA release, and the path of a C++ compiler that nvcc supports."""

    nvcc: str
    release: tuple[int, int]
    compiler: str


def architectures(release: tuple[int, int]) -> list[str]:
    """Return nvcc's -gencode options: machine code for each GPU family, and PTX for newer GPUs.

    Machine code for a compute capability also runs on later minor versions of the same major
    version: code for 8.0 also runs on 8.6 and 8.9.
    """
    families = [50, 60, 70, 80] if release < (13, 0) else [75, 80]
    if release >= (11, 8):
        families.append(90)
    if release >= (12, 8):
        families += [100, 120]
    newest = families[-1]
    code = [f"arch=compute_{family},code=sm_{family}" for family in families]
    code.append(f"arch=compute_{newest},code=compute_{newest}")
    return [part for option in code for part in ("-gencode", option)]


def executables() -> list[str]:
    """Return the paths of the nvcc programs in CUDA_HOME, PATH and /usr/local/cuda*, in order."""
    home = os.environ.get("CUDA_HOME")
    places = [str(Path(home) / "bin" / "nvcc")] if home else []
    places += [shutil.which("nvcc") or ""]
    places += [str(path) for path in sorted(Path("/usr/local").glob("cuda*/bin/nvcc"))]
    return [place for place in dict.fromkeys(places) if os.access(place, os.X_OK)]


def find() -> Toolkit:
    """Return the first of ``executables()`` that works with a C++ compiler of this machine.

    The C++ compiler is the value of the environment variable CXX or one of ``COMPILERS``.  The
    search takes more than a second, because it compiles a file.

    Raises
    ------
    ToolkitError
        If no nvcc of CUDA 11.0 or newer works.
    """
    found = "none"
    for place in executables():
        release = _release(place)
        found = f"{place} of CUDA {release[0]}.{release[1]}" if release else place
        if release is None or release < (11, 0):
            continue
        compilers = dict.fromkeys([os.environ.get("CXX") or "g++", *COMPILERS])
        for compiler in filter(None, map(shutil.which, compilers)):
            if _supports(place, compiler):
                return Toolkit(place, release, compiler)
        found += " without a C++ compiler that it supports"
    raise ToolkitError(
        f"ops: the GPU operators need nvcc of CUDA 11.0 or newer, got {found}; install a CUDA "
        "toolkit and a C++ compiler that it supports, or set CUDA_HOME to the folder of an "
        "installed toolkit"
    )


def compile_objects(toolkit: Toolkit, sources: list[Path], folder: Path, jobs: int) -> list[Path]:
    """Compile sources to position-independent object files in ``folder``; return their paths.

    At most ``jobs`` compilations run at the same time.

    Raises
    ------
    ToolkitError
        If a source does not compile.
    """

    def run(source: Path) -> Path:
        target = folder / f"{source.name}.o"
        _run([*command(toolkit), "-c", str(source), "-o", str(target)], source.name)
        return target

    with ThreadPoolExecutor(jobs) as pool:
        return list(pool.map(run, sources))


def command(toolkit: Toolkit) -> list[str]:
    """Return the nvcc command line with all options, but without input and output files."""
    return [
        toolkit.nvcc,
        "-ccbin",
        toolkit.compiler,
        "-std=c++17",
        "-O3",
        "-cudart",
        "static",
        "-Xcompiler",
        "-fPIC,-fno-gnu-unique",
        *architectures(toolkit.release),
    ]


def link(toolkit: Toolkit, objects: list[Path], target: Path) -> None:
    """Link object files of nvcc and the C++ compiler to a shared library with the CUDA runtime.

    Raises
    ------
    ToolkitError
        If nvcc cannot link the object files.
    """
    flags = ["-shared", "-Xlinker", "-Bsymbolic", "-Xcompiler", "-fopenmp"]
    _run([*command(toolkit), *flags, "-o", str(target), *map(str, objects), "-ldl"], target.name)


def _run(arguments: list[str], what: str) -> None:
    done = subprocess.run(arguments, capture_output=True, text=True)
    if done.returncode:
        lines = (done.stderr + done.stdout).strip().splitlines()
        first = next((line for line in lines if "error" in line), "no message")
        raise ToolkitError(
            f"ops: nvcc cannot build {what}, got: {first}; install another CUDA release or another "
            "C++ compiler"
        )


def _release(nvcc: str) -> tuple[int, int] | None:
    try:
        output = subprocess.run([nvcc, "--version"], capture_output=True, text=True).stdout
    except OSError:
        return None
    release = re.search(r"release (\d+)\.(\d+)", output)
    return (int(release[1]), int(release[2])) if release else None


def _supports(nvcc: str, compiler: str) -> bool:
    with tempfile.TemporaryDirectory() as scratch:
        source = Path(scratch) / "try.cu"
        source.write_text("#include <functional>\n")  # nvcc fails if the C++ compiler is too new
        arguments = [nvcc, "-ccbin", compiler, "-std=c++17", "-c", str(source), "-o"]
        done = subprocess.run([*arguments, str(source.with_suffix(".o"))], capture_output=True)
    return done.returncode == 0
