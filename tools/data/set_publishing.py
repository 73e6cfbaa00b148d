# SPDX-License-Identifier: Apache-2.0
"""Complete the files of a packed set, and move them from the state folder to the output folder."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from atomic_write import atomic_write, rename_together
from launch.config.printable_text import printable
from pipeline.records.open import open_records
from pipeline.records.property_file import read_property
from tools.data import identity_names
from tools.data.held_out_pairs import ChosenPairs, choose_pairs, write_held_out
from tools.data.pack_plan import HELD, TRAIN, PackPlan
from tools.data.packing import STATE_FOLDER, Packing, PackResult

REPORT = "pack.json"
HELD_OUT = "held_out.bin"
MIN_PAIRS = 10
FILES = (
    "train.rec",
    "train.idx",
    identity_names.FILE_NAME,
    HELD_OUT,
    "held_out.people.txt",
    REPORT,
    "property",
)
"""Files of a set in the order of their renaming; a folder with the last one, ``property``, holds a
complete set."""


def publish(out: Path, plan: PackPlan, packing: Packing) -> dict[str, Any]:
    """Write the remaining files of a packed set, and move all files to the output folder.

    If the process is killed, a later process can call the function again.

    Outputs
    -------
    The report, which pack.json contains.

    Raises
    ------
    ValueError
        If no image is usable; nothing remains in ``out`` then.
    """
    state = out / STATE_FOLDER
    if not packing.is_finished:
        result = packing.result()
        if not result.images[TRAIN]:
            packing.close()
            shutil.rmtree(state)
            raise no_image_error(plan, result)
        packing.finish_records()
        _write_files(state, plan, result)
        packing.note_finished()
    report = json.loads(_existing(state / REPORT, out / REPORT).read_bytes())
    names = [name for name in FILES if name in report["files"]]
    rename_together([state / name for name in names], [out / name for name in names])
    packing.close()
    shutil.rmtree(state)
    return report


def no_image_error(plan: PackPlan, result: PackResult) -> ValueError:
    """Return the error for sources without a usable image."""
    path, reason = result.rejected[0]
    return ValueError(
        f"{printable(plan.sources.root)}: must contain usable images for training, got "
        f"{len(result.rejected)} unusable files; the first one, {printable(path)}, {reason}"
    )


def _existing(path: Path, other: Path) -> Path:
    return path if path.exists() else other


def _write_files(state: Path, plan: PackPlan, result: PackResult) -> None:
    """Write all files except the .rec and the .idx to the state folder."""
    sources, wanted = plan.sources, plan.options.format
    files = {"train.rec", "train.idx", identity_names.FILE_NAME, REPORT, "property"}
    kept = [sources.names[identity] for identity in result.images[TRAIN]]
    identity_names.write_names(state / identity_names.FILE_NAME, kept)
    report = describe(plan, result)
    if result.images[HELD]:
        held = [sources.names[identity] for identity in result.images[HELD]]
        chosen = _choose_pairs(plan, result)
        if len(chosen.same) >= MIN_PAIRS:
            records = open_records(state / f"{HELD}.rec", state / "scan")
            write_held_out(state / HELD_OUT, records, chosen, held)
            files |= {HELD_OUT, "held_out.people.txt"}
    report["files"] = sorted(files)
    with atomic_write(state / "property", "w") as file:
        file.write(f"{len(kept)},{wanted.height},{wanted.width}\n")
    with atomic_write(state / REPORT, "w") as file:
        json.dump(report, file, indent=1)
        file.write("\n")


def describe(plan: PackPlan, result: PackResult) -> dict[str, Any]:
    """Return the report of a packed set, as JSON types."""
    sources, wanted = plan.sources, plan.options.format
    held = [sources.names[identity] for identity in result.images[HELD]]
    packed = {*result.images[TRAIN], *result.images[HELD]}
    report: dict[str, Any] = {
        "plan": plan.digest,
        "images": sum(result.images[TRAIN].values()),
        "identities": len(result.images[TRAIN]),
        "bytes": result.bytes,
        "height": wanted.height,
        "width": wanted.width,
        "jpeg_quality": wanted.quality,
        "chroma_sampling": wanted.sampling,
        "changes": dict(sorted(result.changes.items())),
        "rejected": result.rejected,
        "passed_over": dict(sorted(sources.passed_over.items())),
        "identities_without_image": [
            name for number, name in enumerate(sources.names) if number not in packed
        ],
    }
    if sources.unaligned is not None:
        report["alignment"] = plan.alignment.settings
    if plan.held:
        chosen = _choose_pairs(plan, result)
        count = len(chosen.same)
        report["held_out"] = {
            "identities": held,
            "images": sum(result.images[HELD].values()),
            "pairs": count if count >= MIN_PAIRS else 0,
            "people_in_one_fold": chosen.is_disjoint,
        }
    return report


def _choose_pairs(plan: PackPlan, result: PackResult) -> ChosenPairs:
    """Choose the verification pairs of the held-out identities."""
    counts = list(result.images[HELD].values())
    return choose_pairs(np.repeat(np.arange(len(counts)), counts), plan.options.val_pairs)


def read_report(out: Path) -> dict[str, Any] | None:
    """Return the report of a complete packed set; None if the folder holds no such set."""
    if read_property(out / "property").image_size is None or not os.path.isfile(out / REPORT):
        return None
    try:
        report = json.loads((out / REPORT).read_bytes())
    except (ValueError, RecursionError):
        return None
    return report if isinstance(report, dict) else None
