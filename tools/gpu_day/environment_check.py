# SPDX-License-Identifier: Apache-2.0
"""Step 1: MXNet, its CUDA libraries and a training step, also beside a cuDNN of somebody else.

With .venv-gpu that is ``launch.environment.gpu_check``, which takes a stand-in where there is no
driver.  With the environment for the CPU alone the same training step is done on the CPU.
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
FOREIGN = "libcudnn_ops_infer.so.8"
MARK = "gpu-day: the foreign cuDNN was loaded"
CPU_STEP = """
import mxnet as mx
from launch.environment.gpu_check import train_one_step
before, after = train_one_step(mx, mx.cpu())
assert after < before, f"the loss went from {before} to {after}"
said = f"a training step took the loss from {before:.4f} to {after:.4f}"
print(f"mxnet {mx.__version__}: {said}")
"""


def measure(setting: Setting, parts: Parts) -> None:
    """Train a small net with fusion on and off, and with a foreign cuDNN in the way."""
    command, kind = check_command(setting.gpus, ROOT)
    print(f"environment: {kind}", flush=True)
    for value in ("1", "0"):
        what = f"training step, {FUSION}={value}"
        with parts.part(what):
            report(parts, what, kind, run(command, limit_s=LIMIT_S, variables={FUSION: value}))
    what = "a foreign cuDNN in LD_LIBRARY_PATH is not loaded"
    with parts.part(what):
        if "gpu_check" not in kind:
            raise Skipped("this environment has no cuDNN: there is no .venv-gpu")
        folder = compile_foreign(setting.scratch / "foreign")
        path = f"{folder}:{os.environ.get('LD_LIBRARY_PATH', '')}".rstrip(":")
        ended = run(command, limit_s=LIMIT_S, variables={"LD_LIBRARY_PATH": path})
        parts.require(what, MARK not in ended.text, "right", "it was loaded; see the log")
        report(parts, "training step beside it", kind, ended)


def check_command(gpus: int, root: Path) -> tuple[list[str], str]:
    """Return the command of a check, and what it checks."""
    gpu = root / ".venv-gpu"
    if gpus or sys.prefix.endswith("-gpu"):
        return [sys.executable, "-m", "launch.environment.gpu_check"], "gpu_check"
    if (gpu / COMPLETE).is_file():
        python = str(gpu / "bin" / "python")
        return [python, "-m", "launch.environment.gpu_check"], "gpu_check with the stand-in"
    return [sys.executable, "-c", CPU_STEP], "MXNet for the CPU (no .venv-gpu here)"


def report(parts: Parts, what: str, kind: str, ended: Ended) -> None:
    """Write how a check ended."""
    said = f"{kind}: {ended.last_line()}"
    parts.require(what, ended.code == 0, said, f"code {ended.code}, {said}")


def compile_foreign(folder: Path) -> Path:
    """Return a folder with a library named as one of cuDNN's parts that says when it is loaded."""
    if not shutil.which("g++"):
        raise Skipped("no g++ to compile a foreign cuDNN with")
    folder.mkdir(parents=True)
    source = folder / "foreign.c"
    source.write_text(
        "#include <stdio.h>\n"
        f'__attribute__((constructor)) static void say(void) {{ fputs("{MARK}\\n", stderr); }}\n'
    )
    done = run(
        [
            "g++",
            "-x",
            "c",
            "-shared",
            "-fPIC",
            source,
            f"-Wl,-soname,{FOREIGN}",
            "-o",
            folder / FOREIGN,
        ],
        limit_s=LIMIT_S,
    )
    if done.code:
        raise RuntimeError(f"the foreign cuDNN does not compile: {done.last_line()}")
    return folder
