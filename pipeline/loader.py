# SPDX-License-Identifier: Apache-2.0
"""Batches on the device: ``build_loader``.

Whatever the loader, batch t of a rank holds the same images, augmented alike, as float32 NCHW,
normalised, and every batch is a new NDArray: an array that some operator still reads can not be
overwritten.  The work runs in a thread beside the training step; decoding, copying and computing
leave Python's lock alone.
"""

from __future__ import annotations

import atexit
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import mxnet as mx
import numpy as np

from ops import guard, loader_kernels
from ops.feed import LoaderKernels
from pipeline.decode.cache import DecodedCache
from pipeline.decode.to_mxnet import labels_to
from pipeline.prefetch import Ahead
from pipeline.records import mapped
from pipeline.records.open import RecordSet
from pipeline.records.reader import RecordReader
from pipeline.sampling import permutations
from pipeline.sampling.augmentation import Augmentation, Choices
from pipeline.sampling.batches import Blocks, People, Plan, Share, epoch_images, planned
from pipeline.sampling.permutations import Position
from pipeline.sampling.window_reader import Scan

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
        Number of images that an epoch goes through: those of the set, or of groups of people.
    notice
        A sentence that the log should carry, empty if there is none.
    """

    def __init__(
        self,
        batches: Generator[Batch, None, None],
        images_per_epoch: int,
        prefetch: int,
        notice: str = "",
    ):
        self.images_per_epoch = images_per_epoch
        self.notice = notice
        self._ahead: Ahead[Batch | BaseException] = Ahead(prefetch)
        self._failure: BaseException | None = None
        self._thread = threading.Thread(
            target=self._work, args=(batches,), name="loader", daemon=True
        )
        self._thread.start()
        atexit.register(self.close)  # before DALI's own end, which aborts where it is still used

    def __iter__(self) -> Loader:
        return self

    def __next__(self) -> Batch:
        """Return the next batch.

        Raises
        ------
        RecordError
            If a picture of the batch is damaged; every later call raises it again.
        """
        if self._failure is None:
            item = self._ahead.take()
            if isinstance(item, Batch):
                return item
            self._failure = item
        raise self._failure

    def close(self) -> None:
        """Stop the thread; at most one batch is finished for nothing."""
        self._ahead.close()
        self._failure = StopIteration()
        self._thread.join()
        atexit.unregister(self.close)

    def _work(self, batches: Generator[Batch, None, None]) -> None:
        try:
            for batch in batches:
                if not self._ahead.put(batch):
                    break
            batches.close()
        except BaseException as error:
            self._ahead.put(error)


def build_loader(
    name: str,
    records: RecordSet | None,
    batch_size: int,
    position: Position = Position(),
    seed: int = 1,
    share: Share = Share(),
    ctx: mx.Context | None = None,
    reader: str = "random",
    decode: str | None = None,
    window: int = 16384,
    block: int = 128,
    images_per_person: int = 0,
    augmentation: Augmentation = Augmentation(),
    threads: int = 1,
    workers: int = 1,
    prefetch: int = 4,
    index_folder: str | Path = ".",
    cache: DecodedCache | None = None,
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
        "random": one true permutation per epoch; "blocks": ``block`` consecutive images stay
        together, and ``window`` images are mixed; "window": the order of DALI's sequential reader
        with a shuffle buffer of ``window`` images.
    images_per_person
        Batches are made of groups of so many images of one person, with the "random" reader; an
        epoch then shows every person once.  0 for none.
    decode
        Name in `pipeline.decode.dali.PATHS`; by default "native" where its
        compiled functions are in use, else "cpu".  All others need a GPU.
    augmentation
        What is done to the images.
    threads, workers, prefetch
        Decoder threads, worker processes (cpu loader), batches made ahead.
    index_folder
        Where the image-only index for DALI's window reader is written, where it reads.
    cache
        Where decoded pictures are kept, for the "dali" loader with the "random" or "blocks" reader;
        closed with the loader.
    num_classes, image_size
        Of the synthetic batch when there are no records.

    Raises
    ------
    ValueError
        If a name is unknown or the global batch is larger than an epoch.
    """
    ctx = ctx or mx.cpu()
    mapped.guard_with(guard())
    if name == "synthetic":
        return _synthetic(records, batch_size, position, seed, share, ctx, num_classes, image_size)
    if name not in LOADERS or records is None:
        raise ValueError(f"data.loader: must be one of {', '.join(LOADERS)}, got {name!r}")
    whole = share.global_batch_size(batch_size)
    images = epoch_images(records, batch_size, share.size, images_per_person)
    begin = permutations.settle(position, images, whole)
    notice = ""
    if name == "dali" and reader == "window":
        if len(records.files) > 1:
            raise ValueError(
                f"data.reader: 'window' reads one record set, got {len(records.files)}; make one "
                "of them with tools/shuffle_records.py, or use data.reader=random"
            )
        if cache is not None:
            raise ValueError("data.decoded_cache_mib: is not for data.reader=window, got a cache")
        if begin.consumed:
            notice = (
                f"window reader: epoch {begin.epoch} begins again, the "
                f"{begin.consumed} images already used of it are read twice"
            )
    blocks = Blocks(records, seed, block, window) if reader == "blocks" else None
    order_of: Callable[[int], np.ndarray] = partial(permutations.epoch_order, len(records), seed)
    if blocks:
        order_of = blocks.order
    elif images_per_person:
        order_of = People(records.labels, seed, images_per_person).order
    plans = planned(records, seed, position, batch_size, share, augmentation, order_of, images)
    if name == "dali":
        compiled = loader_kernels()
        decode = decode or ("native" if compiled else "cpu")
        if decode == "native" and not compiled:
            raise ValueError(
                "data.decode: 'native' needs the compiled operators, got none; use "
                "data.decode=cpu, or install g++ and leave run.operators at auto"
            )
        scan = Scan(records, seed, share, window) if reader == "window" else None
        batches = _dali_batches(
            *(records, plans, begin, blocks, scan, Path(index_folder), batch_size),
            *(decode, threads, ctx, augmentation, cache, compiled),
        )
    else:
        batches = _cpu_batches(records, plans, workers, ctx)
    return Loader(batches, images, prefetch, notice)


