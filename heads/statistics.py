# SPDX-License-Identifier: Apache-2.0
"""What heads learn from a whole batch: over the images of all ranks, alike on each of them."""

from collections.abc import Callable
from typing import Any

import mxnet as mx
from mxnet import gluon

Statistic = Callable[[mx.nd.NDArray], mx.nd.NDArray]
Reduce = Callable[[mx.nd.NDArray, Statistic], mx.nd.NDArray]
"""``reduce(rows, by)`` returns ``by`` of the rows (B, ...) of all ranks, rank 0 first."""


def state(
    head: gluon.HybridBlock, name: str, shape: tuple[int, ...], init: mx.init.Initializer
) -> gluon.Parameter:
    """Give a head a parameter that it learns without a gradient; it is part of checkpoints."""
    with head.name_scope():
        return head.params.get(name, shape=shape, init=init, grad_req="null", differentiable=False)


class Traced(gluon.HybridBlock):
    """A function of arrays, traced once: called outside a head's own graph it costs one call.

    Parameters
    ----------
    function
        ``function(F, *arrays)``; it has no parameters.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(prefix="")
        self._function = function
        self.hybridize()

    def hybrid_forward(self, F, *arrays):
        return self._function(F, *arrays)


def alone(rows: mx.nd.NDArray, by: Statistic) -> mx.nd.NDArray:
    """Return the statistic of the rows of one rank that is the only one."""
    return by(rows)
