# SPDX-License-Identifier: Apache-2.0
"""Send the class centres of a model to the ranks that hold them in a sharded head."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import mxnet as mx
import numpy as np

from assemble.class_centres import ClassMatch, rows_of
from launch.ranks.agreement import agree

if TYPE_CHECKING:
    from collections.abc import Sequence

    from heads.sharded import ShardedClasses
    from launch.ranks.comm import Comm

BLOCK_BYTES = 16 << 20
"""Maximum size in bytes of a block of class centres, which rank 0 sends to all ranks at once."""


def load_shards(
    head: ShardedClasses,
    stored: Any,
    shape: Sequence[int],
    match: ClassMatch,
    comm: Comm,
) -> str:
    """Load class centres of a model into a sharded head; all ranks call this function together.

    Rank 0 reads the centres in blocks, in the order in which the model stores them.  Each rank
    keeps the centres of its own classes.

    Parameters
    ----------
    head
        Initialised sharded head of this rank.
    stored
        Class centres of the model on rank 0, an array or rows on the disk; not used on other ranks.
    shape
        Shape of ``stored``, equal on all ranks.
    match
        Classes that run and model have in common, equal on all ranks.

    Returns
    -------
    Text for the log.

    Raises
    ------
    Refused
        On all ranks, if rank 0 cannot read the centres.
    """
    shard, classes = head.shard, head.num_classes
    assert shard is not None
    per_class, remainder = divmod(shape[0], match.source_count)
    own_shape = (classes * head.sub_centers, *head.weight.shape[1:])
    if remainder or per_class != head.sub_centers or tuple(shape[1:]) != own_shape[1:]:
        return (
            f"class centres taken over: 0 of {classes} (the model has an array of shape "
            f"{tuple(shape)} for {match.source_count} classes, this head has one of shape "
            f"{own_shape})"
        )
    order = np.argsort(match.source, kind="stable")
    own, source = match.own[order], match.source[order]
    weight = head.weight.data()
    block = max(1, BLOCK_BYTES // (4 * per_class * max(1, own_shape[1])))
    failure: Exception | None = None
    for start in range(0, len(own), block):
        part = slice(start, start + block)
        values = np.zeros((0, own_shape[1]), np.float32)
        if comm.rank == 0:
            # Horovod: the other ranks wait for every block.  So after an error rank 0 still takes
            # part in each gather, with zeros.
            values = np.zeros((len(own[part]) * per_class, own_shape[1]), np.float32)
            try:
                if failure is None:
                    values[:] = stored[rows_of(source[part], per_class)]
            except (ValueError, OSError) as error:
                failure = error
        values = comm.gather(values)
        kept = (own[part] >= shard.start) & (own[part] < shard.stop)
        if kept.any():
            rows = mx.nd.array(rows_of(own[part][kept] - shard.start, per_class), dtype="int32")
            of_shard = values.reshape(-1, per_class, own_shape[1])[kept]
            weight[rows.as_in_context(weight.context)] = mx.nd.array(
                of_shard.reshape(-1, own_shape[1]), ctx=weight.context
            )

    def require_success() -> None:
        if failure is not None:
            raise failure

    agree(comm, require_success)
    return f"class centres taken over: {len(own)} of {classes} ({match.reason})"