def _dali_batches(
    records: RecordSet,
    plans: Iterator[Plan],
    begin: Position,
    blocks: Blocks | None,
    scan: Scan | None,
    index_folder: Path,
    batch_size: int,
    decode: str,
    threads: int,
    ctx: mx.Context,
    augmentation: Augmentation,
    cache: DecodedCache | None,
    compiled: LoaderKernels | None,
) -> Generator[Batch, None, None]:
    from pipeline.decode.ways import images  # which brings DALI

    reader = RecordReader(records, compiled)
    finished = images(
        *(plans, begin, blocks, scan, index_folder, records, reader, batch_size),
        *(decode, threads, ctx, augmentation, cache, compiled),
    )

    def check_files() -> None:
        reader.check_files()
        if cache is not None:
            cache.check_file()

    watch = mapped.Watch([*reader.files, *([] if cache is None else [cache.pictures])])
    try:
        for image, plan in finished:
            batch = Batch(image, labels_to(records.labels[plan.rows], ctx), plan.after)
            if watch.is_due():
                check_files()  # it may be made of zeros
            yield batch
    except Exception:
        check_files()  # whatever zeros have led to
        raise
    finally:
        finished.close()


def _cpu_batches(
    records: RecordSet, plans: Iterator[Plan], workers: int, ctx: mx.Context
) -> Generator[Batch, None, None]:
    from pipeline.decode.dali import MEAN, STD
    from pipeline.gluon_loader import reference_batches

    asked: deque[Plan] = deque()

    def items() -> Iterator[tuple[np.ndarray, Choices]]:
        for plan in plans:
            asked.append(plan)
            yield plan.rows, plan.choices

    # Outside the generator below: the workers must be forked now, not when the first batch is due.
    arrays = reference_batches(records, items(), workers, MEAN, STD)

    def batches() -> Generator[Batch, None, None]:
        for image, label in arrays:
            yield Batch(image.as_in_context(ctx), label.as_in_context(ctx), asked.popleft().after)

    return batches()


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

    def batches(position: Position = position) -> Generator[Batch, None, None]:
        while True:
            position = permutations.advance(permutations.settle(position, images, whole), whole)
            yield Batch(image, label, position)

    return Loader(batches(), images, 2)
