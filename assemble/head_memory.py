# SPDX-License-Identifier: Apache-2.0
"""State the memory of the class centres before it is allocated; refuse what cannot fit."""

from __future__ import annotations

from typing import TYPE_CHECKING

import mxnet as mx

from heads import HEADS
from heads.head import ClassHead
from heads.head_memory import HeadMemory, head_memory
from launch.config.configuration import ConfigError
from launch.environment.memory import available_memory

if TYPE_CHECKING:
    from assemble.inputs import Inputs
    from launch.config.configuration import Config
    from launch.ranks.comm import Comm

GIB = 1 << 30


def check_head_memory(config: Config, inputs: Inputs, comm: Comm) -> str:
    """Compare the memory of the class centres with that of the device; return a line for the log.

    The ranks of a host share its memory if they train on the CPU.  The line is empty for a head
    that is not distributed.  Call this function on all ranks before one of them allocates the head.

    Raises
    ------
    ConfigError
        If the class centres do not fit.
    """
    if not issubclass(HEADS[config.head.name], ClassHead):
        return ""
    options = config.head.options
    is_sharded = bool(options.get("sharded"))
    need = head_memory(
        inputs.num_classes,
        config.net.options["embedding_size"],
        comm.size if is_sharded else 1,
        sample_rate=options.get("sample_rate", 1.0),
        sub_centers=options.get("sub_centers", 1),
        has_momentum=config.optim.momentum > 0,
        fused=config.optim.fused_centres,
    )
    on_gpu = inputs.ctx.device_type == "gpu"
    sharing = 1 if on_gpu else comm.local_size
    available = _free_gpu_memory(inputs.ctx) if on_gpu else available_memory()
    if available is not None and need.total * sharing > available:
        raise ConfigError(
            f"head: the centres of {inputs.num_classes:,} classes need {_amount(need, sharing)}, "
            f"got {_size(available)} available on this {'GPU' if on_gpu else 'host'}; "
            f"{_advice(config, comm.size)}"
        )
    if not is_sharded:
        return ""
    known = f", of {_size(available)} available" if available is not None else ""
    return f"class centres of {inputs.num_classes:,} classes: {_amount(need, sharing)}{known}"


def _amount(need: HeadMemory, sharing: int) -> str:
    parts = ", ".join(f"{name} {_size(size)}" for name, size in need.parts().items())
    shared = f", {_size(need.total * sharing)} for the {sharing} ranks of this host"
    return f"{_size(need.total)} per rank ({parts}){shared if sharing > 1 else ''}"


def _size(size: int) -> str:
    """Return a number of bytes as text, in the largest unit of which there is a hundredth."""
    for unit, name in ((GIB, "GiB"), (1 << 20, "MiB")):
        if size >= unit / 100:
            return f"{size / unit:.2f} {name}"
    return f"{size / 1024:.2f} KiB"


def _advice(config: Config, ranks: int) -> str:
    """Return what the user can change, the setting with the largest effect first."""
    options, advice = config.head.options, []
    if "sharded" in options and not options["sharded"]:
        advice.append("set head.sharded=true" + ("" if ranks > 1 else " and use several ranks"))
    elif options.get("sample_rate", 1.0) == 1 and "sample_rate" in options:
        advice.append("set head.sample_rate=0.1")
    advice.append("use more hosts or GPUs" if options.get("sharded") else "use more memory")
    return f"{', '.join(advice)}, or reduce net.embedding_size"


def _free_gpu_memory(ctx: mx.Context) -> int:
    free, _ = mx.context.gpu_memory_info(ctx.device_id)
    return int(free)
