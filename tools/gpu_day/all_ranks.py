# SPDX-License-Identifier: Apache-2.0
"""Step 7: a rank on every GPU of the host, at full size."""

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
MEMORY_AT = (20, 100, 280)
"""Steps; what grows from one to the next grows without end."""
PLAIN = ("eval.sets=[]", "train.log_every=10", "train.checkpoint_every=100000")
USAGE = 2  # exit code
SPARE_S = 5.0  # of the step's time, that is not planned
EXTRA_MIB = 256
"""That the memory may grow from the second of MEMORY_AT to the third."""


def measure(setting: Setting, parts: Parts, ranks: int = 0) -> None:
    """Refuse what cannot be, then train MobileFaceNet, IResNet-50, and with each decode mode.

    Parameters
    ----------
    ranks
        Number of ranks; 0 for one on each GPU.
    """
    end = time.monotonic() + setting.limit_s - SPARE_S
    ranks = ranks or setting.gpus
    device = f"run.device={setting.device}"
    with ThreadPoolExecutor(2) as pool:
        visible = ",".join(map(str, range(ranks - 1)))
        more = pool.submit(_refused, setting, ranks + 1, {})
        hidden = pool.submit(_refused, setting, ranks, {"CUDA_VISIBLE_DEVICES": visible})
        for what, job in ((f"{ranks + 1} ranks refused", more), ("a hidden GPU refused", hidden)):
            with parts.part(what):
                ended = job.result()
                said = ended.last_line()
                one = sum("run.device" in line for line in ended.text.splitlines()) == 1
                right = ended.code == USAGE and one
                parts.require(what, right, said, f"code {ended.code} without one sentence, {said}")
    with parts.part(f"{MBF}, {ranks} ranks"):
        watch = GpuWatch(setting.scratch / "runs" / "mbf-001", MEMORY_AT)
        done = train(
            setting,
            "mbf",
            *PLAIN,
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
            *PLAIN,
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
                raise Skipped("no time remains; --patience 2 gives the steps twice as long")
            done = train(
                setting,
                f"mode-{mode}",
                *PLAIN,
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


def _refused(setting: Setting, ranks: int, variables: dict[str, str]) -> Ended:
    """Start more ranks than there are GPUs, with run.device=auto; return how they ended."""
    places = [f"data.records={setting.records}", f"run.dir={setting.scratch / f'refused-{ranks}'}"]
    command = python("-m", "launch.local", "-np", str(ranks), "--cfg", MBF, *places, *PLAIN)
    return run([*command, "train.max_steps=1"], limit_s=LIMIT_S, variables=variables)


def _report_watch(parts: Parts, watch: GpuWatch, ranks: int) -> None:
    """Write memory and contexts, if nvidia-smi reports them."""
    memory, contexts = watch.memory, watch.contexts
    if not memory:
        parts.add("memory", "skipped", "nvidia-smi reported nothing while the ranks trained")
    else:
        said = {f"step {step}": f"{mib} MiB" for step, mib in memory.items()}
        values = list(memory.values())
        grown = values[-1] - values[-2] if len(values) == len(MEMORY_AT) else 0
        parts.require("memory", grown <= EXTRA_MIB, said, f"it grows: {said}")
    if not contexts:  # in a container it sees no processes
        parts.add("contexts", "skipped", "nvidia-smi shows no processes here")
    else:
        # A companion of a rank never touches a GPU: one process for each.
        right = len(contexts) == ranks and set(contexts.values()) == {1}
        said = f"one process on each of {ranks} GPUs"
        parts.require("contexts", right, said, f"processes by GPU: {contexts}")
