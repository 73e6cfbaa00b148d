# SPDX-License-Identifier: Apache-2.0
"""Import networks of other projects and formats, and export our networks for other runtimes.

The package imports a module only when one of the module's names is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from interchange.embedder import Embedder, load_embedder
    from interchange.model import InterchangeError, StoredModel

__all__ = ["Embedder", "InterchangeError", "StoredModel", "load_embedder"]

_MODULES = {
    "Embedder": "interchange.embedder",
    "InterchangeError": "interchange.model",
    "StoredModel": "interchange.model",
    "load_embedder": "interchange.embedder",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'interchange' has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)
