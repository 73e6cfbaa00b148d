# SPDX-License-Identifier: Apache-2.0
"""Base class of Gluon networks with separate graphs for training and inference."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import numpy as np
from mxnet import autograd, gluon, sym

from ops import choice

TRAINING, FUSED, PLAIN = "training", "inference with fused operators", "inference"
_FUSED_TYPES = (np.float32, np.float64)


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
        # Traced graph of each mode, and whether the graph is for a GPU.
        self._graphs: dict[str, tuple[Any, ...]] = {}

    def _call_cached_op(self, *args: Any) -> Any:
        gpu = choice.for_gpu()
        mode = _mode(args[0], gpu)
        self._switch(mode, gpu)
        with choice.fused_inference() if mode == FUSED else nullcontext():
            out = super()._call_cached_op(*args)
        self._graphs[mode] = self._traced(gpu)
        return out

    def _switch(self, mode: str, gpu: bool) -> None:
        traced = self._graphs.get(mode)
        if traced is None or traced[-1] != gpu:
            traced = ((), None, [], None, None, gpu)
        (
            self._cached_graph,
            self._cached_op,
            self._cached_op_args,
            self._in_format,
            self._out_format,
            _,
        ) = traced

    def _traced(self, gpu: bool) -> tuple[Any, ...]:
        return (
            self._cached_graph,
            self._cached_op,
            self._cached_op_args,
            self._in_format,
            self._out_format,
            gpu,
        )

    def _clear_cached_op(self) -> None:
        super()._clear_cached_op()
        self._graphs = {}

    def export(self, *args: Any, **kwargs: Any) -> Any:
        """Export the graph for inference with plain operators."""
        plain = self._graphs.get(PLAIN)
        gpu = choice.for_gpu() if plain is None else plain[-1]
        self._switch(PLAIN, gpu)
        if FUSED in self._graphs and not self._cached_graph:
            with autograd.predict_mode():
                self._build_cache(sym.var("data"))
            self._graphs[PLAIN] = self._traced(gpu)
        return super().export(*args, **kwargs)


def _mode(x: Any, gpu: bool) -> str:
    """Return the mode of a call with the input ``x``, on a GPU or on a CPU."""
    if autograd.is_training():
        return TRAINING
    can_fuse = choice.fused_scores() and not gpu and not autograd.is_recording()
    return FUSED if can_fuse and x.dtype in _FUSED_TYPES else PLAIN
