# SPDX-License-Identifier: Apache-2.0
"""Which nvcc compiles the operators for GPUs, for which of them, and with what options.

Any from CUDA 11.0 on does: its runtime is linked in, and cuBLAS is looked for where the program
runs (blas.cu), so that nothing is loaded beside what MXNet has loaded.
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
    """There is no nvcc that compiles the operators; the message says why."""


class Toolkit(NamedTuple):
    """An nvcc, its release, and a C++ compiler that it takes."""

    nvcc: str
    release: tuple[int, int]
    compiler: str


def architectures(release: tuple[int, int]) -> list[str]:
    """Return the options that choose GPUs: machine code for each family, and PTX for newer ones.

    Code for 8.0 also runs on 8.6 and 8.9, and so on: on the same major number, upwards.
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


def find() -> Toolkit:
    """Return the first nvcc that works with a C++ compiler of this machine.

    Looked for in CUDA_HOME, on the PATH and in /usr/local/cuda*; the compiler is CXX, else one of
    ``COMPILERS``.

    Raises
    ------
    ToolkitError
        If there is none.
    """
    home = os.environ.get("CUDA_HOME")
    places = [str(Path(home) / "bin" / "nvcc")] if home else []
    places += [shutil.which("nvcc") or ""]
    places += [str(path) for path in sorted(Path("/usr/local").glob("cuda*/bin/nvcc"))]
    found = "none"
    for place in dict.fromkeys(places):
        if not os.access(place, os.X_OK):
            continue
        release = _release(place)
        found = f"{place} of CUDA {release[0]}.{release[1]}" if release else place
        if release is None or release < (11, 0):
            continue
        compilers = dict.fromkeys([os.environ.get("CXX") or "g++", *COMPILERS])
        for compiler in filter(None, map(shutil.which, compilers)):
            if _takes(place, compiler):
                return Toolkit(place, release, compiler)
        found += ", which takes none of the C++ compilers here"
    raise ToolkitError(
        f"ops: the operators for GPUs need nvcc of CUDA 11.0 or newer, found {found}; install a "
        "CUDA toolkit, or name one: CUDA_HOME=FOLDER"
    )


def compile_objects(toolkit: Toolkit, sources: list[Path], folder: Path, jobs: int) -> list[Path]:
    """Compile sources to position-independent objects in a folder, several at a time.

    Raises
    ------
    ToolkitError
        If one does not compile.
    """

    def run(source: Path) -> Path:
        target = folder / f"{source.name}.o"
        _run([*command(toolkit), "-c", str(source), "-o", str(target)], source.name)
        return target

    with ThreadPoolExecutor(jobs) as pool:
        return list(pool.map(run, sources))


def command(toolkit: Toolkit) -> list[str]:
    """Return nvcc with all options but what to compile."""
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
    """Link objects, of whatever compiler, to a shared library that holds CUDA's runtime.

    Raises
    ------
    ToolkitError
        If they cannot be linked.
    """
    flags = ["-shared", "-Xlinker", "-Bsymbolic", "-Xcompiler", "-fopenmp"]
    _run([*command(toolkit), *flags, "-o", str(target), *map(str, objects), "-ldl"], target.name)


def _run(arguments: list[str], what: str) -> None:
    done = subprocess.run(arguments, capture_output=True, text=True)
    if done.returncode:
        lines = (done.stderr + done.stdout).strip().splitlines()
        first = next((line for line in lines if "error" in line), "no message")
        raise ToolkitError(f"ops: nvcc failed, got: {first}; {arguments[0]} for {what}")


def _release(nvcc: str) -> tuple[int, int] | None:
    try:
        said = subprocess.run([nvcc, "--version"], capture_output=True, text=True).stdout
    except OSError:
        return None
    release = re.search(r"release (\d+)\.(\d+)", said)
    return (int(release[1]), int(release[2])) if release else None


def _takes(nvcc: str, compiler: str) -> bool:
    with tempfile.TemporaryDirectory() as scratch:
        source = Path(scratch) / "try.cu"
        source.write_text("#include <functional>\n")  # what fails if the compiler is too new
        arguments = [nvcc, "-ccbin", compiler, "-std=c++17", "-c", str(source), "-o"]
        done = subprocess.run([*arguments, str(source.with_suffix(".o"))], capture_output=True)
    return done.returncode == 0
