# SPDX-License-Identifier: Apache-2.0
"""Batches on the device: ``build_loader``.

Whatever the loader, batch t of a rank holds the same images, augmented alike, as float32 NCHW,
normalised, and every batch is a new NDArray: an array that some operator still reads cannot be
overwritten.  The work runs in a thread beside the training step; decoding, copying and computing
release Python's lock.
"""

from __future__ import annotations

import atexit
import threading
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import mxnet as mx

from ops import guard, loader_kernels
from pipeline.decode.decoders import Decoder, make_decoder
from pipeline.decode.to_mxnet import labels_to_ndarray
from pipeline.gluon_loader import GluonDecoder
from pipeline.prefetch import PrefetchQueue
from pipeline.records import RecordSet, mapped
from pipeline.sampling import epoch_orders
from pipeline.sampling.augmentation import Augmentation
from pipeline.sampling.batches import BatchPlan, Share, batch_plans
from pipeline.sampling.epoch_orders import Position
from pipeline.sampling.samplers import make_sampler
from pipeline.sampling.window_order import window_order
from pipeline.synthetic import synthetic_batch

if TYPE_CHECKING:
    import numpy as np

    from pipeline.decode.cache import DecodedCache

LOADERS = ("dali", "cpu", "synthetic")
SYNTHETIC_STEPS = 1000
"""Steps in an epoch of the synthetic loader without records."""


class Batch(NamedTuple):
    """One batch of one rank."""

    image: mx.nd.NDArray
    """(B, 3, H, W) float32 on the device."""
    label: mx.nd.NDArray
    """(B,) float32, integers; exact up to 2**24 people."""
    after: Position
    """Where the data resumes after this batch."""


class Loader:
    """Iterator over batches without end, which are made in a thread; see ``build_loader``.

    ``notice`` is a sentence for the log, empty if there is none.
    """

    def __init__(
        self,
        batches: Generator[Batch, None, None],
        images_per_epoch: int,
        prefetch: int,
        notice: str = "",
    ):
        self.images_per_epoch, self.notice = images_per_epoch, notice
        self._queue = PrefetchQueue[Batch | BaseException](prefetch)
        self._failure: BaseException | None = None
        self._thread = threading.Thread(
            target=self._work, args=(batches,), name="loader", daemon=True
        )
        self._thread.start()
        atexit.register(self.close)  # before DALI's own end, which aborts where it is still used

    def __iter__(self) -> Loader:
        return self

    def __next__(self) -> Batch:
        """Return the next batch; RecordError if an image is damaged, in every later call too."""
        if self._failure is None:
            item = self._queue.take()
            if isinstance(item, Batch):
                return item
            self._failure = item
        raise self._failure

    def close(self) -> None:
        """Stop the thread; at most one more batch is finished."""
        self._queue.close()
        self._failure = StopIteration()
        self._thread.join()
        atexit.unregister(self.close)

    def _work(self, batches: Generator[Batch, None, None]) -> None:
        try:
            for batch in batches:
                if not self._queue.put(batch):
                    break
            batches.close()
        except BaseException as error:
            self._queue.put(error)


def build_loader(
    name: str,
    records: RecordSet | None,
    batch_size: int,
    *,
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
        Where to start; the window reader starts at the beginning of that epoch.
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
        Name in PATHS; by default "native" where its compiled functions are in use, else "cpu".  All
        others need a GPU.
    augmentation
        What is done to the images.
    threads, workers, prefetch
        Decoder threads, worker processes (cpu loader), batches that are prefetched.
    index_folder
        Where the image-only index for DALI's own reader is written, where it reads.
    cache
        Where decoded images are kept, for the "dali" loader with the "random" or "blocks" reader;
        closed with the loader.
    num_classes, image_size
        Of the synthetic batch when there are no records.

    Raises
    ------
    ValueError
        If a name is unknown or the global batch is larger than an epoch.
    """
    ctx, kernels = ctx or mx.cpu(), loader_kernels()
    mapped.guard_with(guard())
    if name not in LOADERS or (records is None and name != "synthetic"):
        raise ValueError(f"data.loader: must be one of {', '.join(LOADERS)}, got {name!r}")
    if name == "synthetic":
        step_images = share.global_batch_size(batch_size)
        images = max(len(records), step_images) if records else SYNTHETIC_STEPS * step_images
        if records is not None:
            num_classes, image_size = records.num_classes, records.image_size
        arrays = synthetic_batch(batch_size, num_classes, image_size, seed + share.rank)
        batches = _repeated(arrays, ctx, position, images, step_images)
        return Loader(batches, images, prefetch=2)
    assert records is not None
    if cache is not None and reader == "window":
        raise ValueError("data.decoded_cache_mib: is not for data.reader=window, got a cache")
    sampler = make_sampler(
        reader,
        records,
        batch_size,
        seed=seed,
        share=share,
        block=block,
        window=window,
        images_per_person=images_per_person,
        order_of=kernels.window_order if kernels else window_order,
    )
    start = sampler.start(position)
    plans = batch_plans(records, sampler.batches(start), seed=seed, augmentation=augmentation)
    decoder: Decoder
    if name == "cpu":
        decoder = GluonDecoder(records, workers, ctx)
    else:
        decoder = make_decoder(
            decode,
            records,
            sampler,
            start=start,
            threads=threads,
            augmentation=augmentation,
            ctx=ctx,
            cache=cache,
            index_folder=Path(index_folder),
        )
    batches = _labelled(decoder, decoder(plans), records, ctx)
    return Loader(batches, sampler.images_per_epoch, prefetch, _restart_notice(position, start))


def _labelled(
    decoder: Decoder,
    images: Generator[tuple[mx.nd.NDArray, BatchPlan], None, None],
    records: RecordSet,
    ctx: mx.Context,
) -> Generator[Batch, None, None]:
    """Yield images with their labels; a mapped file that became shorter is named."""

    def check_files() -> None:
        for data in decoder.files:
            mapped.check_file(data)

    watch = mapped.Watch(decoder.files)
    try:
        for image, plan in images:
            batch = Batch(image, labels_to_ndarray(records.labels[plan.rows], ctx), plan.after)
            if watch.is_due():
                check_files()  # it may be made of zeros
            yield batch
    except Exception:
        check_files()  # zeros may have led to it
        raise
    finally:
        images.close()  # before the threads that it waits for
        decoder.close()


def _repeated(
    arrays: Sequence[np.ndarray], ctx: mx.Context, position: Position, images: int, step_images: int
) -> Generator[Batch, None, None]:
    """Yield one batch again and again, at the positions of epochs of so many images."""
    image, label = (mx.nd.array(array, ctx=ctx) for array in arrays)
    while True:
        position = epoch_orders.settle(position, images, step_images)
        position = epoch_orders.advance(position, step_images)
        yield Batch(image, label, position)


def _restart_notice(position: Position, start: Position) -> str:
    """Return the sentence for a reader that starts an epoch again."""
    if position.epoch != start.epoch or start.consumed or not position.consumed:
        return ""
    return (
        f"window reader: epoch {start.epoch} begins again, the "
        f"{position.consumed} images already used of it are read twice"
    )
