# SPDX-License-Identifier: Apache-2.0
"""Check the rules that involve several sections of a configuration, the ranks or the GPUs.

These rules are checked before any file is opened.  Rules within one section are in
launch/config/sections.py.  Checks that need the data are in assemble/inputs.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from heads import HEADS
from heads.metric import check_batches
from launch.config.cli import load_config, requested_text
from launch.config.configuration import Config, ConfigError
from nets import NETS

CPU_DECODERS = ("auto", "cpu", "native")
"""Values of ``data.decode`` that need no GPU."""
MIN_BATCH_SIZE = 2
"""Minimum number of images per rank and step.

Every net ends with a batch normalisation of the embedding, whose variance over one image is 0."""


def read_config(argv: Sequence[str]) -> Config | str:
    """Return the configuration that a command line describes, or a requested text such as the help.

    Raises
    ------
    ConfigError
        If the configuration is invalid.  The message lists every problem.
    """
    return requested_text(argv, NETS, HEADS) or load_config(argv, NETS, HEADS)


def check_run(config: Config, ranks: int, gpus: int) -> list[str]:
    """Return an error message for each rule that the configuration violates.

    Parameters
    ----------
    config
        Configuration of the run.
    ranks
        Total number of ranks.
    gpus
        Number of GPUs that the ranks of this host use; 0 if they use the CPU.
    """
    return list(_problems(config, ranks, gpus))


def require_none(problems: Sequence[str]) -> None:
    """Raise one ConfigError with all messages in ``problems``, unless the list is empty."""
    if len(problems) == 1:
        raise ConfigError(problems[0])
    if problems:
        lines = "\n".join(f"  {problem}" for problem in problems)
        raise ConfigError(f"configuration: {len(problems)} problems\n{lines}")


def _problems(config: Config, ranks: int, gpus: int) -> Iterator[str]:
    data, head, train = config.data, config.head, config.train
    if data.batch_size < MIN_BATCH_SIZE:
        yield (
            f"data.batch_size: must be at least {MIN_BATCH_SIZE} per rank, because the batch "
            "normalisation of an embedding has no variance over one image, got "
            f"{data.batch_size}; use data.batch_size={MIN_BATCH_SIZE} or more"
        )
    if data.decode not in CPU_DECODERS and not gpus:
        yield f"data.decode: {data.decode!r} requires a GPU, got none; use data.decode=auto"
    if config.optim.fused_centres and ranks > 1 and not head.options.get("sharded"):
        # Horovod: the fused update uses the gradients of this rank, not the mean over all ranks.
        yield (
            f"optim.fused_centres: requires one rank or head.sharded=true, got {ranks} ranks; set "
            "optim.fused_centres=false"
        )
    optim = config.optim
    if head.options.get("sample_rate", 1.0) < 1 and (optim.name != "sgd" or optim.clip_norm):
        yield (
            "head.sample_rate: a value below 1 requires optim.name=sgd and optim.clip_norm=0, got "
            f"{optim.name!r} and {optim.clip_norm}; change these two, or set head.sample_rate=1"
        )
    groups = data.images_per_person > 0 or data.loader == "synthetic"
    try:
        check_batches(head.name, head.options.get("mining", ""), groups, data.bag)
    except ValueError as error:
        yield str(error)
    if data.bag and (train.margin_start.amount or train.margin_warmup.amount):
        yield (
            "data.bag: mines triplets with the full margin, got train.margin_start or "
            "train.margin_warmup above 0; remove both keys"
        )
    if config.eval.patience and not (config.eval.best and config.eval.every_steps):
        yield (
            "eval.patience: requires eval.best and eval.every_steps above 0, got eval.best="
            f"{config.eval.best!r} and eval.every_steps={config.eval.every_steps}; set both, or "
            "eval.patience=0"
        )
    if not (data.records or data.num_classes):
        yield "data.num_classes: required for synthetic batches, got 0; set it to 1000, for example"
