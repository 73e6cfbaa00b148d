# SPDX-License-Identifier: Apache-2.0
"""The configuration of a run, and rules between its sections, ranks and GPUs.

All are checked before anything is opened.  Rules within a section are that section's
(launch/config/sections.py); rules that need the data are in assemble/inputs.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from heads import HEADS
from heads.metric import check_batches
from launch.config import Config, ConfigError, information, load_config
from nets import NETS

CPU_DECODERS = ("auto", "cpu", "native")
"""Values of ``data.decode`` that need no GPU."""


def read_config(argv: Sequence[str]) -> Config | str:
    """Return the configuration that a command line asks for, or the answer to its question.

    Raises
    ------
    ConfigError
        With all problems at once.
    """
    return information(argv, NETS, HEADS) or load_config(argv, NETS, HEADS)


def check_run(config: Config, ranks: int, gpus: int) -> list[str]:
    """Return all problems of a configuration on so many ranks, a sentence each.

    Parameters
    ----------
    ranks
        Number of all ranks.
    gpus
        GPUs that the ranks of this host compute on; 0 if they compute on the CPU.
    """
    return list(_problems(config, ranks, gpus))


def require_none(problems: Sequence[str]) -> None:
    """Raise ConfigError with all problems, if there are any."""
    if len(problems) == 1:
        raise ConfigError(problems[0])
    if problems:
        lines = "\n".join(f"  {problem}" for problem in problems)
        raise ConfigError(f"configuration: {len(problems)} problems\n{lines}")


def _problems(config: Config, ranks: int, gpus: int) -> Iterator[str]:
    data, head, train = config.data, config.head, config.train
    if data.decode not in CPU_DECODERS and not gpus:
        yield f"data.decode: {data.decode!r} needs a GPU, got none; use data.decode=auto"
    if config.optim.fused_centres and ranks > 1:
        # Horovod: the step inside the operator would not pass through the average over the ranks.
        yield (
            f"optim.fused_centres: is for one rank, got {ranks} ranks with all centres on each; "
            "set it to false"
        )
    groups = data.images_per_person > 0 or data.loader == "synthetic"
    try:
        check_batches(head.name, head.options.get("mining", ""), groups, data.bag)
    except ValueError as error:
        yield str(error)
    if data.bag and (train.margin_start.amount or train.margin_warmup.amount):
        yield (
            "data.bag: chooses triplets by the whole margin, got one that rises during training; "
            "leave train.margin_start and train.margin_warmup out"
        )
    if not (data.records or data.num_classes):
        yield "data.num_classes: required for synthetic batches, got 0"
