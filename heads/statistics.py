# SPDX-License-Identifier: Apache-2.0
"""Parameters and functions for statistics over the images of all ranks."""

from collections.abc import Callable
from typing import Any

import mxnet as mx
from mxnet import gluon

Statistic = Callable[[mx.nd.NDArray], mx.nd.NDArray]
Reduce = Callable[[mx.nd.NDArray, Statistic], mx.nd.NDArray]
"""``reduce(rows, statistic)`` returns the statistic of the rows (B, ...) of all ranks.

The rows of rank 0 come first; the result is the same on every rank."""


def alone(rows: mx.nd.NDArray, statistic: Statistic) -> mx.nd.NDArray:
    """Return the statistic of the rows of a run with a single rank."""
    return statistic(rows)


def create_state(
    head: gluon.HybridBlock, name: str, shape: tuple[int, ...], init: mx.init.Initializer
) -> gluon.Parameter:
    """Create a parameter without a gradient; checkpoints contain it."""
    with head.name_scope():
        return head.params.get(name, shape=shape, init=init, grad_req="null", differentiable=False)


class TracedFunction(gluon.HybridBlock):
    """Function of arrays, traced once, so that MXNet runs it as one operator.

    Parameters
    ----------
    function
        ``function(F, *arrays)``; it has no parameters.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(prefix="")
        self._function = function
        self.hybridize()

    def hybrid_forward(self, F: Any, *arrays: Any) -> Any:
        return self._function(F, *arrays)
