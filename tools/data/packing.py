# SPDX-License-Identifier: Apache-2.0
"""Pack images into a record set: several processes make the JPEGs, and one process writes them.

The worker processes also make the records, but without keys and labels.  Keys and labels depend on
the number of unusable files in all earlier pieces, so the writing process adds the keys and labels.
"""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from evaluation.image_files import MAX_FILE_BYTES
from tools.data.decoder_warnings import DecoderWarnings
from tools.data.folder_alignment import DETECTOR_THREADS
from tools.data.image_fitting import FittedImage, UnfitImageError, fit_image
from tools.data.pack_plan import HELD, TRAIN, PackPlan
from tools.data.photograph_fitting import PhotographFitter
from tools.data.record_blocks import RecordBlock, frame_images
from tools.data.unfinished_records import Journal, Piece, UnfinishedRecords, find_runs
from tools.data.worker_pool import WorkerPool

STATE_FOLDER = ".unfinished-pack"


class FittedPiece(NamedTuple):
    """Images of a piece, as a worker process returns them."""

    block: RecordBlock
    """Records of the usable images, without keys and labels."""
    changes: dict[str, int]
    """Number of images by what was done to them."""
    rejected: list[tuple[int, str]]
    """Pairs (place in the piece, reason) of the unusable files."""


class PackResult(NamedTuple):
    """Result of packing: the images of each part, TRAIN and HELD, and what was done to them."""

    images: dict[str, dict[int, int]]
    """For TRAIN and HELD, the number of images of each identity, in the order of the labels."""
    bytes: int
    """Size of the records of TRAIN in bytes."""
    changes: Counter[str]
    """Number of images by what was done to them."""
    rejected: list[tuple[str, str]]
    """Pairs (path, reason) of the unusable files."""


class Packing:
    """Packing of one record set, which a later process can resume from the state folder.

    Parameters
    ----------
    plan
        Images, options and pieces of the work.
    state
        Folder of the unfinished files; created if missing.  None: write nothing.
    """

    def __init__(self, plan: PackPlan, state: Path | None):
        self._plan = plan
        self._journal: Journal | None = None
        self._parts: dict[str, UnfinishedRecords] = {}
        self.is_finished = False
        self._done: list[Piece] = []
        if state is not None:
            state.mkdir(exist_ok=True)
            self._journal = Journal(state / "journal.jsonl", plan.digest)
            self.is_finished = self._journal.is_finished
            self._done = self._journal.pieces()
            if not self.is_finished:
                self._restore(state)
        self._resumed = len(self._done)

    def _restore(self, state: Path) -> None:
        assert self._journal is not None
        names = {name for name, _, _ in self._plan.pieces}
        self._parts = {name: UnfinishedRecords(state, name) for name in sorted(names)}
        intact = 0
        for piece in self._done:
            if not self._parts[piece.part].restore(piece):
                break
            intact += 1
        for part in self._parts.values():
            part.cut()
        self._done = self._done[:intact]
        self._journal.keep(intact)

    def run(self, processes: int, progress: Callable[[str, int, int], None]) -> None:
        """Make the JPEGs of the remaining images, and write the JPEGs."""
        pieces = self._plan.pieces
        remaining = range(len(self._done), len(pieces))
        if self.is_finished or not remaining:
            return
        with WorkerPool(min(processes, len(remaining)), self._make_worker) as pool:
            for number, fitted in zip(remaining, pool.map(remaining), strict=True):
                self._done.append(self._write(number, fitted))
                progress("packed", pieces[number][2], len(self._plan.order))

    def _make_worker(self) -> Callable[[int], FittedPiece]:
        self.close()  # a worker that outlives this process must not hold the lock of the journal
        return _make_worker(self._plan)

    def _write(self, number: int, fitted: FittedPiece) -> Piece:
        name, start, stop = self._plan.pieces[number]
        rows = self._plan.order[start:stop]
        places = [place for place, _ in fitted.rejected]
        identities = np.delete(self._plan.sources.identities[rows], places)
        rejected = [(int(rows[place]), reason) for place, reason in fitted.rejected]
        if self._journal is None:
            runs, size = find_runs(identities), fitted.block.data.nbytes
            return Piece(name, size, 0, 0, runs, fitted.changes, rejected)
        piece = self._parts[name].append(identities, fitted.block, fitted.changes, rejected)
        self._journal.add(piece)
        return piece

    @property
    def resumed_images(self) -> int:
        """Number of images that an earlier process has packed."""
        return self._plan.pieces[self._resumed - 1][2] if self._resumed else 0

    def result(self) -> PackResult:
        """Add up the results of all pieces."""
        paths = self._plan.sources.paths
        images: dict[str, Counter[int]] = {TRAIN: Counter(), HELD: Counter()}
        changes: Counter[str] = Counter()
        rejected = list(self._plan.sources.rejected)
        sizes: dict[str, int] = {}
        for piece in self._done:
            for identity, count in piece.runs:
                images[piece.part][identity] += count
            changes.update(piece.changes)
            rejected += [(paths[row], reason) for row, reason in piece.rejected]
            added = 0 if self._journal else sizes.get(piece.part, 0)
            sizes[piece.part] = added + piece.rec_bytes
        return PackResult(dict(images), sizes.get(TRAIN, 0), changes, rejected)

    def finish_records(self) -> None:
        """Complete the .rec and .idx files, and flush them to the disk."""
        for part in self._parts.values():
            part.finish()

    def note_finished(self) -> None:
        """Note in the journal that every file is complete; then only renaming remains."""
        assert self._journal is not None
        self._journal.finish()
        self.is_finished = True

    def close(self) -> None:
        """Close all files."""
        for part in self._parts.values():
            part.close()
        if self._journal is not None:
            self._journal.close()


