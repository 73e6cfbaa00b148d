# SPDX-License-Identifier: Apache-2.0
"""Find the record set to train on if the configuration names none."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

VARIABLE = "FACES_DIR"
"""Environment variable with the folder of a record set."""
GLUONFR_FOLDERS = ("emore", "ms1m")
"""Folders of record sets in ~/.mxnet/datasets/face, as GluonFR names them."""
WAYS = (
    f"set data.records=FOLDER or the environment variable {VARIABLE}=FOLDER, where FOLDER contains "
    f"train.rec, train.idx and property, or put these files into ~/.mxnet/datasets/face/"
    f"{' or '.join(GLUONFR_FOLDERS)}"
)
"""Ways to name a record set, for error messages."""


def add_default_records(raw: dict[str, Any]) -> None:
    """Set ``data.records`` in a raw configuration that lacks it, if a record set is found.

    The folder in the environment variable FACES_DIR has precedence over the folders of GluonFR.
    """
    data = raw.get("data")
    data = {} if data is None else data
    if not isinstance(data, dict) or data.get("records") is not None:
        return
    if data.get("loader") == "synthetic":
        return  # synthetic batches need no records
    if found := find_records():
        raw["data"] = {**data, "records": [found]}


def find_records() -> str:
    """Return the folder of the default record set, or "" if there is none."""
    if folder := os.environ.get(VARIABLE):
        return folder
    base = Path(os.path.expanduser("~")) / ".mxnet" / "datasets" / "face"
    for name in GLUONFR_FOLDERS:
        if os.path.isfile(base / name / "train.rec"):
            return str(base / name)
    return ""
