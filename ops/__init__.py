# SPDX-License-Identifier: Apache-2.0
"""Fused operators for MXNet, compiled functions for loaders, and the choice to use them.

Every fused operator has a plain Gluon twin with the same parameters and the same results up to
rounding.  ops/choice.py makes the choice; ops/layers.py has the network layers that follow it.
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
