# SPDX-License-Identifier: Apache-2.0
"""Batches on the device: ``build_loader`` and the one function that hands over to MXNet.

Whatever the loader, batch t of a rank holds the same images, augmented alike, as float32 NCHW,
normalised, and every batch is a new NDArray: an array that some operator still reads can not be
overwritten.  The work runs in a thread beside the training step; decoding, copying and computing
leave Python's lock alone.
"""

from __future__ import annotations

import ctypes
import queue
import threading
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import mxnet as mx
import numpy as np

from pipeline import sampling
from pipeline.augmentation import Augmentation, Choices
from pipeline.plans import Plan, Share, random_plans, window_plans
from pipeline.record_reader import RecordReader
from pipeline.records import RecordError, RecordSet
from pipeline.sampling import Position

LOADERS = ("dali", "cpu", "synthetic")
SYNTHETIC_STEPS = 1000  # steps that an epoch of the synthetic loader lasts without records


class Batch(NamedTuple):
    """One batch of one rank."""

    image: mx.nd.NDArray
    """(B, 3, H, W) float32 on the device."""
    label: mx.nd.NDArray
    """(B,) float32, integers; exact up to 2**24 people."""
    after: Position
    """Where the data goes on after this batch."""


class Loader:
    """Iterate over batches without end; made by ``build_loader``.

    Parameters
    ----------
    batches
        Iterator over Batch; runs in a thread of its own.
    images_per_epoch
        Number of images N of the set.
    notice
        A sentence that the log should carry, empty if there is none.
    """

    def __init__(
        self, batches: Iterator[Batch], images_per_epoch: int, prefetch: int, notice: str = ""
    ):
        self.images_per_epoch = images_per_epoch
        self.notice = notice
        self._queue: queue.Queue[Batch | BaseException] = queue.Queue(maxsize=max(1, prefetch - 1))
        self._stop = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(
            target=self._work, args=(batches,), name="loader", daemon=True
        )
        self._thread.start()

    def __iter__(self) -> Loader:
        return self

    def __next__(self) -> Batch:
        """Return the next batch.

        Raises
        ------
        RecordError
            If a picture of the batch is damaged; every later call raises it again.
        """
        if self._stop.is_set():
            raise StopIteration  # closed
        if self._failure is None:
            item = self._queue.get()
            if isinstance(item, Batch):
                return item
            self._failure = item
        raise self._failure

    def close(self) -> None:
        """Stop the thread; at most one batch is finished for nothing."""
        self._stop.set()
        while self._thread.is_alive():
            try:
                self._queue.get(timeout=0.05)
            except queue.Empty:
                continue

    def _work(self, batches: Iterator[Batch]) -> None:
        try:
            for batch in batches:
                self._put(batch)
                if self._stop.is_set():
                    return
        except BaseException as error:
            self._put(error)

    def _put(self, item: Batch | BaseException) -> None:
        while not self._stop.is_set():
            try:
                self._queue.put(item, timeout=0.1)
                return
            except queue.Full:
                continue


def build_loader(
    name: str,
    records: RecordSet | None,
    batch_size: int,
    position: Position = Position(),
    seed: int = 1,
    share: Share = Share(),
    ctx: mx.Context | None = None,
    reader: str = "random",
    decode: str = "cpu",
    window: int = 16384,
    augmentation: Augmentation = Augmentation(),
    threads: int = 1,
    workers: int = 1,
    prefetch: int = 2,
    index_folder: str | Path = ".",
    num_classes: int = 0,
    image_size: tuple[int, int] = (112, 112),
) -> Loader:
    """Return a loader of one rank's batches from a position on.

    Parameters
    ----------
    name
        "dali", "cpu" (Gluon DataLoader) or "synthetic" (one fixed batch).
    records
        The set; None for synthetic batches only.
    batch_size
        Images per batch B of this rank.
    position
        Where to begin; the window reader begins at the start of that epoch.
    share
        Which rank of how many this is.
    ctx
        Device of the batches; the CPU by default.
    reader
        "random": one true permutation per epoch; "window": DALI's sequential reader with a
        shuffle buffer of ``window`` images.
    decode
        "cpu" or "mixed" (GPU).
    augmentation
        What is done to the images.
    threads, workers, prefetch
        Decoder threads, worker processes (cpu loader), batches made ahead.
    index_folder
        Where the window reader's image-only index is written.
    num_classes, image_size
        Of the synthetic batch when there are no records.

    Raises
    ------
    ValueError
        If a name is unknown or the global batch is larger than the set.
    """
    ctx = ctx or mx.cpu()
    if name == "synthetic":
        return _synthetic(records, batch_size, position, seed, share, ctx, num_classes, image_size)
    if name not in LOADERS or records is None:
        raise ValueError(f"data.loader: must be one of {', '.join(LOADERS)}, got {name!r}")
    whole = share.global_batch_size(batch_size)
    if whole > len(records):
        raise ValueError(
            f"data.batch_size: {batch_size} x {share.size} ranks needs {whole} images per step, "
            f"got {len(records)} in {records.name}; lower data.batch_size or add data"
        )
    notice = ""
    if name == "dali" and reader == "window":
        if len(records.files) > 1:
            raise ValueError(
                f"data.reader: 'window' reads one record set, got {len(records.files)}; make one "
                "of them with tools/shuffle_records.py, or use data.reader=random"
            )
        if position.consumed:
            notice = (
                f"window reader: epoch {position.epoch} begins again, the "
                f"{position.consumed} images already used of it are read twice"
            )
        plans = window_plans(
            records,
            seed,
            position.epoch,
            batch_size,
            share,
            window,
            Path(index_folder),
            augmentation,
        )
    else:
        plans = random_plans(records, seed, position, batch_size, share, augmentation)
    if name == "dali":
        device_id = ctx.device_id if ctx.device_type == "gpu" else None
        batches = _dali_batches(
            records, plans, batch_size, decode, threads, prefetch, device_id, ctx, augmentation
        )
    else:
        batches = _cpu_batches(records, plans, workers, ctx)
    return Loader(batches, len(records), prefetch, notice)


