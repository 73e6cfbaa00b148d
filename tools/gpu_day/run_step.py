# SPDX-License-Identifier: Apache-2.0
"""Run one step of the GPU measurements:  python -m tools.gpu_day.run_step MODULE SETTING PARTS"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from pathlib import Path

from tools.gpu_day.results import Parts
from tools.gpu_day.setting import Setting


def main(argv: Sequence[str]) -> int:
    """Run one step of the measurements; return exit code 1 if a part of it failed, else 0."""
    module, setting, path = argv
    parts = Parts(Path(path))
    with parts.part(module):
        importlib.import_module(f"tools.gpu_day.{module}").measure(
            Setting.from_json(setting), parts
        )
    return int(parts.failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
