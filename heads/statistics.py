# SPDX-License-Identifier: Apache-2.0
"""Helpers for heads that keep running statistics over the images of all ranks."""

from collections.abc import Callable
from typing import Any

import mxnet as mx
from mxnet import gluon

Statistic = Callable[[mx.nd.NDArray], mx.nd.NDArray]
Reduce = Callable[[mx.nd.NDArray, Statistic], mx.nd.NDArray]
"""Function ``reduce(rows, statistic)`` that computes a statistic over the rows of all ranks.

``rows`` are the rows of this rank, one per image. The function concatenates the rows of all ranks,
in the order of the ranks, and applies ``statistic``. Every rank gets the same result."""


def alone(rows: mx.nd.NDArray, statistic: Statistic) -> mx.nd.NDArray:
    """Compute a statistic over the rows of this rank only: the `Reduce` of a run with one rank."""
    return statistic(rows)


def create_state(
    head: gluon.HybridBlock, name: str, shape: tuple[int, ...], init: mx.init.Initializer
) -> gluon.Parameter:
    """Create a head parameter that has no gradient; checkpoints save this parameter."""
    with head.name_scope():
        return head.params.get(name, shape=shape, init=init, grad_req="null", differentiable=False)


class TracedFunction(gluon.HybridBlock):
    """Wrapper that traces a function of arrays, so that MXNet runs the function as one operator.

    Parameters
    ----------
    function
        Function with the signature ``function(F, *arrays)`` that has no trainable parameters.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(prefix="")
        self._function = function
        self.hybridize()

    def hybrid_forward(self, F: Any, *arrays: Any) -> Any:
        return self._function(F, *arrays)
