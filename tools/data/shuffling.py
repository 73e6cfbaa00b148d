# SPDX-License-Identifier: Apache-2.0
"""Merge record sets into one record set in random order, for ``data.reader=window``.

The new set has all images with unchanged JPEG bytes.  It has no header and no identity records.

The functions read and write sequentially.  The first pass distributes the images to temporary
bucket files in the output folder; each bucket holds one part of the new order.  The second pass
reads one bucket after another and sorts its images in memory.  If all images fit into the memory
limit, there are no bucket files.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from atomic_write import rename_together
from pipeline.records.reader import RecordReader
from pipeline.records.writer import write_record_set
from tools.data import identity_names
from tools.data.identity_names import write_names
from tools.data.output_folder import make_output
from tools.data.record_sets import opened
from training.run_folder import write_classes

if TYPE_CHECKING:
    from pipeline.records.open import RecordSet

MIB = 1 << 20
MEMORY_MIB = 1024
_CHUNK_RECORDS = 1024


def shuffle(
    sources: Sequence[Path],
    out: Path,
    *,
    seed: int,
    labels: str = "stacked",
    memory_bytes: int = MEMORY_MIB * MIB,
    progress: Callable[[str, int, int], None] = lambda what, done, count: None,
) -> int:
    """Write the images of all record sets to one set in random order; return how many there are.

    Parameters
    ----------
    sources
        Folders with train.rec, or .rec files.
    out
        Output folder.
    seed
        Random seed of the new order.
    labels
        How to combine the labels of several sets, "stacked" or "shared", as in ``data.labels``.
    memory_bytes
        Bytes of memory for images.  A value below four times the size of the largest image is
        raised to this product.  The new order does not depend on this value.
    progress
        Function that is called with the name of the phase and the numbers of finished and of all
        images.

    Raises
    ------
    ValueError
        If an argument is out of range, or if the disk is too full.
    """
    if memory_bytes < 1:
        raise ValueError(f"--memory-mib: must be at least 1, got {memory_bytes // MIB}; raise it")
    with ExitStack() as at_end:
        opened_set = at_end.enter_context(opened(sources, labels))
        records = opened_set.records
        plan = _Plan(records, seed, memory_bytes)
        _check_space(out, plan)
        make_output(out)
        # The bucket files are on the disk of the new set.  Each file is removed as soon as its
        # images are in memory, so the bucket files and the new set together are never much larger
        # than the new set.
        scratch = Path(
            at_end.enter_context(tempfile.TemporaryDirectory(prefix=".shuffle-", dir=out))
        )
        new = scratch / "set"
        count = write_record_set(
            new,
            _shuffled(records, plan, scratch, progress),
            records.num_classes,
            records.image_size,
            header=False,
        )
        names = ["train.rec", "train.idx"]
        if opened_set.has_names:
            write_names(new / identity_names.FILE_NAME, opened_set.names)
            names.append(identity_names.FILE_NAME)
        if records.origins is not None:
            write_classes(new, records.files, records.origins)
            names.append("classes.json")
        names.append("property")
        rename_together([new / name for name in names], [out / name for name in names])
        return count


class _Plan:
    """Random order of the N images of the new set, and the division of this order into buckets.

    Attributes
    ----------
    order : (N,)
        Rows of the source index in the new order.
    file_order : (N,)
        Rows of the source index in the order of the files.
    bucket_bounds
        Bucket k holds the rows ``order[bucket_bounds[k] : bucket_bounds[k + 1]]``.
    load_bounds
        The first pass reads the images in loads that fit into the buffer.  Load k has the rows
        ``file_order[load_bounds[k] : load_bounds[k + 1]]``.
    bucket : (N,)
        Number of the bucket that holds each row.
    buffer_bytes
        Size of the buffer in bytes; every bucket and every load fits into the buffer.
    set_bytes
        Estimated size of the new set on disk in bytes.
    """

    def __init__(self, records: RecordSet, seed: int, memory_bytes: int):
        count, sizes = len(records), _record_bytes(records)
        self.order = np.random.default_rng(seed).permutation(count)
        file_order = records.file_order()
        self.file_order = np.arange(count) if file_order is None else file_order
        # All buckets but the last have equally many images.  Without the minimum of four times the
        # largest image, a single large image could reduce every bucket to one image.
        max_bytes = max(memory_bytes, 4 * int(sizes.max()))
        self.bucket_bounds = _equal_bounds(sizes[self.order], max_bytes)
        self.load_bounds = _bounds(sizes[self.file_order], max_bytes)
        self.bucket = np.empty(count, dtype=np.int32)
        self.bucket[self.order] = np.arange(count) // int(self.bucket_bounds[1])
        total = int(sizes.sum())
        self.buffer_bytes = min(max_bytes, total)
        self.set_bytes = total + count * (len(f"{count}{total}") + 2)  # .rec and .idx


def _record_bytes(records: RecordSet) -> np.ndarray:
    """Return an upper bound of the size of each record in bytes, (N,) for N records.

    The bound is the distance to the next record of the index.  If this distance is unusually large,
    as for the last image before the identity records, the bound is computed from the size of the
    JPEG.
    """
    found = np.empty(len(records), dtype=np.int64)
    for place, rec in enumerate(records.files):
        rows = np.flatnonzero(records.file == place)
        starts, which = np.unique(records.offsets[rows], return_inverse=True)
        found[rows] = np.diff(starts, append=rec.stat().st_size)[which]
    far = np.flatnonzero(found > 16 * np.median(found))
    for row, jpeg in zip(far.tolist(), RecordReader(records).read(far), strict=True):
        found[row] = min(int(found[row]), len(jpeg) + 64)
    return found


def _equal_bounds(sizes: np.ndarray, max_bytes: int) -> np.ndarray:
    """Divide n images into parts of r images; return the bounds 0, r, 2 r, ..., n.

    The function chooses r so that no part has more than ``max_bytes`` bytes.
    """
    count, largest = len(sizes), int(sizes.sum())
    rows = count
    while largest > max_bytes and rows > 1:
        rows = min(rows - 1, max(1, rows * max_bytes // largest))
        largest = int(np.add.reduceat(sizes, np.arange(0, count, rows)).max())
    return np.append(np.arange(0, count, rows), count)


def _bounds(sizes: np.ndarray, max_bytes: int) -> np.ndarray:
    """Divide n images into parts of at most ``max_bytes`` bytes; return the bounds 0, ..., n."""
    ends, bounds = np.cumsum(sizes), [0]
    while bounds[-1] < len(sizes):
        before = ends[bounds[-1] - 1] if bounds[-1] else 0
        bounds.append(int(np.searchsorted(ends, before + max_bytes, side="right")))
    return np.array(bounds)


def _check_space(out: Path, plan: _Plan) -> None:
    parent = next(folder for folder in (out, *out.absolute().parents) if folder.is_dir())
    free = shutil.disk_usage(parent).free
    if plan.set_bytes > free:
        raise ValueError(
            f"{out}: the shuffled set needs {-(-plan.set_bytes // MIB)} MiB of disk, got "
            f"{free // MIB} MiB free; free disk space or choose another OUT"
        )


def _shuffled(
    records: RecordSet, plan: _Plan, scratch: Path, progress: Callable[[str, int, int], None]
) -> Iterator[tuple[int, bytes]]:
    """Yield all images in the new order, as pairs (label, JPEG bytes)."""
    reader = _SequentialReader(records)
    count, buckets = len(plan.order), len(plan.bucket_bounds) - 1
    buffer = np.empty(plan.buffer_bytes, dtype=np.uint8)
    lengths = np.empty(count, dtype=np.int32)
    for a, b in pairwise(plan.load_bounds.tolist()):
        rows = plan.file_order[a:b]
        for done in reader.fill(buffer, lengths, rows):
            progress("read", a + done, count)
        if buckets > 1:
            _write_buckets(buffer, lengths[rows], plan.bucket[rows], scratch)
    offsets = np.empty(count, dtype=np.int64)
    in_buckets = plan.file_order[np.argsort(plan.bucket[plan.file_order], kind="stable")]
    for bucket, (a, b) in enumerate(pairwise(plan.bucket_bounds.tolist())):
        here = in_buckets[a:b]
        ends = np.cumsum(lengths[here])
        offsets[here] = ends - lengths[here]
        if buckets > 1:
            _read_bucket(scratch / str(bucket), buffer[: ends[-1]])
        for done, row in enumerate(plan.order[a:b].tolist()):
            if done % _CHUNK_RECORDS == 0:
                progress("written", a + done, count)
            start = offsets[row]
            yield int(records.labels[row]), buffer[start : start + lengths[row]].tobytes()


class _SequentialReader:
    """Reader of images in file order, which asks the kernel to prefetch many records at a time.

    Without these requests, reading the memory-mapped file would wait for the disk every few pages.
    """

    def __init__(self, records: RecordSet):
        self._records, self._reader = records, RecordReader(records)

    def fill(self, buffer: np.ndarray, lengths: np.ndarray, rows: np.ndarray) -> Iterator[int]:
        """Copy the JPEGs of these rows to the buffer, and their sizes in bytes to `lengths`.

        After each chunk of records, yields the number of rows that are finished so far.
        """
        end = 0
        starts = range(0, len(rows), _CHUNK_RECORDS)
        chunks = [rows[i : i + _CHUNK_RECORDS] for i in starts]
        self._read_ahead(chunks[0])
        for number, chunk in enumerate(chunks):
            if number + 1 < len(chunks):
                self._read_ahead(chunks[number + 1])
            for row, jpeg in zip(chunk.tolist(), self._reader.read(chunk), strict=True):
                buffer[end : end + len(jpeg)] = jpeg
                lengths[row] = len(jpeg)
                end += len(jpeg)
            yield min((number + 1) * _CHUNK_RECORDS, len(rows))

    def _read_ahead(self, rows: np.ndarray) -> None:
        """Ask the kernel to prefetch the part of each .rec file that holds these rows."""
        for place in np.unique(self._records.file[rows]).tolist():
            offsets = self._records.offsets[rows[self._records.file[rows] == place]]
            with open(self._records.files[place], "rb") as file:
                os.posix_fadvise(
                    file.fileno(),
                    int(offsets[0]),
                    int(offsets[-1] - offsets[0]) + 1,
                    os.POSIX_FADV_WILLNEED,
                )


def _write_buckets(
    buffer: np.ndarray, lengths: np.ndarray, buckets: np.ndarray, scratch: Path
) -> None:
    """Append each JPEG of the buffer to the file of its bucket.

    Only one file is open at a time, because there may be more buckets than files that a process may
    open.
    """
    starts = np.cumsum(lengths) - lengths
    here = np.argsort(buckets, kind="stable")
    for members in np.split(here, np.flatnonzero(np.diff(buckets[here])) + 1):
        with open(scratch / str(buckets[members[0]]), "ab", buffering=MIB) as file:
            parts = zip(starts[members].tolist(), lengths[members].tolist(), strict=True)
            for start, length in parts:
                file.write(buffer[start : start + length].data)


def _read_bucket(path: Path, buffer: np.ndarray) -> None:
    """Read a bucket file into a buffer of the same size, and delete the file to free disk space."""
    with open(path, "rb") as file:
        if file.readinto(buffer.data) != len(buffer) or file.read(1):
            raise OSError(
                f"{path}: the file must have {len(buffer)} bytes, got another size; run the tool "
                "again and do not change files in OUT while it runs"
            )
    path.unlink()
