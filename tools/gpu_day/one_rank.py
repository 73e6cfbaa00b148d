# SPDX-License-Identifier: Apache-2.0
"""Compare training on one GPU with training on the CPU (step 5 of `tools.gpu_day`)."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from evaluation.embedding import embed
from evaluation.pairs import find_sets, read_pairs
from evaluation.verification import verify
from nets import build_net
from tools.gpu_day.results import Parts, Skipped
from tools.gpu_day.training_runs import (
    SMALL,
    Run,
    checkpoints,
    relative_difference,
    resume_step,
    train,
)
from training.checkpoint import Checkpoint, open_checkpoint

if TYPE_CHECKING:
    import mxnet as mx

    from tools.gpu_day.setting import Setting

LIMIT_S = 60
MAX_CONCURRENT_RUNS = 3
"""Number of training runs that share a GPU if speed does not matter.

Most of the time of such a short run is start-up.
"""
REFUSED_CODE = 2
REPORTED_STEPS, COMPARED_STEPS = 8, 3
"""Number of first training steps whose losses are reported, and of those whose losses are compared.

A net that trains from scratch in single precision amplifies rounding errors.  On one CPU, the
losses with plain and with fused operators differ by 2e-4 after 3 steps and by 1e-2 after 7 steps.
So only the losses of the first steps are compared.
"""
TF32_TOLERANCE, DEVICE_TOLERANCE, FUSION_TOLERANCE = 0.05, 0.02, 1e-4
"""Tolerated relative differences of losses.

In this order: between GPU with TF32 and CPU, between GPU without TF32 and CPU, and between operator
fusion on and off.
"""
LOW_LR = ("optim.lr=0.001", "optim.warmup=0", "data.batch_size=32")
"""Overrides with a low learning rate, which limits the amplification of rounding errors.

