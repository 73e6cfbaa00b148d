# SPDX-License-Identifier: Apache-2.0
"""Step 5: one rank: losses of the device beside the CPU's, and a checkpoint for both."""

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
from tools.gpu_day.training_runs import SMALL, Run, checkpoints, off_by, resumed_at, train
from training.checkpoint import Checkpoint, open_checkpoint

if TYPE_CHECKING:
    import mxnet as mx

    from tools.gpu_day.setting import Setting

LIMIT_S = 60
TOGETHER = 3
"""Runs that share a GPU, where nothing is timed: most of their time they start."""
REFUSED = 2  # exit code
SHOWN, COMPARED = 8, 3
"""Steps whose losses are shown, and of which they must be near.  In single precision a net that is
trained from scratch blows rounding up: plain and fused operators of one CPU are 2e-4 apart after 3
steps and 1e-2 after 7."""
ROUNDED, CLOSE, SAME = 0.05, 0.02, 1e-4
"""Relative difference at most: of a device that may round to TF32, of another device, and of the
same with fusion off, in its first 2 steps."""
GENTLE = ("optim.lr=0.001", "optim.warmup=0", "data.batch_size=32")
"""At the full rate rounding is blown up a hundred times as fast."""
PAIRS = 60  # of a verification set
NO_GPU = {"CUDA_VISIBLE_DEVICES": ""}


class Variant(NamedTuple):
    """A run whose losses are held against those of the CPU, or of another variant."""

    name: str
    overrides: tuple[str, ...]
    variables: Mapping[str, str] = {}
    against: str = "cpu"
    most: float = CLOSE
    steps: int = COMPARED


ON_GPUS = (
    Variant("cpu", ("run.device=cpu",)),
    Variant("gpu plain", ("run.device=gpu", "run.operators=plain"), most=ROUNDED),
    Variant("gpu native", ("run.device=gpu", "run.operators=native"), most=ROUNDED),
    Variant(
        "gpu plain, no TF32",
        ("run.device=gpu", "run.operators=plain"),
        {"NVIDIA_TF32_OVERRIDE": "0"},
    ),
    Variant(
        "gpu plain, no fusion",
        ("run.device=gpu", "run.operators=plain"),
        {"MXNET_USE_FUSION": "0"},
        against="gpu plain",
        most=SAME,
        steps=2,
    ),
)
REHEARSED = (
    Variant("cpu", ("run.device=cpu",)),
    Variant("cpu plain", ("run.device=cpu", "run.operators=plain")),
)


def measure(setting: Setting, parts: Parts) -> None:
    """Train variants, resume a checkpoint on the other device, time one GPU."""
    steps = 50 if setting.gpus else SHOWN
    compare_losses(setting, parts, ON_GPUS if setting.gpus else REHEARSED, steps)
    last: Checkpoint | None = None
    with parts.part("resumed"):
        run, said = change_devices(setting, end=300 if setting.gpus else 40)
        parts.measured("resumed", said)
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
    """Train each variant and compare the losses of its first steps."""
    losses: dict[str, dict[int, float]] = {}
    with ThreadPoolExecutor(TOGETHER if setting.gpus else 1) as pool:
        jobs = [
            pool.submit(
                partial(train, limit_s=LIMIT_S, variables=variant.variables),
                setting,
                f"losses{number}",
                *SMALL,
                *variant.overrides,
                "data.decode=cpu",  # the same pixels for all
                f"train.max_steps={steps}",
                *GENTLE,
            )
            for number, variant in enumerate(variants)
        ]
    for variant, job in zip(variants, jobs, strict=True):
        what = f"losses, {variant.name}"
        with parts.part(what):
            run = job.result()
            if run.ended.code == REFUSED:
                raise Skipped(run.ended.last_line())
            run.require_finished()
            losses[variant.name] = found = run.losses
            shown = [*range(1, SHOWN + 1), *([steps] if steps > SHOWN else [])]
            value: dict[str, Any] = {"losses": [round(found[step], 4) for step in shown]}
            if variant.against == variant.name:
                parts.measured(what, value)
                continue
            if variant.against not in losses:
                raise RuntimeError(f"there are no losses of {variant.against} to compare with")
            apart = off_by(found, losses[variant.against], variant.steps)
            value |= {"off by": f"{apart:.1e}"}
            most = f"{apart:.1e} from those of {variant.against}, at most {variant.most:g} is right"
            parts.require(what, apart <= variant.most, value, f"losses are off by {most}")


def change_devices(setting: Setting, end: int) -> tuple[Run, dict[str, str]]:
    """Begin a run on the device, resume it on the CPU and again on the device; return the last.

    Each but the last is killed once it has written a checkpoint of its own.

    Raises
    ------
    RuntimeError
        If a run does not resume where the one before has left off, or does not finish.
    """
    overrides = (*SMALL, "train.checkpoint_every=4", f"train.max_steps={end}", "data.decode=cpu")
    said: dict[str, str] = {}
    folder, seen = setting.scratch / "runs" / "changing-001", 0
    for place, variables in enumerate(({}, NO_GPU, {})):
        where = "cpu" if variables else setting.device
        last = place == 2
        run = train(
            setting,
            "changing",
            *overrides,
            limit_s=LIMIT_S,
            variables=variables,
            while_running=None if last else _kill_after(folder, len_before=seen),
        )
        began = resumed_at(run.ended)
        if place and not 0 < began <= seen:
            raise RuntimeError(
                f"the run on {where} did not resume, got step {began}; {run.ended.last_line()}"
            )
        seen = int(checkpoints(folder)[-1].name.rpartition("-")[2]) if checkpoints(folder) else 0
        if not last and not seen:
            raise RuntimeError(f"the run on {where} left no checkpoint; {run.ended.last_line()}")
        said[f"{place + 1}. {where}"] = f"from step {began} to {end if last else seen}"
    run.require_finished()
    return run, said


def _kill_after(folder: Path, len_before: int) -> Callable[[subprocess.Popen], None]:
    """Return what kills a run once it has a checkpoint beyond a step."""

    def look(process: subprocess.Popen) -> None:
        found = [int(path.name.rpartition("-")[2]) for path in checkpoints(folder)]
        if found and max(found) > len_before:
            process.kill()

    return look


def compare_checkpoint(setting: Setting, parts: Parts, checkpoint: Checkpoint) -> None:
    """Load a checkpoint on both devices: the same weights, and embeddings that are near."""
    reference, device = setting.contexts()
    nets = []
    for ctx in (reference, device):
        net = build_net(image_size=checkpoint.image_size, **checkpoint.meta["net"])
        net.initialize(ctx=ctx)
        checkpoint.load_net_parameters(net, ctx)
        nets.append(net)
    true, found = (_weights(net) for net in nets)
    same = all(np.array_equal(true[name], found[name]) for name in true)
    parts.require("checkpoint", same, f"{len(true)} arrays, the same bits", "weights differ")
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
    parts.require("verification", near, value, f"embeddings of the devices differ: {value}")


def _weights(net: mx.gluon.Block) -> dict[str, np.ndarray]:
    found = net._collect_params_with_prefix()
    return {name: p.list_data()[0].asnumpy() for name, p in found.items()}
