# SPDX-License-Identifier: Apache-2.0
"""Run run_train.py with a GPU decoder on rank 1 that fails on valid images.

gpu_fault.py ARGUMENTS-OF-RUN_TRAIN...
"""

from __future__ import annotations

import os
import sys
from typing import Any

import run_train
from pipeline.decode import decoders
from pipeline.decode.dali import DecodeGraph


class FailingGraph(DecodeGraph):
    """Decode graph that claims to use GPU 1 and fails."""

    def __init__(self, *arguments: Any, **options: Any):
        super().__init__(*arguments, **options)
        self.device_id, self.decodes_on_gpu = 1, True

    def take(self) -> Any:
        raise RuntimeError("Critical error in pipeline:\nnvJPEG error (8)")


if __name__ == "__main__":
    if os.environ["HOROVOD_RANK"] == "1":
        decoders.DecodeGraph = FailingGraph
    sys.exit(run_train.main(sys.argv[1:]))
