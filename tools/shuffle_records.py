# SPDX-License-Identifier: Apache-2.0
"""Shuffle record sets on disk into one, for the window reader.

python tools/shuffle_records.py RECORDS [RECORDS ...] OUT [--seed N] [--labels shared]

OUT gets train.rec, train.idx and property with the same JPEG bytes in random order, without header
and identity records.  The labels of one set stay; those of several are stacked, or shared, as with
data.labels, and classes.json says which person each one is.  ``data.reader=window`` on it reads in
sequence and mixes well; what random access cannot do on slow disks.

Slow disks are spared here as well.  The first pass reads the sets in sequence and deals the
images into files beside OUT's, each for one stretch of the new order; the second reads these one
after the other, and puts each in order in memory.  Images that fit into ``--memory-mib`` together
are read once and dealt into no files.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path

import numpy as np

from launch.config.paths import home_path
from pipeline.records.open import RecordSet, open_records
from pipeline.records.reader import RecordReader
from pipeline.records.writer import write_record_set
from training.run_folder import write_classes

MIB = 1 << 20
_MEMORY_MIB = 1024
_CHUNK = 1024  # records asked for at a time
_EVERY_S = 0.2, 60.0  # between two words on the progress: on a terminal, elsewhere


def main() -> int:
    """Run the command line; return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "records", type=home_path, nargs="+", help="folders with train.rec, or .rec"
    )
    parser.add_argument("out", type=home_path, help="folder of the shuffled set")
    parser.add_argument("--seed", type=int, default=1, help="of the order (1)")
    parser.add_argument(
        "--labels", choices=("stacked", "shared"), default="stacked", help="of several sets"
    )
    parser.add_argument(
        "--memory-mib",
        type=int,
        default=_MEMORY_MIB,
        help=f"for images; the index of the sets is not counted ({_MEMORY_MIB})",
    )
    arguments = parser.parse_args()
    # Not at once, as Python does it: what lies in OUT half written is removed first.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    progress = _Progress()
    try:
        count = shuffle(
            arguments.records,
            arguments.out,
            seed=arguments.seed,
            labels=arguments.labels,
            memory_bytes=arguments.memory_mib * MIB,
            progress=progress,
        )
    except (ValueError, OSError) as error:
        progress.clear()
        print(f"shuffle_records: {error}", file=sys.stderr)
        return 2
    progress.clear()
    print(f"{arguments.out}: {count} images in random order")
    return 0


def shuffle(
    sources: Sequence[Path],
    out: Path,
    *,
    seed: int,
    labels: str = "stacked",
    memory_bytes: int = _MEMORY_MIB * MIB,
    progress: Callable[[str, int, int], None] = lambda what, done, count: None,
) -> int:
    """Write the images of ``sources`` to ``out`` in random order; return their number.

    Parameters
    ----------
    memory_bytes
        For images; that of four of the largest is taken in any case.  The order does not
        depend on it.
    progress
        Is called with what is done, on how many images it was, and of how many.
    """
    if memory_bytes < 1:
        raise ValueError(f"--memory-mib: must be at least 1, got {memory_bytes // MIB}; raise it")
    with ExitStack() as at_end:
        scan = at_end.enter_context(tempfile.TemporaryDirectory())
        records = open_records(sources, scan, labels=labels)
        for notice in records.notices:
            print(f"shuffle_records: {notice}", file=sys.stderr)
        if any(rec.parent.resolve() == out.resolve() for rec in records.files):
            raise ValueError(f"{out}: is the folder of the set itself; choose another one")
        out.mkdir(parents=True, exist_ok=True)
        # Beside the new set: what is dealt out is as large, and leaves as the set grows.
        scratch = at_end.enter_context(tempfile.TemporaryDirectory(prefix=".shuffle-", dir=out))
        plan = _Plan(records, seed, memory_bytes)
        _check_space(out, plan)

        def images() -> Iterator[tuple[int, bytes]]:
            yield from _shuffled(records, plan, Path(scratch), progress)
            # At the end: a shuffle that fails leaves nothing behind.
            (out / "classes.json").unlink(missing_ok=True)  # of a set that stood here before
            if records.origins is not None:
                write_classes(out, records.files, records.origins)

        return write_record_set(
            out, images(), records.num_classes, records.image_size, header=False
        )


