# SPDX-License-Identifier: Apache-2.0
"""Measure the training of full-size nets with one rank per GPU (step 7 of `tools.gpu_day`)."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from pipeline.decode.dali import PATHS
from tools.gpu_day.commands import Ended, python, run
from tools.gpu_day.gpu_watch import GpuWatch
from tools.gpu_day.results import Parts, Skipped
from tools.gpu_day.training_runs import train

if TYPE_CHECKING:
    from tools.gpu_day.setting import Setting

LIMIT_S = 75
MBF, R50 = "mbf_arcface.yaml", "r50_arcface.yaml"
MBF_STEPS, R50_STEPS, MODE_STEPS = 300, 100, 60
MEMORY_STEPS = (20, 100, 280)
"""Training steps at which the memory of the GPUs is recorded.

Growth by more than MAX_GROWTH_MIB between the last two of these steps means a memory leak.
"""
COMMON = ("eval.sets=[]", "train.log_every=10", "train.checkpoint_every=100000")
USAGE_CODE = 2
RESERVE_S = 5.0
"""Reserve in seconds before the time limit of this measurement step.

A decode mode is skipped if its training run would probably end within the reserve or later.
"""
MAX_GROWTH_MIB = 256
"""Tolerated growth of the GPU memory in MiB between the last two of MEMORY_STEPS."""


def measure(setting: Setting, parts: Parts, ranks: int = 0) -> None:
    """Check that more ranks than GPUs are refused, then time training runs with one rank per GPU.

    MobileFaceNet and IResNet-50 train with the default decode mode, then MobileFaceNet trains with
    each decode mode.

    Parameters
    ----------
    ranks
        Number of ranks; 0 means one rank per GPU.
    """
    end = time.monotonic() + setting.limit_s - RESERVE_S
    ranks = ranks or setting.gpus
    device = f"run.device={setting.device}"
    with ThreadPoolExecutor(2) as pool:
        visible = ",".join(map(str, range(ranks - 1)))
        more = pool.submit(_run_refused, setting, ranks + 1, {})
        hidden = pool.submit(_run_refused, setting, ranks, {"CUDA_VISIBLE_DEVICES": visible})
        for what, job in ((f"{ranks + 1} ranks refused", more), ("a hidden GPU refused", hidden)):
            with parts.part(what):
                ended = job.result()
                last = ended.last_line()
                sentences = sum("run.device" in line for line in ended.text.splitlines())
                right = ended.code == USAGE_CODE and sentences == 1
                wrong = (
                    f"a run with too many ranks must end with exit code {USAGE_CODE} and one "
                    f"line about run.device, got exit code {ended.code} and the last line {last}"
                )
                parts.require(what, right, last, wrong)
    with parts.part(f"{MBF}, {ranks} ranks"):
        watch = GpuWatch(setting.scratch / "runs" / "mbf-001", MEMORY_STEPS)
        done = train(
            setting,
            "mbf",
            *COMMON,
            device,
            f"train.max_steps={MBF_STEPS}",
            ranks=ranks,
            cfg=MBF,
            limit_s=LIMIT_S,
            while_running=watch,
        )
        done.require_finished()
        parts.measured(f"{MBF}, {ranks} ranks", done.speed())
        _report_watch(parts, watch, ranks)
    with parts.part(f"{R50}, {ranks} ranks"):
        done = train(
            setting,
            "r50",
            *COMMON,
            device,
            f"train.max_steps={R50_STEPS}",
            ranks=ranks,
            cfg=R50,
            limit_s=LIMIT_S,
        )
        done.require_finished()
        parts.measured(f"{R50}, {ranks} ranks", done.speed())
    longest = 0.0
    for mode in PATHS if setting.gpus else ("cpu", "native"):
        what = f"decode mode {mode}, {ranks} ranks"
        with parts.part(what):
            if time.monotonic() + longest > end:
                raise Skipped(
                    "no time remains for this training run; --patience 2 doubles the time limits"
                )
            done = train(
                setting,
                f"mode-{mode}",
                *COMMON,
                device,
                f"train.max_steps={MODE_STEPS}",
                f"data.decode={mode}",
                ranks=ranks,
                cfg=MBF,
                limit_s=LIMIT_S,
            )
            longest = max(longest, done.ended.seconds)
            done.require_finished()
            parts.measured(what, done.speed())


def _run_refused(setting: Setting, ranks: int, variables: dict[str, str]) -> Ended:
    """Start a training run with more ranks than visible GPUs, and return how the run ended."""
    paths = [f"data.records={setting.records}", f"run.dir={setting.scratch / f'refused-{ranks}'}"]
    command = python("-m", "launch.local", "-np", str(ranks), "--cfg", MBF, *paths, *COMMON)
    return run([*command, "train.max_steps=1"], limit_s=LIMIT_S, variables=variables)


def _report_watch(parts: Parts, watch: GpuWatch, ranks: int) -> None:
    """Record whether GPU memory grew, and whether each GPU had exactly one process."""
    memory, contexts = watch.memory, watch.contexts
    if not memory:
        parts.add("memory", "skipped", "nvidia-smi did not report the used memory")
    else:
        by_step = {f"step {step}": f"{mib} MiB" for step, mib in memory.items()}
        values = list(memory.values())
        growth = values[-1] - values[-2] if len(values) == len(MEMORY_STEPS) else 0
        wrong = f"the GPU memory grows by more than {MAX_GROWTH_MIB} MiB: {by_step}"
        parts.require("memory", growth <= MAX_GROWTH_MIB, by_step, wrong)
    if not contexts:  # In a container, for example, nvidia-smi shows no processes.
        parts.add("contexts", "skipped", "nvidia-smi shows no processes here")
    else:
        # Each rank has one CUDA context; its child processes, such as loader workers, have none.
        right = len(contexts) == ranks and set(contexts.values()) == {1}
        value = f"one process on each of {ranks} GPUs"
        wrong = f"expected {value}, got the numbers of processes {contexts} by GPU"
        parts.require("contexts", right, value, wrong)
