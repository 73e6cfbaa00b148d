# SPDX-License-Identifier: Apache-2.0
"""Write the report of a check, and the clean set: a link to the .rec, and an .idx for this link.

The .idx of the clean set is called the clean index.  It leaves out the records with findings of two
groups of kinds: the kinds with ``is_left_out`` in `findings.KINDS`, and the kinds that the option
--leave-out names.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from atomic_write import atomic_write
from launch.config.printable_text import printable
from regular_file import open_regular
from tools.data.findings import KINDS, MAX_LISTED_FINDINGS
from tools.data.identity_names import FILE_NAME
from tools.data.output_folder import check_output, make_output

if TYPE_CHECKING:
    import numpy as np

    from tools.data.record_check import CheckedSet

TEXT_NAME, JSON_NAME = "report.txt", "report.json"
PROGRAM = "tools.data check"
MAX_PRINTED_FINDINGS = 20
"""Largest number of findings of each kind that the command prints if it writes no report file."""
_SLICE_ROWS = 1 << 14


def require_folder(out: Path, checked: Path) -> None:
    """Check that a report can be written to ``out``; raise ValueError if not.

    ``out`` must be a new or empty folder, or a folder with the report of an earlier check.
    ``checked`` is the record set to check, a folder or a .rec.  If it is a folder, ``out`` must not
    be in it.
    """
    own: list[str] = []
    if _is_report(out / JSON_NAME):
        own = [path.name for path in out.iterdir() if _is_own(path)]
    check_output(out, [checked], own)


def _is_own(path: Path) -> bool:
    """Return whether a path is named like one of the files that this module writes."""
    names = (TEXT_NAME, JSON_NAME, "property", FILE_NAME)
    return (
        path.name in names or path.suffix == ".idx" or (path.suffix == ".rec" and path.is_symlink())
    )


def _is_report(path: Path) -> bool:
    try:
        with open_regular(path) as file:
            return f'"program": "{PROGRAM}"'.encode() in file.read(200)
    except OSError:
        return False


def summary_lines(checked: CheckedSet) -> list[str]:
    """Return the facts of a check and the number of findings of each kind, as lines of text."""
    height, width = checked.image_size
    lines = [
        f"{printable(checked.rec)}: {checked.images} images of {height}x{width} pixels",
        *[f"notice: {notice}" for notice in checked.notices],
        f"findings: {len(checked.findings)}",
    ]
    for kind, count in checked.findings.counts.items():
        if count:
            lines.append(f"  {kind:<16}{count:>9}  {KINDS[kind].meaning}")
    return lines


def finding_lines(checked: CheckedSet, most: int) -> Iterator[str]:
    """Yield a line of text for each finding, at most ``most`` of each kind.

    A kind with more findings gets one more line, which says how many are not shown.
    """
    shown = dict.fromkeys(KINDS, 0)
    for kind, key, text in checked.findings.listed():
        shown[kind] += 1
        if shown[kind] <= most:
            yield f"{kind}: {text}" if key is None else f"{kind}: key {key}: {text}"
    for kind, count in checked.findings.counts.items():
        if count > shown[kind] or shown[kind] > most:
            yield f"{kind}: {count - min(shown[kind], most)} more"


def to_json(checked: CheckedSet) -> dict[str, Any]:
    """Return the report as a dictionary of JSON values."""
    return {
        "program": PROGRAM,
        "rec": str(checked.rec),
        "images": checked.images,
        "clean_images": checked.clean_images,
        "image_size": list(checked.image_size),
        "num_classes": checked.num_classes,
        "notices": checked.notices,
        "counts": checked.findings.counts,
        "findings": [finding._asdict() for finding in checked.findings.listed()],
    }


def write_report(out: Path, checked: CheckedSet) -> None:
    """Write report.txt, report.json and the clean set to a folder; write the .idx last.

    The clean set is usable as ``data.records``.  It consists of a symbolic link to the .rec, the
    clean index, a property file if the checked set states its number of classes, and a copy of
    identities.json if the checked set has one.  If no image remains, there is no clean set.

    Raises
    ------
    OSError
        If a file cannot be written.
    """
    make_output(out)
    for path in out.iterdir():
        if _is_own(path):
            path.unlink()
    with atomic_write(out / JSON_NAME, "w") as file:
        json.dump(to_json(checked), file, indent=1)
        file.write("\n")
    with atomic_write(out / TEXT_NAME, "w") as file:
        lines = [*summary_lines(checked), clean_line(checked)]
        file.writelines(f"{line}\n" for line in lines)
        file.writelines(f"{line}\n" for line in finding_lines(checked, MAX_LISTED_FINDINGS))
    if checked.clean_images:
        (out / checked.rec.name).symlink_to(checked.rec.resolve())
        if checked.num_classes:
            with atomic_write(out / "property", "w") as file:
                file.write("{},{},{}\n".format(checked.num_classes, *checked.image_size))
        names = checked.rec.with_name(FILE_NAME)
        if names.is_file():
            with names.open("rb") as source, atomic_write(out / FILE_NAME) as file:
                shutil.copyfileobj(source, file)
        with atomic_write(out / checked.idx.name, "w") as file:
            file.writelines(_index_lines(checked.keys, checked.offsets))


def clean_line(checked: CheckedSet) -> str:
    """Return a line that says how many images the clean set has."""
    if not checked.clean_images:
        return "clean set: none, because every image has a fault"
    return f"clean set, without faulty records: {checked.clean_images} of {checked.images} images"


def _index_lines(keys: np.ndarray, offsets: np.ndarray) -> Iterator[str]:
    for start in range(0, len(keys), _SLICE_ROWS):
        part = slice(start, start + _SLICE_ROWS)
        for key, offset in zip(keys[part].tolist(), offsets[part].tolist(), strict=True):
            yield f"{key}\t{offset}\n"
