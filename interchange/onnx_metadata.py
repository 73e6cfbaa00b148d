# SPDX-License-Identifier: Apache-2.0
"""Texts that an ONNX file stores about its network."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from interchange.model import StoredModel

NOT_STATED = "not stated"


def model_metadata(model: StoredModel, *, commit: str = "", licence: str = "") -> dict[str, str]:
    """Return the metadata of a stored model for `interchange.onnx_export.OnnxSettings`.

    Parameters
    ----------
    commit
        Version of the sources that write the file.
    licence
        Licence of the weights, for example "CC BY-NC 4.0".
    """
    # The symbol of a network "graph" is text of many kilobytes, which the file itself replaces.
    arguments = {name: value for name, value in model.net.items() if name not in ("name", "symbol")}
    texts = {
        "net": str(model.net["name"]),
        "net_arguments": json.dumps(arguments),
        "commit": commit or NOT_STATED,
        "license": licence or NOT_STATED,
    }
    if model.threshold is not None:
        texts["threshold"] = repr(model.threshold)
    return texts


def stated_threshold(metadata: dict[str, str]) -> float | None:
    """Return the cosine that the metadata state as threshold; None if they state no valid one."""
    try:
        value = float(metadata["threshold"])
    except (KeyError, ValueError):
        return None
    return value if -1 <= value <= 1 else None
