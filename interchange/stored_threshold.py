# SPDX-License-Identifier: Apache-2.0
"""Find the threshold that belongs to the weights of a checkpoint."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_UNUSABLE = (
    OSError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    ZeroDivisionError,
    RecursionError,
)
"""Exceptions for a summary.json that is missing, damaged or without a verification."""


def find_threshold(folder: Path, state: Mapping[str, Any]) -> float | None:
    """Return the least cosine at which two images count as one person; None if none is stored.

    An imported model states the threshold in state.json of its checkpoint.  For a trained model,
    summary.json of the run states a threshold for each verification set: the mean over the folds.
    The result is the mean over the sets, weighted by the number of pairs in a set.  The summary
    applies only to the checkpoint of the last step of a finished run.

    Parameters
    ----------
    folder
        Folder of the checkpoint, step-<8 digits> in the folder checkpoints of the run.
    state
        Content of the file state.json of the checkpoint.

    Notes
    -----
    A threshold d of `evaluation.verification` is a squared distance of unit vectors; the cosine is
    1 - d / 2.
    """
    stated = state.get("threshold")
    if stated is not None:
        return float(stated)
    folder = folder.resolve()
    if folder.parent.name != "checkpoints":
        return None
    try:
        summary = json.loads((folder.parent.parent / "summary.json").read_text(encoding="utf-8"))
        final = summary["status"] == "finished" and summary["steps"] == state["progress"]["step"]
        if not final:
            return None
        results = summary["verification"].values()
        pairs = sum(result["pairs"] for result in results)
        distance = sum(result["pairs"] * result["best_threshold"] for result in results) / pairs
        return 1 - distance / 2 if math.isfinite(distance) else None
    except _UNUSABLE:
        return None  # usual: there is no summary, or the run had no verification
