# SPDX-License-Identifier: Apache-2.0
"""Align the photographs of a folder in several processes, and write the aligned images."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import cv2
import numpy as np

from alignment.aligner import ALIGNED, CENTRE, Alignment
from atomic_write import atomic_write
from evaluation.image_files import read_photograph
from tools.data.decoder_warnings import DecoderWarnings
from tools.data.image_fitting import encode_jpeg
from tools.data.photographs import output_names
from tools.data.worker_pool import WorkerPool

if TYPE_CHECKING:
    from alignment.plan import AlignmentPlan
    from tools.data.alignment_journal import AlignmentJournal

UNREADABLE = "unreadable"
WRITTEN = (ALIGNED, CENTRE)
"""Values of ``status`` of photographs whose aligned image is written."""
DETECTOR_THREADS = 1  # per process: by default, there is already one process per core
Row = dict[str, Any]
"""Result of one photograph: "path" of the file; "file", its size and modification time; "status", a
key of `alignment.aligner.STATUSES` or UNREADABLE; "image", the path of the aligned image; "reason",
why the file is UNREADABLE; and other attributes of `alignment.aligner.Alignment`."""


class ImageCoding(NamedTuple):
    """Size and encoding of aligned images."""

    image_size: tuple[int, int]
    """(height, width) in pixels."""
    quality: int
    """JPEG quality, 1 to 100."""
    sampling: str
    """Chroma sampling, a key of `image_fitting.SAMPLINGS`."""


@dataclass
class FolderAlignment:
    """Alignment of the photographs of one folder.

    Parameters
    ----------
    folder
        Folder of the photographs.
    paths
        Paths of the photographs, relative to the folder.
    plan
        Source of the points, and rules that say which faces are rejected.
    coding
        Size and encoding of aligned images.
    """

    folder: Path
    paths: Sequence[str]
    plan: AlignmentPlan
    coding: ImageCoding

    def run(
        self,
        processes: int,
        out: Path | None,
        journal: AlignmentJournal | None,
        progress: Callable[[str, int, int], None],
    ) -> list[Row]:
        """Align all photographs; return their results in the order of the paths.

        Parameters
        ----------
        processes
            Number of worker processes.
        out
            Folder of the aligned images; None: write nothing.
        journal
            Journal to which this run adds its results.  Photographs whose results are already in
            it, from an interrupted run, are not aligned again.  None: align all photographs and
            keep no journal.
        progress
            Function that is called with ("aligned", done, count) after each photograph.
        """
        names = output_names(self.paths)
        known = {} if journal is None else journal.rows
        rows: list[Row | None] = [
            self._known(known.get(path), path, name, out)
            for path, name in zip(self.paths, names, strict=True)
        ]
        waiting = [number for number, row in enumerate(rows) if row is None]

        def make_worker() -> Callable[[int], Row]:
            if journal is not None:
                journal.close()  # a worker that outlives a killed command must not keep the lock
            align = self._make_aligner(names, out)
            return lambda piece: align(waiting[piece])

        for piece, row in enumerate(self._results(processes, len(waiting), make_worker)):
            rows[waiting[piece]] = row
            if journal is not None:
                journal.add(row)
            progress("aligned", len(rows) - len(waiting) + piece + 1, len(rows))
        return [row for row in rows if row is not None]

    def _results(
        self, processes: int, count: int, make_worker: Callable[[], Callable[[int], Row]]
    ) -> Iterator[Row]:
        if count:
            with WorkerPool(min(processes, count), make_worker) as pool:
                yield from pool.map(range(count))

    def _known(self, row: Row | None, path: str, name: str, out: Path | None) -> Row | None:
        """Return the result of an earlier run if it is still valid, else None.

        The photograph must be unchanged.  If the result includes an aligned image, its file must
        exist.
        """
        if row is None or out is None or row["file"] != _state(self.folder / path):
            return None
        if row["status"] in WRITTEN and not (row["image"] == name and (out / name).is_file()):
            return None
        return row

    def _make_aligner(self, names: Sequence[str], out: Path | None) -> Callable[[int], Row]:
        """Return the function by which a worker process aligns the photograph ``paths[number]``."""
        aligner = self.plan.open_aligner(self.coding.image_size, DETECTOR_THREADS)
        warnings = DecoderWarnings().__enter__()  # active until the process ends

        def align(number: int) -> Row:
            path = self.folder / self.paths[number]
            row: Row = {"path": self.paths[number], "file": _state(path)}
            warnings.clear()
            photograph = read_photograph(path)
            damage = warnings.read_damage()
            if photograph.pixels is None or damage:
                reason = photograph.reason or f"is damaged, got {damage}"
                return {**row, "status": UNREADABLE, "reason": reason}
            found = aligner.align(self.paths[number], photograph.pixels)
            row |= _describe(found)
            if found.pixels is not None:
                row["image"] = names[number]
                if out is not None:
                    self._write(out / names[number], found.pixels)
            return row

        return align

    def _write(self, path: Path, pixels: np.ndarray) -> None:
        pixels = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
        jpeg = encode_jpeg(pixels, self.coding.quality, self.coding.sampling)
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as file:
            file.write(jpeg)


def _describe(found: Alignment) -> Row:
    points = None if found.points is None else np.round(found.points, 2).tolist()
    return {
        "status": found.status,
        "points": points,
        "faces": found.faces,
        "score": round(found.score, 4),
        "side_px": round(found.side_px, 1),
        "sharpness": round(found.sharpness, 1),
    }


def _state(path: Path) -> list[int]:
    """Return the size of a file and its modification time in ns, which identify its content."""
    try:
        state = os.stat(path)
    except OSError:
        return [0, 0]
    return [state.st_size, state.st_mtime_ns]
