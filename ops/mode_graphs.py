# SPDX-License-Identifier: Apache-2.0
"""Base class of Gluon networks with separate graphs for training and inference."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

from mxnet import autograd, gluon, sym

from ops import choice

TRAINING, FUSED, PLAIN = "training", "inference with fused operators", "inference"
_FUSED_TYPES = ("float32", "float64")


class ModeGraphs(gluon.HybridBlock):
    """Hybrid block with one graph for each mode, over the same parameters.

    Gluon traces a hybridized block only once, in the mode (training or inference) of the first
    call.  The operators depend on the mode, so each mode needs its own graph.  Inference with fused
    operators has no gradient.  So inference has a second graph, of plain operators, for calls that
    autograd records, for GPUs, for other types than float32 and float64, and for `export`.  A block
    whose parameters move between a CPU and a GPU is traced again.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        # Traced graph of each mode.
        self._graphs: dict[str, tuple[Any, ...]] = {}
        self._graphs_for_gpu: dict[str, bool] = {}

    def _call_cached_op(self, *args: Any) -> Any:
        mode, gpu = _mode(args[0]), choice.for_gpu()
        if self._graphs_for_gpu.get(mode, gpu) != gpu:
            del self._graphs[mode]
        self._switch(mode)
        with choice.fused_inference() if mode == FUSED else nullcontext():
            out = super()._call_cached_op(*args)
        self._graphs[mode], self._graphs_for_gpu[mode] = self._traced(), gpu
        return out

    def _switch(self, mode: str) -> None:
        empty: tuple[Any, ...] = ((), None, [], None, None)
        (
            self._cached_graph,
            self._cached_op,
            self._cached_op_args,
            self._in_format,
            self._out_format,
        ) = self._graphs.get(mode, empty)

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
        self._switch(PLAIN)
        if FUSED in self._graphs and not self._cached_graph:
            with autograd.predict_mode():
                self._build_cache(sym.var("data"))
            self._graphs[PLAIN] = self._traced()
        return super().export(*args, **kwargs)


def _mode(x: Any) -> str:
    """Return the mode of a call with the input ``x``."""
    if autograd.is_training():
        return TRAINING
    can_fuse = choice.fused_scores() and not choice.for_gpu() and not autograd.is_recording()
    return FUSED if can_fuse and x.dtype.__name__ in _FUSED_TYPES else PLAIN
