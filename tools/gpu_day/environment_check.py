# SPDX-License-Identifier: Apache-2.0
"""Check MXNet and its CUDA libraries by training for one step (step 1 of `tools.gpu_day`).

If there is a Python environment .venv-gpu, its Python runs ``launch.environment.gpu_check``.  This
program loads a stub driver if the NVIDIA driver is missing.  Without .venv-gpu, the same net trains
on the CPU, in the Python environment for the CPU.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from tools.gpu_day.commands import Ended, run
from tools.gpu_day.prerequisites import COMPLETE
from tools.gpu_day.results import Parts, Skipped
from tools.gpu_day.setting import ROOT, Setting

LIMIT_S = 40
FUSION = "MXNET_USE_FUSION"
FOREIGN_LIBRARY = "libcudnn_ops_infer.so.8"
LOADED_MESSAGE = "gpu-day: the foreign cuDNN was loaded"
CPU_STEP = """
import mxnet as mx
from launch.environment.gpu_check import train_one_step
before, after = train_one_step(mx, mx.cpu())
assert after < before, f"the loss went from {before} to {after}"
print(f"mxnet {mx.__version__}: loss {before:.4f} before a training step, {after:.4f} after it")
"""


def measure(setting: Setting, parts: Parts) -> None:
    """Train a small net with operator fusion on and off, and with a foreign cuDNN library.

    The foreign library is a stand-in in a folder of LD_LIBRARY_PATH, and must not be loaded.
    """
    command, kind = check_command(setting.gpus, ROOT)
    print(f"environment: {kind}", flush=True)
    for value in ("1", "0"):
        what = f"training step, {FUSION}={value}"
        with parts.part(what):
            report(parts, what, kind, run(command, limit_s=LIMIT_S, variables={FUSION: value}))
    what = "a foreign cuDNN in LD_LIBRARY_PATH is not loaded"
    with parts.part(what):
        if "gpu_check" not in kind:
            raise Skipped("there is no .venv-gpu, and the environment for the CPU has no cuDNN")
        folder = compile_foreign(setting.scratch / "foreign")
        path = f"{folder}:{os.environ.get('LD_LIBRARY_PATH', '')}".rstrip(":")
        ended = run(command, limit_s=LIMIT_S, variables={"LD_LIBRARY_PATH": path})
        parts.require(
            what, LOADED_MESSAGE not in ended.text, "right", "the foreign cuDNN was loaded"
        )
        report(parts, "training step beside it", kind, ended)


def check_command(gpus: int, root: Path) -> tuple[list[str], str]:
    """Return the command that trains for one step, and a text that names its environment."""
    gpu = root / ".venv-gpu"
    if gpus or sys.prefix.endswith("-gpu"):
        return [sys.executable, "-m", "launch.environment.gpu_check"], "gpu_check"
    if (gpu / COMPLETE).is_file():
        python = str(gpu / "bin" / "python")
        return [python, "-m", "launch.environment.gpu_check"], "gpu_check with the stand-in"
    return [sys.executable, "-c", CPU_STEP], "MXNet for the CPU (no .venv-gpu here)"


def report(parts: Parts, what: str, kind: str, ended: Ended) -> None:
    """Record whether the program of the check ended with exit code 0."""
    value = f"{kind}: {ended.last_line()}"
    parts.require(what, ended.code == 0, value, f"code {ended.code}, {value}")


def compile_foreign(folder: Path) -> Path:
    """Compile a library that has the name of a cuDNN library and prints a message when loaded."""
    if not shutil.which("g++"):
        raise Skipped("g++ is missing, so the test cannot compile its stand-in for a cuDNN library")
    folder.mkdir(parents=True)
    source = folder / "foreign.c"
    source.write_text(
        "#include <stdio.h>\n"
        "__attribute__((constructor)) static void say(void) "
        f'{{ fputs("{LOADED_MESSAGE}\\n", stderr); }}\n'
    )
    done = run(
        [
            "g++",
            "-x",
            "c",
            "-shared",
            "-fPIC",
            source,
            f"-Wl,-soname,{FOREIGN_LIBRARY}",
            "-o",
            folder / FOREIGN_LIBRARY,
        ],
        limit_s=LIMIT_S,
    )
    if done.code:
        raise RuntimeError(f"the stand-in for cuDNN does not compile: {done.last_line()}")
    return folder
