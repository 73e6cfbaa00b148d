# SPDX-License-Identifier: Apache-2.0
"""Base class of Gluon networks with separate graphs for training and inference."""

from __future__ import annotations

from typing import Any

from mxnet import autograd, gluon

from ops.choice import for_gpu


class TwoGraphs(gluon.HybridBlock):
    """Hybrid block with one graph for training and one for inference, over the same parameters.

    Gluon traces a hybridized block only once, in the mode (training or inference) of the first
    call.  The fused operators support only training, so each mode needs its own graph.  A block
    whose parameters move between a CPU and a GPU is traced again.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        # Traced graph of each mode; the key is True for training and False for inference.
        self._graphs: dict[bool, tuple[Any, ...]] = {}
        self._graphs_for_gpu: dict[bool, bool] = {}

    def _call_cached_op(self, *args: Any) -> Any:
        training, gpu = autograd.is_training(), for_gpu()
        if self._graphs_for_gpu.get(training, gpu) != gpu:
            del self._graphs[training]
        self._switch(training)
        out = super()._call_cached_op(*args)
        self._graphs[training], self._graphs_for_gpu[training] = self._traced(), gpu
        return out

    def _switch(self, training: bool) -> None:
        empty: tuple[Any, ...] = ((), None, [], None, None)
        (
            self._cached_graph,
            self._cached_op,
            self._cached_op_args,
            self._in_format,
            self._out_format,
        ) = self._graphs.get(training, empty)

    def _traced(self) -> tuple[Any, ...]:
        return (
            self._cached_graph,
            self._cached_op,
            self._cached_op_args,
            self._in_format,
            self._out_format,
        )

    def _clear_cached_op(self) -> None:
        super()._clear_cached_op()
        self._graphs, self._graphs_for_gpu = {}, {}

    def export(self, *args: Any, **kwargs: Any) -> Any:
        """Export the graph for inference, which contains no fused operators."""
        self._switch(False)
        return super().export(*args, **kwargs)
