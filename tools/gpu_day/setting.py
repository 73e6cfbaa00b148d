# SPDX-License-Identifier: Apache-2.0
"""What every step is told: how many GPUs there are, which images to take, where to write."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Setting:
    """The setting of a step.

    Parameters
    ----------
    gpus
        Number of GPUs; 0 rehearses with the CPU.
    records
        Folder with train.rec, train.idx, property and a verification set, NAME.bin.
    scratch
        Folder for what the step writes, empty at its start.
    image
        Name of the GPU image.
    limit_s
        Seconds that the step may take.
    """

    gpus: int
    records: Path
    scratch: Path
    image: str = "faces-gpu"
    limit_s: float = 600.0

    @property
    def device(self) -> str:
        """Return the type of the device that is examined, "gpu" or "cpu"."""
        return "gpu" if self.gpus else "cpu"

    def contexts(self) -> tuple[Any, Any]:
        """Return the reference, ``mx.cpu(0)``, and the device that is held against it.

        Without a GPU that is ``mx.cpu(1)``: the same CPU, but arrays of another context.
        """
        import mxnet as mx

        return mx.cpu(0), mx.gpu(0) if self.gpus else mx.cpu(1)

    def to_json(self) -> str:
        """Return the setting as the command line of a step has it."""
        return json.dumps(
            {key: str(v) if isinstance(v, Path) else v for key, v in asdict(self).items()}
        )

    @classmethod
    def from_json(cls, text: str) -> Setting:
        """Return the setting that ``to_json`` gave."""
        values = json.loads(text)
        paths = {key: Path(values[key]) for key in ("records", "scratch")}
        return cls(**{**values, **paths})
