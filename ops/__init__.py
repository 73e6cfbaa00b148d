# SPDX-License-Identifier: Apache-2.0
"""Fused operators for MXNet and for loaders, and the one place that chooses whether they are used.

Every operator has a plain-Gluon twin: the same parameters, the same numbers up to rounding.
ops/choice.py holds the choice, ops/layers.py the layers of networks in all their forms.
"""

from ops.choice import (
    OperatorError,
    compiled,
    for_gpu,
    fused,
    fused_scores,
    guard,
    loader_kernels,
    refuse_add,
    use,
)
from ops.two_graphs import TwoGraphs

__all__ = [
    "OperatorError",
    "TwoGraphs",
    "compiled",
    "for_gpu",
    "fused",
    "fused_scores",
    "guard",
    "loader_kernels",
    "refuse_add",
    "use",
]
