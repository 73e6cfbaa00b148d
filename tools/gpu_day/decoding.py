# SPDX-License-Identifier: Apache-2.0
"""Compare each decode mode with DALI's decoder on the CPU (step 3 of `tools.gpu_day`)."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import ops
from pipeline.decode.autotune import sample_rows
from pipeline.decode.dali import PATHS
from pipeline.records.open import open_records
from pipeline.records.reader import RecordReader
from tools.gpu_day.commands import python, run
from tools.gpu_day.damaged_images import KINDS, load_damaged
from tools.gpu_day.decoded_pixels import AUGMENTATIONS, difference, pixels

if TYPE_CHECKING:
    import numpy as np

    from tools.gpu_day.results import Parts
    from tools.gpu_day.setting import Setting

IMAGES = 64
GRID_S, GRID_LIMIT_S = 24, 55


def measure(setting: Setting, parts: Parts) -> None:
    """Compare the pixels of the decode modes, decode damaged images, and time each mode."""
    _, device = setting.contexts()
    device_id = 0 if setting.gpus else None
    modes = list(PATHS) if setting.gpus else ["cpu", "native"]
    records = open_records(setting.records, setting.scratch)
    jpegs = list(RecordReader(records).gather(sample_rows(records, IMAGES)))
    ops.use("auto")
    compare_modes(parts, jpegs, modes, device_id)
    for mode in modes:
        what = f"damaged images, {mode}"
        with parts.part(what):
            sound = [jpeg.tobytes() for jpeg in jpegs]
            found = {
                kind: load_damaged(sound, kind, mode, device, setting.scratch) for kind in KINDS
            }
            parts.measured(what, found)
    with parts.part("images/s"):
        table = setting.scratch / "grid.json"
        command = python("benchmarks/decode_grid.py", "--quick", "--seconds", str(GRID_S))
        ended = run([*command, "--records", setting.records, "--json", table], limit_s=GRID_LIMIT_S)
        rows = json.loads(table.read_text())["rows"] if table.is_file() else []
        best: dict[str, int] = {}
        for row in rows:
            if "path" in row:
                best.setdefault(row["path"], round(row["images_per_second"]))
        parts.require(
            "images/s",
            bool(best),
            best,
            f"benchmarks/decode_grid.py timed no decode mode, got exit code {ended.code}; last "
            f"line: {ended.last_line()}",
        )


def compare_modes(
    parts: Parts, jpegs: list[np.ndarray], modes: list[str], device_id: int | None
) -> None:
    """Record how much the pixels of each decode mode differ from those of DALI on the CPU.

    Each augmentation of AUGMENTATIONS is compared separately.
    """
    reference = {
        name: pixels(jpegs, "cpu", augmentation, None, None)
        for name, augmentation in AUGMENTATIONS.items()
    }
    for mode in modes:
        what = f"pixels, {mode}"
        with parts.part(what):
            found = {}
            for name, augmentation in AUGMENTATIONS.items():
                image = pixels(jpegs, mode, augmentation, device_id, ops.loader_kernels())
                found[name] = difference(image, reference[name])
            values = {name: f"{d.mean} mean, {d.largest} max" for name, d in found.items()}
            wrong = {name: values[name] for name, d in found.items() if not d.small}
            parts.require(what, not wrong, values, f"pixels (0 to 255) differ too much: {wrong}")
