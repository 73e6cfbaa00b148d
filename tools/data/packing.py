# SPDX-License-Identifier: Apache-2.0
"""Pack images into a record set: several processes fit the images, and one process writes them.

The worker processes also frame the records.  Keys and labels depend on the unusable files of all
earlier pieces, so the writing process fills them in.

The pieces of the work, and with them the bytes of the set, depend on the images and the options
alone, not on the number of processes.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from evaluation.image_files import MAX_FILE_BYTES
from pipeline.records.writer import MAX_KEYS
from tools.data.decoder_warnings import DecoderWarnings
from tools.data.image_fitting import ImageFormat, UnfitImageError, fit_image
from tools.data.record_blocks import RecordBlock, frame_images
from tools.data.unfinished_records import Journal, Piece, UnfinishedRecords, find_runs
from tools.data.worker_pool import WorkerPool

if TYPE_CHECKING:
    from tools.data.image_sources import ImageSources

TRAIN, HELD = "train", "held"
STATE_FOLDER = ".unfinished-pack"
_PIECE_IMAGES, _PIECE_BYTES = 512, 8 << 20
_PLAN_VERSION = 1
_SEED = 1


class PackOptions(NamedTuple):
    """Options that decide the bytes of the set."""

    format: ImageFormat
    val_people: int = 0
    """Number of identities that are held out."""
    val_pairs: int = 1000
    """Number of verification pairs of the held-out identities."""


class PackPlan(NamedTuple):
    """Images of a pack, and the pieces into which the work is divided."""

    sources: ImageSources
    options: PackOptions
    order: np.ndarray
    """Index of each image in ``sources``, in the order of packing, int64 (N,)."""
    pieces: list[tuple[str, int, int]]
    """Part (TRAIN or HELD) of each piece, and the bounds of its rows in ``order``."""
    held: list[int]
    """Held-out identities, ascending."""
    digest: str
    """Text that identifies the images and the options."""


class FittedPiece(NamedTuple):
    """Images of a piece, as a worker process returns them."""

    block: RecordBlock
    """Records of the usable images, without keys and labels."""
    changes: dict[str, int]
    """Number of images by what was done to them."""
    rejected: list[tuple[int, str]]
    """Pairs (place in the piece, reason) of the unusable files."""


class PackResult(NamedTuple):
    """Result of a pack: the images of each part, and what was done to the images."""

    images: dict[str, dict[int, int]]
    """Number of images of each identity, in the order of the labels, for TRAIN and HELD."""
    bytes: int
    """Size of the records of TRAIN in bytes."""
    changes: Counter[str]
    """Number of images by what was done to them."""
    rejected: list[tuple[str, str]]
    """Pairs (path, reason)."""


def make_plan(sources: ImageSources, options: PackOptions) -> PackPlan:
    """Choose the held-out identities, and divide the work into pieces.

    Raises
    ------
    ValueError
        If there are too few identities to hold out, or too many images for one set.
    """
    if len(sources) + len(sources.names) >= MAX_KEYS:
        raise ValueError(
            f"{sources.root}: a record set holds at most {MAX_KEYS} images and identities, got "
            f"{len(sources)} images of {len(sources.names)} identities; pack several sets and list "
            "them in data.records"
        )
    held = choose_held(sources.identities, options.val_people)
    is_held = np.isin(sources.identities, held)
    order = np.concatenate([np.flatnonzero(~is_held), np.flatnonzero(is_held)])
    parts = ((TRAIN, 0, int((~is_held).sum())), (HELD, int((~is_held).sum()), len(order)))
    pieces = [
        (name, a, b)
        for name, start, end in parts
        for a, b in divide(sources.sizes[order[start:end]], start)
    ]
    return PackPlan(sources, options, order, pieces, held.tolist(), _digest(sources, options))


def choose_held(identities: np.ndarray, count: int) -> np.ndarray:
    """Choose ``count`` identities with at least two images at random; return them, ascending."""
    people, images = np.unique(identities, return_counts=True)
    several = people[images > 1]
    if count and (count < 2 or count > len(several) or count >= len(people)):
        raise ValueError(
            f"--val-people: must be at least 2, at most the number of identities with several "
            f"images ({len(several)}) and less than the number of all identities ({len(people)}), "
            f"got {count}; choose another number"
        )
    return np.sort(np.random.default_rng(_SEED).permutation(several)[:count])


def divide(sizes: np.ndarray, first: int) -> list[tuple[int, int]]:
    """Divide images into pieces of limited number and size; return the bounds of their rows.

    ``sizes`` are the sizes of the files in bytes, int64 (n,), and ``first`` is the row of the first
    file.
    """
    ends, bounds, start = np.cumsum(sizes), [], 0
    while start < len(sizes):
        before = int(ends[start - 1]) if start else 0
        stop = int(np.searchsorted(ends, before + _PIECE_BYTES, side="right"))
        stop = min(max(stop, start + 1), start + _PIECE_IMAGES)
        bounds.append((first + start, first + stop))
        start = stop
    return bounds


def _digest(sources: ImageSources, options: PackOptions) -> str:
    digest = hashlib.sha256(repr((_PLAN_VERSION, options)).encode())
    digest.update(json.dumps([sources.names, sources.rejected]).encode())
    for path in sources.paths:
        digest.update(os.fsencode(path) + b"\0")
    for column in (sources.identities, sources.sizes, sources.mtimes_ns):
        digest.update(column.astype("<i8").tobytes())
    return digest.hexdigest()[:32]


class Packing:
    """Work of one pack in a state folder, which a later process can resume.

    Parameters
    ----------
    plan
        Pieces of the work.
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
        """Fit and write the remaining images."""
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
    """Return the function of a worker process that fits and frames the images of one piece."""
    warnings = DecoderWarnings().__enter__()  # active until the process ends
    sources, wanted, root = plan.sources, plan.options.format, os.fspath(plan.sources.root)

    def fit_piece(number: int) -> FittedPiece:
        _, start, stop = plan.pieces[number]
        jpegs: list[bytes] = []
        changes: list[str] = []
        rejected: list[tuple[int, str]] = []
        for place, row in enumerate(plan.order[start:stop].tolist()):
            try:
                data = read_file(os.path.join(root, sources.paths[row]))
                jpeg, change = fit_image(data, wanted, warnings)
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