With the learning rate of demo.yaml, the amplification is a hundred times faster.
"""
PAIRS = 60
NO_GPU = {"CUDA_VISIBLE_DEVICES": ""}


class Variant(NamedTuple):
    """Settings of a training run whose losses are compared with those of another run."""

    name: str
    overrides: tuple[str, ...]
    variables: Mapping[str, str] = {}
    reference: str = "cpu"
    """Name of the variant to compare with."""
    tolerance: float = DEVICE_TOLERANCE
    steps: int = COMPARED_STEPS


ON_GPUS = (
    Variant("cpu", ("run.device=cpu",)),
    Variant("gpu plain", ("run.device=gpu", "run.operators=plain"), tolerance=TF32_TOLERANCE),
    Variant("gpu native", ("run.device=gpu", "run.operators=native"), tolerance=TF32_TOLERANCE),
    Variant(
        "gpu plain, no TF32",
        ("run.device=gpu", "run.operators=plain"),
        {"NVIDIA_TF32_OVERRIDE": "0"},
    ),
    Variant(
        "gpu plain, no fusion",
        ("run.device=gpu", "run.operators=plain"),
        {"MXNET_USE_FUSION": "0"},
        reference="gpu plain",
        tolerance=FUSION_TOLERANCE,
        steps=2,
    ),
)
REHEARSED = (
    Variant("cpu", ("run.device=cpu",)),
    Variant("cpu plain", ("run.device=cpu", "run.operators=plain")),
)


def measure(setting: Setting, parts: Parts) -> None:
    """Compare the losses of all variants, resume a run on another device, and time training."""
    steps = 50 if setting.gpus else REPORTED_STEPS
    compare_losses(setting, parts, ON_GPUS if setting.gpus else REHEARSED, steps)
    last: Checkpoint | None = None
    with parts.part("resumed"):
        run, segments = change_devices(setting, end=300 if setting.gpus else 40)
        parts.measured("resumed", segments)
        last = open_checkpoint(run.folder)
    with parts.part("checkpoint"):
        if last is None:
            raise RuntimeError("there is no checkpoint to compare")
        compare_checkpoint(setting, parts, last)
    with parts.part("images/s"):
        if not setting.gpus:
            raise Skipped("no GPU")
        fast = train(
            setting,
            "speed",
            "train.max_steps=100",
            "eval.sets=[]",
            "run.device=gpu",
            cfg="mbf_arcface.yaml",
            limit_s=LIMIT_S,
        )
        fast.require_finished()
        parts.measured("images/s", {"mbf_arcface.yaml": fast.speed()})


def compare_losses(
    setting: Setting, parts: Parts, variants: tuple[Variant, ...], steps: int
) -> None:
    """Train with each variant, and compare its losses with those of its reference variant."""
    losses: dict[str, dict[int, float]] = {}
    with ThreadPoolExecutor(MAX_CONCURRENT_RUNS if setting.gpus else 1) as pool:
        jobs = [
            pool.submit(
                partial(train, limit_s=LIMIT_S, variables=variant.variables),
                setting,
                f"losses{number}",
                *SMALL,
                *variant.overrides,
                "data.decode=cpu",  # All variants must train on equal pixels.
                f"train.max_steps={steps}",
                *LOW_LR,
            )
            for number, variant in enumerate(variants)
        ]
    for variant, job in zip(variants, jobs, strict=True):
        what = f"losses, {variant.name}"
        with parts.part(what):
            run = job.result()
            if run.ended.code == REFUSED_CODE:
                raise Skipped(run.ended.last_line())
            run.require_finished()
            losses[variant.name] = found = run.losses
            reported = [*range(1, REPORTED_STEPS + 1), *([steps] if steps > REPORTED_STEPS else [])]
            value: dict[str, Any] = {"losses": [round(found[step], 4) for step in reported]}
            if variant.reference == variant.name:
                parts.measured(what, value)
                continue
            if variant.reference not in losses:
                raise RuntimeError(f"the reference run {variant.reference!r} has no losses")
            error = relative_difference(found, losses[variant.reference], variant.steps)
            value |= {"relative difference": f"{error:.1e}"}
            wrong = (
                f"the relative difference from the losses of the run {variant.reference!r} is "
                f"{error:.1e}; at most {variant.tolerance:g} is allowed"
            )
            parts.require(what, error <= variant.tolerance, value, wrong)


def change_devices(setting: Setting, end: int) -> tuple[Run, dict[str, str]]:
    """Train on the device under test, resume on the CPU, then resume on the device under test.

    The first two runs are killed after their first checkpoint.

    Outputs
    -------
    The last run, and a dictionary from the number and device of each run to a text that states the
    training step at which the run started and the training step of its last checkpoint.

    Raises
    ------
    RuntimeError
        If a run does not resume at a checkpoint of the previous run, or if the last run does not
        finish.
    """
    overrides = (*SMALL, "train.checkpoint_every=4", f"train.max_steps={end}", "data.decode=cpu")
    segments: dict[str, str] = {}
    folder, last_checkpoint = setting.scratch / "runs" / "changing-001", 0
    for number, variables in enumerate(({}, NO_GPU, {})):
        where = "cpu" if variables else setting.device
        last = number == 2
        run = train(
            setting,
            "changing",
            *overrides,
            limit_s=LIMIT_S,
            variables=variables,
            while_running=None if last else _kill_after(folder, last_checkpoint),
        )
        start = resume_step(run.ended)
        if number and not 0 < start <= last_checkpoint:
            raise RuntimeError(
                f"the run on {where} must resume at a step from 1 to {last_checkpoint}, got step "
                f"{start}; last line: {run.ended.last_line()}"
            )
        last_checkpoint = max(_checkpoint_steps(folder), default=0)
        if not last and not last_checkpoint:
            raise RuntimeError(
                f"the run on {where} wrote no checkpoint; last line: {run.ended.last_line()}"
            )
        reached = end if last else last_checkpoint
        segments[f"{number + 1}. {where}"] = f"from step {start} to {reached}"
    run.require_finished()
    return run, segments


def _checkpoint_steps(folder: Path) -> list[int]:
    return [int(path.name.rpartition("-")[2]) for path in checkpoints(folder)]


def _kill_after(folder: Path, step: int) -> Callable[[subprocess.Popen], None]:
    """Return a callback that kills a run when the run has a checkpoint later than step `step`."""

    def kill(process: subprocess.Popen) -> None:
        if max(_checkpoint_steps(folder), default=0) > step:
            process.kill()

    return kill


def compare_checkpoint(setting: Setting, parts: Parts, checkpoint: Checkpoint) -> None:
    """Load a checkpoint on the CPU and on the GPU; require equal weights and similar embeddings."""
    reference, device = setting.contexts()
    nets = []
    for ctx in (reference, device):
        net = build_net(image_size=checkpoint.image_size, **checkpoint.meta["net"])
        net.initialize(ctx=ctx)
        checkpoint.load_net_parameters(net, ctx)
        nets.append(net)
    true, found = (_weights(net) for net in nets)
    same = all(np.array_equal(true[name], found[name]) for name in true)
    parts.require("checkpoint", same, f"{len(true)} identical arrays", "weights differ")
    path = next(iter(find_sets([str(setting.records)]).values()))
    pairs = read_pairs(path)
    images, issame = pairs.images[: 2 * PAIRS], pairs.issame[:PAIRS]
    embedded = [
        embed(
            net,
            images,
            checkpoint.image_size,
            mean=checkpoint.mean,
            std=checkpoint.std,
            batch_size=2 * PAIRS,
            ctx=ctx,
        )[0]
        for net, ctx in zip(nets, (reference, device), strict=True)
    ]
    units = [rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in embedded]
    cosine = float((units[0] * units[1]).sum(axis=1).min())
    accuracies = [verify(rows, issame)["accuracy"] for rows in embedded]
    value = {"pairs": PAIRS, "smallest cosine": f"{cosine:.6f}", "accuracies": accuracies}
    near = cosine >= 1 - 1e-4 and abs(accuracies[0] - accuracies[1]) <= 1 / PAIRS + 1e-9
    parts.require("verification", near, value, f"embeddings or accuracies differ: {value}")


def _weights(net: mx.gluon.Block) -> dict[str, np.ndarray]:
    found = net._collect_params_with_prefix()
    return {name: p.list_data()[0].asnumpy() for name, p in found.items()}
