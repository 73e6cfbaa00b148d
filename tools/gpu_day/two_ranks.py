# SPDX-License-Identifier: Apache-2.0
"""Step 6: two ranks: they equal one, and end together whatever happens."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipeline.decode.autotune import sample_rows
from pipeline.records.open import open_records
from pipeline.records.reader import RecordReader
from pipeline.records.writer import write_record_set
from tools.gpu_day.commands import python, run
from tools.gpu_day.damaged_images import damage
from tools.gpu_day.keeper import descendants
from tools.gpu_day.training_runs import SMALL, Run, metrics, train

if TYPE_CHECKING:
    from tools.gpu_day.results import Parts
    from tools.gpu_day.setting import Setting

TOGETHER = 4
"""Pairs of ranks that run at once: most of their time they start."""
LIMIT_S = 60
STEPS, CLIP_NORM = 20, 2.0  # the norm of the gradients is larger there, so it clips
SAME_WEIGHTS = 1e-4
ENDS = 6
IMAGES = 32  # of the set with a damaged one
DAMAGED_KEY = 11


def measure(setting: Setting, parts: Parts) -> None:
    """Start all pairs of ranks, a few at a time, and look at what became of each."""
    ways = ("gpu", "gpu host") if setting.gpus else ("straight", "host")
    with ThreadPoolExecutor(TOGETHER) as pool:
        one = {c: pool.submit(weights, setting, 1, 8, ways[0], c) for c in (0.0, CLIP_NORM)}
        jobs: dict[str, Future] = {
            f"equivalence, {ways[0]}": pool.submit(weights, setting, 2, 4, ways[0], 0.0),
            f"equivalence, {ways[0]}, clipped": pool.submit(
                weights, setting, 2, 4, ways[0], CLIP_NORM
            ),
            f"equivalence, {ways[1]}, clipped": pool.submit(
                weights, setting, 2, 4, ways[1], CLIP_NORM
            ),
        }
        broken = pool.submit(damaged, setting)
        stopped = pool.submit(ended_by, setting, "stopped", _terminate)
        killed = pool.submit(ended_by, setting, "killed", _kill_rank_1)
        ends = [pool.submit(short, setting, f"end{number}") for number in range(ENDS)]
        for what, job in jobs.items():
            with parts.part(what):
                true = one[CLIP_NORM if "clipped" in what else 0.0].result()
                apart = largest_difference(true, job.result())
                wrong = f"weights are off by {apart:.1e} from those of one rank"
                parts.require(what, apart <= SAME_WEIGHTS, f"weights within {apart:.1e}", wrong)
        with parts.part("fault of the data"):
            _ended_as(parts, "fault of the data", broken.result(), 2, f"key {DAMAGED_KEY}")
        with parts.part("SIGTERM"):
            _ended_as(parts, "SIGTERM", stopped.result(), 143)
        with parts.part("SIGKILL of rank 1"):
            _ended_as(parts, "SIGKILL of rank 1", killed.result(), 137)
        with parts.part("ends"):
            codes = [job.result().ended.code for job in ends]
            parts.require("ends", not any(codes), f"{ENDS} of {ENDS} with code 0", f"codes {codes}")


def weights(
    setting: Setting, ranks: int, batch_size: int, way: str, clip: float
) -> dict[str, np.ndarray]:
    """Return the weights that a tiny net has after some steps.

    Raises
    ------
    RuntimeError
        If the ranks fail.
    """
    out = setting.scratch / f"{ranks}-{way.replace(' ', '-')}-{clip:g}.npz"
    script = "tests/parallel/equivalence.py"
    program = python(script, setting.records, str(batch_size), str(STEPS), str(clip), out, way)
    launcher = [str(Path(program[0]).with_name("horovodrun")), "--gloo", "-np", str(ranks)]
    ended = run(program if ranks == 1 else [*launcher, *program], limit_s=LIMIT_S)
    if ended.code:
        raise RuntimeError(f"{ranks} ranks, {way}: code {ended.code}, {ended.last_line()}")
    with np.load(out) as file:
        return dict(file)


def largest_difference(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> float:
    """Return how far two sets of weights are apart."""
    return max(float(np.abs(a[name] - b[name]).max()) for name in a)


def damaged(setting: Setting) -> Run:
    """Train on a set with a damaged image; return the run."""
    folder = setting.scratch / "damaged"
    records = open_records(setting.records, setting.scratch)
    jpegs = RecordReader(records).gather(sample_rows(records, IMAGES))
    images = [(place // 2, jpeg.tobytes()) for place, jpeg in enumerate(jpegs)]
    place = DAMAGED_KEY - 1  # keys count from 1
    images[place] = (images[place][0], damage(images[place][1], "cut at 50%"))
    write_record_set(folder, images, IMAGES // 2)
    return _pair(setting, "damaged", f"data.records={folder}", "train.max_steps=20")


def ended_by(setting: Setting, name: str, end: Callable[[subprocess.Popen], bool]) -> Run:
    """Train until the first steps are logged, then end the run in some way; return it."""
    folder, done = setting.scratch / "runs" / f"{name}-001", False

    def look(process: subprocess.Popen) -> None:
        nonlocal done
        if not done and metrics(folder):
            done = end(process)

    return _pair(setting, name, "train.max_steps=100000", while_running=look)


def short(setting: Setting, name: str) -> Run:
    """Train for three steps; return the run."""
    return _pair(setting, name, "train.max_steps=3")


def _pair(setting: Setting, name: str, *overrides: str, while_running=None) -> Run:
    small = (*SMALL, "data.batch_size=4", f"run.device={setting.device}", "data.decode=cpu")
    return train(
        setting,
        name,
        *small,
        *overrides,
        ranks=2,
        limit_s=LIMIT_S,
        while_running=while_running,
    )


def _terminate(process: subprocess.Popen) -> bool:
    process.send_signal(signal.SIGTERM)
    return True


def _kill_rank_1(process: subprocess.Popen) -> bool:
    """Kill rank 1 below a launcher; return whether it was there."""
    below = set(descendants(process.pid))
    for pid in below:
        with contextlib.suppress(OSError):  # it has ended meanwhile
            variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
            program = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            is_rank = b"HOROVOD_RANK=1" in variables and b"python" in program[0]
            if is_rank and any(word.endswith(b"run_train.py") for word in program[1:2]):
                os.kill(pid, signal.SIGKILL)
                return True
    return False


def _ended_as(parts: Parts, what: str, run: Run, code: int, said: str = "") -> None:
    ended = run.ended
    sentence = next((line for line in ended.text.splitlines() if said and said in line), "")
    right = ended.code == code and (bool(sentence) or not said)
    value = f"code {ended.code} after {ended.seconds:.0f} s"
    value += f": {sentence.strip()}" if sentence else ""
    wrong = (
        f"expected code {code}{f' and {said!r}' if said else ''}, got {value}, {ended.last_line()}"
    )
    parts.require(what, right, value, wrong)