class _Plan:
    """What is read, dealt out and put in order when.

    ``order`` (N,) are the rows in the new order, ``as_read`` (N,) the rows in the order of the
    files.  Bucket k holds the rows ``order[cuts[k] : cuts[k + 1]]``; load k of the first pass are
    the rows ``as_read[loads[k] : loads[k + 1]]``.  Each fits into ``buffer_bytes``.
    ``bucket`` (N,) is that of each row, ``set_bytes`` what the new set takes on disk.
    """

    def __init__(self, records: RecordSet, seed: int, memory_bytes: int):
        count, sizes = len(records), _record_bytes(records)
        self.order = np.random.default_rng(seed).permutation(count)
        as_read = records.file_order()
        self.as_read = np.arange(count) if as_read is None else as_read
        # With one image as large as that, all buckets would hold one.
        most = max(memory_bytes, 4 * int(sizes.max()))
        self.cuts = _equal_cuts(sizes[self.order], most)
        self.loads = _cuts(sizes[self.as_read], most)
        self.bucket = np.empty(count, dtype=np.int32)
        self.bucket[self.order] = np.arange(count) // int(self.cuts[1])
        total = int(sizes.sum())
        self.buffer_bytes = min(most, total)
        self.set_bytes = total + count * (len(f"{count}{total}") + 2)  # the .rec and the .idx


def _record_bytes(records: RecordSet) -> np.ndarray:
    """Return the bytes that each record takes in its file, (N,), or some more.

    What lies between a record and the next one of the index counts; where that is much, as before
    the identity records, the record is asked.
    """
    found = np.empty(len(records), dtype=np.int64)
    for place, rec in enumerate(records.files):
        rows = np.flatnonzero(records.file == place)
        begins, which = np.unique(records.offsets[rows], return_inverse=True)
        found[rows] = np.diff(begins, append=rec.stat().st_size)[which]
    much = np.flatnonzero(found > 16 * np.median(found))
    for row, jpeg in zip(much.tolist(), RecordReader(records).read(much), strict=True):
        found[row] = min(int(found[row]), len(jpeg) + 64)
    return found


