# SPDX-License-Identifier: Apache-2.0
"""What heads learn from a whole batch: over the images of all ranks, alike on each of them."""

from collections.abc import Callable

import mxnet as mx

Statistic = Callable[[mx.nd.NDArray], mx.nd.NDArray]
Reduce = Callable[[mx.nd.NDArray, Statistic], mx.nd.NDArray]
"""``reduce(rows, by)`` returns ``by`` of the rows (B, ...) of all ranks, rank 0 first."""


def alone(rows: mx.nd.NDArray, by: Statistic) -> mx.nd.NDArray:
    """Return the statistic of the rows of one rank that is the only one."""
    return by(rows)
