# SPDX-License-Identifier: Apache-2.0
"""Describe data, decoder and recipe of a run in the first lines of its log."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from assemble.inputs import Inputs
    from evaluation.pairs import Pairs
    from launch.config.configuration import Choice, Config

DECODERS = {
    "native": "native (same pixels as DALI; data.decode=cpu for DALI)",
    "cpu": "DALI on the CPU",
}


def data_summary(config: Config, inputs: Inputs, ranks: int, decode: str) -> dict[str, Any]:
    """Describe the training data: a dict from name to value.

    Parameters
    ----------
    config, inputs
        Configuration of the run and its inputs.
    ranks
        Number of ranks.
    decode
        Name of the JPEG decoder, as a value of ``data.decode``.
    """
    data = config.data
    return {
        "data": ", ".join(data.records) or "synthetic",
        "images": len(inputs.records) if inputs.records else 0,
        "people": inputs.num_classes,
        "batch": f"{data.batch_size} x {ranks} = {data.batch_size * ranks}",
        "order": data.reader if data.loader != "synthetic" else "one fixed batch",
        "decoder": describe_decoder(data.loader, decode),
    }


def describe_decoder(loader: str, decode: str) -> str:
    """Return which library decodes the JPEGs, and on which device."""
    if loader == "synthetic":
        return "none (data.loader=synthetic)"
    if loader == "cpu":
        return "OpenCV in a Gluon DataLoader (data.loader=cpu)"
    return DECODERS.get(decode, f"DALI on the GPU ({decode})")


def recipe_summary(config: Config, sets: Mapping[str, Pairs]) -> list[str]:
    """Describe net, head, optimizer, schedule and verification of a run: three lines for the log.

    ``sets`` holds the verification sets by name.
    """
    optim = config.optim
    optimizer = f"{optim.name} lr {optim.lr:g} momentum {optim.momentum:g}"
    schedule: str = optim.schedule
    if schedule == "step":
        schedule += f" {', '.join(map(str, optim.milestones)) or 'without milestones'}"
    warmup = f" warmup {optim.warmup}" if optim.warmup.amount else ""
    return [
        f"net {_describe(config.net)}  head {_describe(config.head)}",
        f"optimizer {optimizer} weight_decay {optim.weight_decay:g}  schedule {schedule}{warmup}",
        describe_verification(config, sets),
    ]


def describe_verification(config: Config, sets: Mapping[str, Pairs]) -> str:
    """Return the line of the log about the sets and the schedule of the verification."""
    if not sets:
        return "verification none (eval.sets is empty)"
    evaluation = config.eval
    parts = [f"{name} ({len(pairs)} pairs)" for name, pairs in sets.items()]
    every = f"every {evaluation.every_steps} steps and " if evaluation.every_steps else ""
    line = f"verification {every}at the end  sets {', '.join(parts)}"
    if evaluation.best:
        line += f"  best checkpoint by {evaluation.best}"
    if evaluation.patience:
        line += f"  ends after {evaluation.patience} verifications without improvement"
    return line


def _describe(choice: Choice) -> str:
    """Return the name of a net or head, and those of its options that are not empty, 0 or False."""
    shown = [
        f"{key} {value:g}" if isinstance(value, float) else f"{key} {value}"
        for key, value in choice.options.items()
        if value not in (None, "", False, [], 0)
    ]
    return " ".join([choice.name, *shown])