def _make_worker(plan: PackPlan) -> Callable[[int], FittedPiece]:
    """Return the function with which a worker process makes the records of one piece."""
    warnings = DecoderWarnings().__enter__()  # active until the process ends
    sources, wanted, root = plan.sources, plan.options.format, os.fspath(plan.sources.root)
    photographs = None
    if sources.unaligned is not None:
        aligner = plan.alignment.plan.open_aligner((wanted.height, wanted.width), DETECTOR_THREADS)
        photographs = PhotographFitter(aligner, wanted, warnings)

    def fit(row: int) -> FittedImage:
        path = sources.paths[row]
        data = read_file(os.path.join(root, path))
        if photographs is not None and sources.unaligned is not None and sources.unaligned[row]:
            return photographs.fit(data, path, sources.points_of(row))
        return fit_image(data, wanted, warnings)

    def fit_piece(number: int) -> FittedPiece:
        _, start, stop = plan.pieces[number]
        jpegs: list[bytes] = []
        changes: list[str] = []
        rejected: list[tuple[int, str]] = []
        for place, row in enumerate(plan.order[start:stop].tolist()):
            try:
                jpeg, change = fit(row)
                jpegs.append(jpeg)
                changes.append(change)
            except OSError as error:
                rejected.append((place, f"cannot be read, got {error.strerror}"))
            except UnfitImageError as error:
                rejected.append((place, str(error)))
        return FittedPiece(frame_images(jpegs), dict(Counter(changes)), rejected)

    return fit_piece


def read_file(path: str) -> bytes:
    """Read a regular file of at most MAX_FILE_BYTES bytes; never wait for a pipe or a device.

    Raises
    ------
    OSError, UnfitImageError
        If the file cannot be read, is empty or too long, or is not a regular file.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    try:
        state = os.fstat(descriptor)
        if not stat.S_ISREG(state.st_mode):
            raise UnfitImageError("is not a regular file, got a special file")
        size = state.st_size
        if size > MAX_FILE_BYTES:
            raise UnfitImageError(f"is longer than {MAX_FILE_BYTES} bytes, got {size}")
        if not size:
            raise UnfitImageError("is empty, got 0 bytes")
        data = os.read(descriptor, size)
        while len(data) < size:
            more = os.read(descriptor, size - len(data))
            if not more:
                raise UnfitImageError(f"became shorter while it was read, got {len(data)} bytes")
            data += more
        return data
    finally:
        os.close(descriptor)