def hand_over(tensor: Any, ctx: mx.Context) -> mx.nd.NDArray:
    """Copy a dense DALI tensor (CPU or GPU) to a new NDArray of the same shape, float32."""
    array = mx.nd.empty(tuple(tensor.shape()), ctx=ctx)
    if hasattr(tensor, "copy_to_host"):  # a GPU tensor, in the memory of the same GPU
        pointer = ctypes.c_void_p()
        mx.base.check_call(mx.base._LIB.MXNDArrayGetData(array.handle, ctypes.byref(pointer)))
        # Blocking: MXNet does not know the stream that DALI would copy on.
        tensor.copy_to_external(pointer, non_blocking=False)
        return array
    source = ctypes.c_void_p(tensor.data_ptr())
    # Sync: returns when the copy is done; Python's lock is released meanwhile.
    mx.base.check_call(
        mx.base._LIB.MXNDArraySyncCopyFromCPU(array.handle, source, ctypes.c_size_t(array.size))
    )
    return array


def _dali_batches(
    records: RecordSet,
    plans: Iterator[Plan],
    batch_size: int,
    decode: str,
    threads: int,
    depth: int,
    device_id: int | None,
    ctx: mx.Context,
    augmentation: Augmentation,
) -> Iterator[Batch]:
    from pipeline.dali import DecodeGraph

    graph = DecodeGraph(batch_size, decode, threads, depth, device_id, augmentation)
    reader = RecordReader(records)
    under_way: deque[Plan] = deque()
    for plan in plans:
        jpegs = reader.read(plan.rows) if plan.jpegs is None else plan.jpegs
        graph.feed(jpegs, plan.choices)
        under_way.append(plan)
        if len(under_way) < depth:
            continue
        try:
            images = graph.take()
        except RuntimeError as error:
            raise _faulty(records, reader, list(under_way)) or error from None
        if not images.is_dense_tensor() or tuple(images.as_tensor().shape()[2:]) != tuple(
            records.image_size
        ):
            raise _faulty(records, reader, list(under_way)) or RecordError(
                f"{records.name}: holds pictures of several sizes, got a batch that is not all "
                f"{records.image_size}"
            )
        image = hand_over(images.as_tensor(), ctx)
        graph.release()
        plan = under_way.popleft()
        yield Batch(image, _labels(records, plan.rows, ctx), plan.after)


def _faulty(records: RecordSet, reader: RecordReader, plans: list[Plan]) -> RecordError | None:
    """Return the error that names the first damaged picture of some batches."""
    from pipeline.dali import find_faulty

    rows = np.concatenate([plan.rows for plan in plans])
    found = find_faulty(reader.read(rows), records.image_size)
    if found is None:
        return None
    place, what = found
    return RecordError(
        f"{records.picture(rows[place])} {what}; mend the record or leave its key out of the .idx"
    )


def _cpu_batches(
    records: RecordSet, plans: Iterator[Plan], workers: int, ctx: mx.Context
) -> Iterator[Batch]:
    from pipeline.dali import MEAN, STD
    from pipeline.reference import reference_batches

    asked: deque[Plan] = deque()

    def items() -> Iterator[tuple[np.ndarray, Choices]]:
        for plan in plans:
            asked.append(plan)
            yield plan.rows, plan.choices

    # Outside the generator below: the workers must be forked now, not when the first batch is due.
    arrays = reference_batches(records, items(), workers, MEAN, STD)

    def batches() -> Iterator[Batch]:
        for image, label in arrays:
            yield Batch(image.as_in_context(ctx), label.as_in_context(ctx), asked.popleft().after)

    return batches()


def _labels(records: RecordSet, rows: np.ndarray, ctx: mx.Context) -> mx.nd.NDArray:
    return mx.nd.array(records.labels[rows], ctx=ctx, dtype="float32")


def _synthetic(
    records: RecordSet | None,
    batch_size: int,
    position: Position,
    seed: int,
    share: Share,
    ctx: mx.Context,
    num_classes: int,
    image_size: tuple[int, int],
) -> Loader:
    from pipeline.synthetic import synthetic_batch

    whole = share.global_batch_size(batch_size)
    images = SYNTHETIC_STEPS * whole
    if records is not None:
        num_classes, image_size = records.num_classes, records.image_size
        images = max(len(records), whole)
    image, label = (
        mx.nd.array(a, ctx=ctx)
        for a in synthetic_batch(batch_size, num_classes, image_size, seed + share.rank)
    )

    def batches(position: Position = position) -> Iterator[Batch]:
        while True:
            position = sampling.advance(sampling.settle(position, images, whole), whole)
            yield Batch(image, label, position)

    return Loader(batches(), images, 2)
