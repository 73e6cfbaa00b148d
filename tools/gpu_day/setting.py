# SPDX-License-Identifier: Apache-2.0
"""Setting of a GPU measurement step: number of GPUs, record set and output folder."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Setting:
    """Setting of one step of the GPU measurements.

    Parameters
    ----------
    gpus
        Number of GPUs; 0 means a rehearsal on the CPU.
    records
        Folder with train.rec, train.idx, property and a verification set, NAME.bin.
    scratch
        Output folder of the step, initially empty.
    image
        Name of the Docker image for GPUs.
    limit_s
        Time limit of the step in seconds.
    """

    gpus: int
    records: Path
    scratch: Path
    image: str = "faces-gpu"
    limit_s: float = 600.0

    @property
    def device(self) -> str:
        """Return the type of the device under test, "gpu" or "cpu"."""
        return "gpu" if self.gpus else "cpu"

    def contexts(self) -> tuple[Any, Any]:
        """Return two MXNet contexts: that of the reference results, and the one under test.

        Without a GPU, the context under test is ``mx.cpu(1)``, which is the same processor as the
        reference ``mx.cpu(0)``, but another context.
        """
        import mxnet as mx

        return mx.cpu(0), mx.gpu(0) if self.gpus else mx.cpu(1)

    def to_json(self) -> str:
        """Return the setting as JSON, for the command line of a step's process."""
        return json.dumps(
            {key: str(v) if isinstance(v, Path) else v for key, v in asdict(self).items()}
        )

    @classmethod
    def from_json(cls, text: str) -> Setting:
        """Create a setting from the output of ``to_json``."""
        values = json.loads(text)
        paths = {key: Path(values[key]) for key in ("records", "scratch")}
        return cls(**{**values, **paths})
