# SPDX-License-Identifier: Apache-2.0
"""Fused operators for MXNet, compiled functions for data loaders, and the choice of operators.

Every fused operator has a plain Gluon equivalent with the same parameters and, up to rounding, the
same results.  ops/choice.py chooses fused or plain operators for the process.  ops/layers.py
contains the network layers that use the chosen operators.  Importing this package does not import
MXNet, whose import takes more than a second: some commands need only the compiled functions.
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

__all__ = [
    "OperatorError",
    "compiled",
    "for_gpu",
    "fused",
    "fused_scores",
    "guard",
    "loader_kernels",
    "refuse_add",
    "use",
]
