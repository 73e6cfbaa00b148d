# SPDX-License-Identifier: Apache-2.0
"""Compare two ranks with one rank, and check how runs end (step 6 of `tools.gpu_day`)."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.decode.autotune import sample_rows
from pipeline.records.open import open_records
from pipeline.records.reader import RecordReader
from pipeline.records.writer import write_record_set
from tools.gpu_day.commands import python, run
from tools.gpu_day.damaged_images import damage
from tools.gpu_day.supervisor import descendants
from tools.gpu_day.training_runs import SMALL, Run, metrics, train

if TYPE_CHECKING:
    from tools.gpu_day.results import Parts
    from tools.gpu_day.setting import Setting

MAX_CONCURRENT_RUNS = 4
"""Number of training runs at the same time; most of the time of each run is start-up."""
LIMIT_S = 60
STEPS, CLIP_NORM = 20, 2.0  # The norm of the gradients exceeds 2.0, so clipping has an effect.
MAX_WEIGHT_DIFFERENCE = 1e-4
SHORT_RUNS = 6
IMAGES = 32
DAMAGED_KEY = 11


def measure(setting: Setting, parts: Parts) -> None:
    """Compare weights of one rank and of two ranks; check how runs end after faults and signals."""
    direct, through_host = ("gpu", "gpu host") if setting.gpus else ("straight", "host")

    def start(ranks: int, batch_size: int, transport: str, clip: float) -> Future:
        return pool.submit(train_weights, setting, ranks, batch_size, transport, clip)

    with ThreadPoolExecutor(MAX_CONCURRENT_RUNS) as pool:
        one = {clip: start(1, 8, direct, clip) for clip in (0.0, CLIP_NORM)}
        jobs: dict[str, Future] = {
            f"equivalence, {direct}": start(2, 4, direct, 0.0),
            f"equivalence, {direct}, clipped": start(2, 4, direct, CLIP_NORM),
            f"equivalence, {through_host}, clipped": start(2, 4, through_host, CLIP_NORM),
        }
        damaged = pool.submit(run_damaged, setting)
        stopped = pool.submit(run_until_ended, setting, "stopped", _terminate)
        killed = pool.submit(run_until_ended, setting, "killed", _kill_rank_1)
        ends = [pool.submit(run_short, setting, f"end{number}") for number in range(SHORT_RUNS)]
        for what, job in jobs.items():
            with parts.part(what):
                expected = one[CLIP_NORM if "clipped" in what else 0.0].result()
                error = largest_difference(expected, job.result())
                value = f"weights within {error:.1e}"
                wrong = f"the weights of two ranks differ from those of one rank by {error:.1e}"
                parts.require(what, error <= MAX_WEIGHT_DIFFERENCE, value, wrong)
        with parts.part("fault of the data"):
            _require_end(parts, "fault of the data", damaged.result(), 2, f"key {DAMAGED_KEY}")
        with parts.part("SIGTERM"):
            _require_end(parts, "SIGTERM", stopped.result(), 143)
        with parts.part("SIGKILL of rank 1"):
            _require_end(parts, "SIGKILL of rank 1", killed.result(), 137)
        with parts.part("ends"):
            codes = [job.result().ended.code for job in ends]
            parts.require(
                "ends",
                not any(codes),
                f"{len(codes)} of {len(codes)} with code 0",
                f"every training run must end with exit code 0, got exit codes {codes}",
            )


def train_weights(
    setting: Setting, ranks: int, batch_size: int, transport: str, clip: float
) -> dict[str, np.ndarray]:
    """Train a tiny net for STEPS training steps and return its weights by name.

    Parameters
    ----------
    ranks, batch_size
        Number of ranks, and batch size per rank.
    transport
        Route of the gradients between the ranks, as tests/parallel/equivalence.py names it.
    clip
        Norm to which the gradients are clipped; 0 disables clipping.

    Raises
    ------
    RuntimeError
        If the run fails.
    """
    out = setting.scratch / f"{ranks}-{transport.replace(' ', '-')}-{clip:g}.npz"
    script = "tests/parallel/equivalence.py"
    program = python(
        script, setting.records, str(batch_size), str(STEPS), str(clip), out, transport
    )
    launcher = [str(Path(program[0]).with_name("horovodrun")), "--gloo", "-np", str(ranks)]
    ended = run(program if ranks == 1 else [*launcher, *program], limit_s=LIMIT_S)
    if ended.code:
        raise RuntimeError(
            f"the training with {ranks} ranks and transport {transport!r} ended with exit code "
            f"{ended.code}; last line: {ended.last_line()}"
        )
    with np.load(out) as file:
        return dict(file)


def largest_difference(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> float:
    """Return the largest absolute difference between two sets of weights with equal names."""
    return max(float(np.abs(a[name] - b[name]).max()) for name in a)


def run_damaged(setting: Setting) -> Run:
    """Train on two ranks, on a record set with one damaged image."""
    folder = setting.scratch / "damaged"
    records = open_records(setting.records, setting.scratch)
    jpegs = RecordReader(records).gather(sample_rows(records, IMAGES))
    images = [(row // 2, jpeg.tobytes()) for row, jpeg in enumerate(jpegs)]
    label, damaged_jpeg = images[DAMAGED_KEY - 1]  # The keys of images count from 1.
    images[DAMAGED_KEY - 1] = (label, damage(damaged_jpeg, "cut at 50%"))
    write_record_set(folder, images, IMAGES // 2)
    return _pair(setting, "damaged", f"data.records={folder}", "train.max_steps=20")


def run_until_ended(setting: Setting, name: str, end: Callable[[subprocess.Popen], bool]) -> Run:
    """Train on two ranks; after the first logged step, call `end` until it returns True.

    The argument of `end` is the process of the launcher.
    """
    folder, done = setting.scratch / "runs" / f"{name}-001", False

    def end_once(process: subprocess.Popen) -> None:
        nonlocal done
        if not done and metrics(folder):
            done = end(process)

    return _pair(setting, name, "train.max_steps=100000", while_running=end_once)


def run_short(setting: Setting, name: str) -> Run:
    """Train on two ranks for three steps."""
    return _pair(setting, name, "train.max_steps=3")


def _pair(
    setting: Setting,
    name: str,
    *overrides: str,
    while_running: Callable[[subprocess.Popen], Any] | None = None,
) -> Run:
    """Train a small net on two ranks, and return the run after its end."""
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
    """Kill rank 1 among the descendants of a launcher; return whether rank 1 was found."""
    below = set(descendants(process.pid))
    for pid in below:
        # The files disappear when the process ends.
        with contextlib.suppress(OSError):
            variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
            program = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            is_rank = b"HOROVOD_RANK=1" in variables and b"python" in program[0]
            if is_rank and any(word.endswith(b"run_train.py") for word in program[1:2]):
                os.kill(pid, signal.SIGKILL)
                return True
    return False


def _require_end(parts: Parts, what: str, run: Run, code: int, expected: str = "") -> None:
    """Record whether a run ended with exit code `code` and printed the text `expected`."""
    ended = run.ended
    lines = ended.text.splitlines()
    sentence = next((line for line in lines if expected and expected in line), "")
    right = ended.code == code and (bool(sentence) or not expected)
    value = f"code {ended.code} after {ended.seconds:.0f} s"
    value += f": {sentence.strip()}" if sentence else ""
    wanted = f"code {code}" + (f" and {expected!r}" if expected else "")
    wrong = f"expected {wanted}, got {value}; last line: {ended.last_line()}"
    parts.require(what, right, value, wrong)
