# SPDX-License-Identifier: Apache-2.0
"""Refuse a run whose class centres and batches need more memory than the device has available."""

from __future__ import annotations

from typing import TYPE_CHECKING

import mxnet as mx

from heads import HEADS
from heads.head import ClassHead
from heads.head_memory import HeadMemory, head_memory
from launch.config.configuration import ConfigError
from launch.environment.memory import available_memory
from training.layer_groups import HEAD

if TYPE_CHECKING:
    from launch.config.configuration import Config
    from launch.ranks.comm import Comm

GIB = 1 << 30
FLOAT_BYTES = 4
CHANNELS = 3


def check_memory(
    config: Config,
    comm: Comm,
    ctx: mx.Context,
    *,
    where: str,
    num_classes: int,
    image_size: tuple[int, int],
) -> str:
    """Compare the memory that class centres and batches need with the memory of the device.

    The ranks of a host share its memory if they train on the CPU.  Call this function on all ranks
    before one of them allocates the head.

    Parameters
    ----------
    where
        Subject of the error message: the record set, or the key ``data.num_classes``.
    num_classes
        Number of classes of the training images.
    image_size
        (height, width) of the images in pixels.

    Returns
    -------
    Line for the log; it is empty for a head that is not sharded.

    Raises
    ------
    ConfigError
        If class centres and batches need more memory than the device has available.
    """
    on_gpu = ctx.device_type == "gpu"
    sharing = 1 if on_gpu else comm.local_size
    available = _free_gpu_memory(ctx) if on_gpu else available_memory()
    need = class_centre_memory(config, num_classes, comm.size)
    device = "GPU" if on_gpu else "host"
    if available is not None and need.total * sharing > available:
        raise ConfigError(
            f"{where}: the class centres of {num_classes:,} classes need "
            f"{_amount(need, sharing)}, got {_size(available)} available on this {device}; "
            f"{_advice(config, comm.size)}"
        )
    batch_size = config.data.batch_size
    batches = batch_size * CHANNELS * image_size[0] * image_size[1] * FLOAT_BYTES
    if available is not None and (need.total + batches) * sharing > available:
        raise ConfigError(
            f"{where}: one batch of data.batch_size={batch_size} images of "
            f"{image_size[0]}x{image_size[1]} pixels needs {_size(batches)} per rank beside the "
            f"class centres, got {_size(available)} available on this {device} for {sharing} "
            f"rank{'s' if sharing > 1 else ''}; lower data.batch_size"
        )
    if not config.head.options.get("sharded"):
        return ""
    known = f", of {_size(available)} available" if available is not None else ""
    return f"class centres of {num_classes:,} classes: {_amount(need, sharing)}{known}"


def class_centre_memory(config: Config, num_classes: int, ranks: int) -> HeadMemory:
    """Return the memory of the class centres of one rank; 0 for a head without class centres."""
    if not issubclass(HEADS[config.head.name], ClassHead):
        return HeadMemory(0, 0)
    options = config.head.options
    need = head_memory(
        num_classes,
        config.net.options.get("embedding_size", 1),  # An imported graph may lack it.
        ranks if options.get("sharded") else 1,
        sample_rate=options.get("sample_rate", 1.0),
        sub_centers=options.get("sub_centers", 1),
        has_momentum=config.optim.momentum > 0,
        fused=config.optim.fused_centres,
    )
    is_frozen = config.optim.lr_factors.get(HEAD) == 0
    return HeadMemory(need.centres, 0, sample=need.sample) if is_frozen else need


def _amount(need: HeadMemory, sharing: int) -> str:
    parts = ", ".join(f"{name} {_size(size)}" for name, size in need.parts().items())
    shared = f", {_size(need.total * sharing)} for the {sharing} ranks of this host"
    return f"{_size(need.total)} per rank ({parts}){shared if sharing > 1 else ''}"


def _size(size: int) -> str:
    """Return a number of bytes as text, in the largest unit that gives at least 0.01."""
    for unit, name in ((GIB, "GiB"), (1 << 20, "MiB")):
        if size >= unit / 100:
            return f"{size / unit:.2f} {name}"
    return f"{size / 1024:.2f} KiB"


def _advice(config: Config, ranks: int) -> str:
    """Return advice on what to change; the setting with the largest effect comes first."""
    options, advice = config.head.options, []
    if "sharded" in options and not options["sharded"]:
        advice.append("set head.sharded=true" + ("" if ranks > 1 else " and use several ranks"))
    elif options.get("sample_rate", 1.0) == 1 and "sample_rate" in options:
        advice.append("set head.sample_rate=0.1")
    advice.append("use more hosts or GPUs" if options.get("sharded") else "use more memory")
    return f"{', '.join(advice)}, or reduce net.embedding_size"


def _free_gpu_memory(ctx: mx.Context) -> int | None:
    """Return the free memory of a GPU in bytes; None if the GPU does not report its memory."""
    try:
        return int(mx.context.gpu_memory_info(ctx.device_id)[0])
    except mx.base.MXNetError:
        return None