def _equal_cuts(sizes: np.ndarray, most: int) -> np.ndarray:
    """Return 0, r, 2r, ... n with an r that has no stretch of sizes sum to more than ``most``."""
    count, largest = len(sizes), int(sizes.sum())
    rows = count
    while largest > most and rows > 1:
        rows = min(rows - 1, max(1, rows * most // largest))
        largest = int(np.add.reduceat(sizes, np.arange(0, count, rows)).max())
    return np.append(np.arange(0, count, rows), count)


def _cuts(sizes: np.ndarray, most: int) -> np.ndarray:
    """Return 0 ... n, so that no stretch of sizes sums to more than ``most``."""
    ends, cuts = np.cumsum(sizes), [0]
    while cuts[-1] < len(sizes):
        before = ends[cuts[-1] - 1] if cuts[-1] else 0
        cuts.append(int(np.searchsorted(ends, before + most, side="right")))
    return np.array(cuts)


def _check_space(out: Path, plan: _Plan) -> None:
    free = shutil.disk_usage(out).free
    if plan.set_bytes > free:
        raise ValueError(
            f"{out}: the shuffled set needs {-(-plan.set_bytes // MIB)} MiB of disk, got "
            f"{free // MIB} MiB free; make room or choose another OUT"
        )


def _shuffled(
    records: RecordSet, plan: _Plan, scratch: Path, progress: Callable[[str, int, int], None]
) -> Iterator[tuple[int, bytes]]:
    """Yield label and JPEG of all rows in the new order."""
    reader = _SequentialReader(records)
    count, buckets = len(plan.order), len(plan.cuts) - 1
    buffer = np.empty(plan.buffer_bytes, dtype=np.uint8)
    lengths = np.empty(count, dtype=np.int32)  # of the JPEGs, by row
    for a, b in pairwise(plan.loads.tolist()):
        rows = plan.as_read[a:b]
        for done in reader.fill(buffer, lengths, rows):
            progress("read", a + done, count)
        if buckets > 1:
            _deal(buffer, lengths[rows], plan.bucket[rows], scratch)
    places = np.empty(count, dtype=np.int64)  # in its bucket, of each row's JPEG
    in_buckets = plan.as_read[np.argsort(plan.bucket[plan.as_read], kind="stable")]
    for bucket, (a, b) in enumerate(pairwise(plan.cuts.tolist())):
        here = in_buckets[a:b]
        ends = np.cumsum(lengths[here])
        places[here] = ends - lengths[here]
        if buckets > 1:
            _take_back(scratch / str(bucket), buffer[: ends[-1]])
        for done, row in enumerate(plan.order[a:b].tolist()):
            if done % _CHUNK == 0:
                progress("written", a + done, count)
            begin = places[row]
            yield int(records.labels[row]), buffer[begin : begin + lengths[row]].tobytes()


class _SequentialReader:
    """Reads images in the order of the files, and has the disk asked ahead in large pieces.

    A memory map alone waits for it every few pages.
    """

    def __init__(self, records: RecordSet):
        self._records, self._reader = records, RecordReader(records)

    def fill(self, buffer: np.ndarray, lengths: np.ndarray, rows: np.ndarray) -> Iterator[int]:
        """Put the JPEGs of rows into the buffer one after the other, and their lengths by row.

        Yields how many rows are done.
        """
        end = 0
        chunks = [rows[i : i + _CHUNK] for i in range(0, len(rows), _CHUNK)]
        self._read_ahead(chunks[0])
        for number, chunk in enumerate(chunks):
            if number + 1 < len(chunks):
                self._read_ahead(chunks[number + 1])
            for row, jpeg in zip(chunk.tolist(), self._reader.read(chunk), strict=True):
                buffer[end : end + len(jpeg)] = jpeg
                lengths[row] = len(jpeg)
                end += len(jpeg)
            yield min((number + 1) * _CHUNK, len(rows))

    def _read_ahead(self, rows: np.ndarray) -> None:
        """Ask for the records from the first to the last of some rows of one file, or of two."""
        for place in np.unique(self._records.file[rows]).tolist():
            offsets = self._records.offsets[rows[self._records.file[rows] == place]]
            with open(self._records.files[place], "rb") as file:
                os.posix_fadvise(
                    file.fileno(),
                    int(offsets[0]),
                    int(offsets[-1] - offsets[0]) + 1,
                    os.POSIX_FADV_WILLNEED,
                )


def _deal(buffer: np.ndarray, lengths: np.ndarray, buckets: np.ndarray, scratch: Path) -> None:
    """Append the JPEGs of the buffer to the files of their buckets, in the order they have there.

    A file is open for one load only: there may be more of them than a process can hold open.
    """
    begins = np.cumsum(lengths) - lengths
    here = np.argsort(buckets, kind="stable")
    for some in np.split(here, np.flatnonzero(np.diff(buckets[here])) + 1):
        with open(scratch / str(buckets[some[0]]), "ab", buffering=MIB) as file:
            for begin, length in zip(begins[some].tolist(), lengths[some].tolist(), strict=True):
                file.write(buffer[begin : begin + length])


def _take_back(path: Path, buffer: np.ndarray) -> None:
    """Read a bucket's file, as long as the buffer, and remove it: the new set needs its place."""
    with open(path, "rb") as file:
        if file.readinto(buffer) != len(buffer) or file.read(1):
            raise OSError(f"{path}: has changed while sets are shuffled; start again")
    path.unlink()


class _Progress:
    """Says on standard error how far it is: in one line on a terminal, once a minute elsewhere."""

    def __init__(self) -> None:
        self._terminal = sys.stderr.isatty()
        self._said = time.monotonic()

    def __call__(self, what: str, done: int, count: int) -> None:
        now = time.monotonic()
        if now - self._said < _EVERY_S[not self._terminal]:
            return
        self._said = now
        self.clear()
        end = "" if self._terminal else "\n"
        print(f"{what} {done:,} of {count:,} images", end=end, file=sys.stderr, flush=True)

    def clear(self) -> None:
        """Leave an empty line."""
        if self._terminal:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
