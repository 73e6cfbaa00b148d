# SPDX-License-Identifier: Apache-2.0
"""Check before training that class centres and batches fit into the memory of the device."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path

import mxnet as mx

GIB = 1 << 30
_FLOAT_BYTES = 4
_LIMIT_FILE = Path("/sys/fs/cgroup/memory.max")
"""Memory limit of the container in bytes, or the word "max"."""


class MemoryNeeded(ValueError):
    """Error for a run that needs more memory than its device has."""


def memory_bytes(ctx: mx.Context, limit_file: Path = _LIMIT_FILE) -> int:
    """Return the size in bytes of the memory of a GPU, or of this host or container.

    The result for a GPU that does not tell its size is the largest number of bytes.
    """
    if ctx.device_type == "gpu":
        try:
            return int(mx.context.gpu_memory_info(ctx.device_id)[1])
        except mx.base.MXNetError:
            return sys.maxsize
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    with contextlib.suppress(OSError, ValueError):  # no limit, or another version of cgroups
        total = min(total, int(limit_file.read_text()))
    return total


def require_memory(
    *,
    where: str,
    memory: int,
    ranks: int,
    num_classes: int,
    embedding_size: int,
    copies: int,
    batch_size: int,
    image_size: tuple[int, int],
) -> None:
    """Raise MemoryNeeded if the ranks that share a memory certainly need more than there is.

    Parameters
    ----------
    where
        Subject of the error message: the record set, or the key ``data.num_classes``.
    memory
        Size of the memory in bytes.
    ranks
        Number of ranks that share the memory.
    num_classes, embedding_size
        Size of the matrix of class centres, float32 (num_classes, embedding_size).
    copies
        Number of arrays of this size on each rank: the centres, and their gradient if it exists.
    batch_size, image_size
        Number of images per rank and step, and their (height, width) in pixels.
    """
    centres = ranks * copies * num_classes * embedding_size * _FLOAT_BYTES
    batches = ranks * batch_size * 3 * image_size[0] * image_size[1] * _FLOAT_BYTES
    if centres > memory:
        raise MemoryNeeded(
            f"{where}: the class centres of {num_classes} classes with net.embedding_size="
            f"{embedding_size} need {centres / GIB:.1f} GiB on {ranks} ranks, got "
            f"{memory / GIB:.1f} GiB of memory; use fewer classes, a smaller embedding or more "
            "hosts"
        )
    if centres + batches > memory:
        raise MemoryNeeded(
            f"{where}: batches of data.batch_size={batch_size} images of "
            f"{image_size[0]}x{image_size[1]} pixels need {batches / GIB:.1f} GiB on {ranks} "
            f"ranks, got {memory / GIB:.1f} GiB of memory; lower data.batch_size"
        )
