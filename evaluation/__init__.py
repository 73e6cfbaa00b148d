# SPDX-License-Identifier: Apache-2.0
"""Evaluation of embedding networks.

The package imports a module only when one of the module's names is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from evaluation.evaluate import evaluate_sets
    from evaluation.pairs import Pairs, PairsError, find_sets, read_pairs, read_sets, write_pairs
    from evaluation.set_check import check_sets
    from evaluation.verification import verify

__all__ = [
    "Pairs",
    "PairsError",
    "check_sets",
    "evaluate_sets",
    "find_sets",
    "read_pairs",
    "read_sets",
    "verify",
    "write_pairs",
]

_MODULES = {
    "check_sets": "evaluation.set_check",
    "evaluate_sets": "evaluation.evaluate",
    "verify": "evaluation.verification",
}


def __getattr__(name: str) -> Any:
    # Import late: evaluate_sets imports MXNet, and programs must configure threads before MXNet is
    # imported.
    if name not in __all__:
        raise AttributeError(f"module 'evaluation' has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES.get(name, "evaluation.pairs")), name)
