# SPDX-License-Identifier: Apache-2.0
"""Choose the device of the commands, and find the compiled check for truncated images."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from evaluation.pairs import CutOff


def choose_device(name: str, local_rank: int = 0, local_size: int = 1) -> Any:
    """Return the MXNet context for the device "auto", "cpu" or "gpu".

    Parameters
    ----------
    local_rank, local_size
        Index of this rank on its host, and number of ranks on this host.
    """
    import mxnet as mx

    from launch.environment import gpu

    gpus = mx.context.num_gpus() if name != "cpu" else 0
    if name == "gpu" and not gpus:
        raise ValueError("--device: MXNet finds no usable GPU, got gpu; use --device cpu")
    try:
        on_gpu, notice = gpu.choose_device(name, gpus, local_rank, local_size)
    except ValueError as error:
        # The message names the setting of a training run; these commands have an option.
        text = str(error).replace("run.device=", "--device ").replace("run.device", "--device")
        raise ValueError(text) from None
    if notice and not local_rank:
        print(f"evaluation: {notice}", file=sys.stderr)
    return mx.gpu(local_rank) if on_gpu else mx.cpu()


def find_cut_off_check() -> CutOff | None:
    """Return the compiled check for truncated JPEGs, or None if ops/native is not compiled."""
    import ops

    compiled = ops.compiled()
    return None if compiled is None else compiled.is_cut_off
