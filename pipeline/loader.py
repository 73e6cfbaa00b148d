# SPDX-License-Identifier: Apache-2.0
"""Build the loader of a rank: an endless iterator over batches on the device.

The loaders "dali" and "cpu" make equal batches: the same images with the same augmentation, as
normalised float32 in NCHW layout.  Every batch is a new NDArray, so an operator that still reads
an older batch never sees it overwritten.  A thread prefetches batches during the training step.
Decoding, copying and computing release Python's global interpreter lock.
"""

from __future__ import annotations

import atexit
import threading
from collections.abc import Generator
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
from pipeline.sampling.bad_images import BadImages
from pipeline.sampling.batches import BatchPlan, Share, SkippedImage, batch_plans
from pipeline.sampling.epoch_orders import Position
from pipeline.sampling.samplers import make_sampler
from pipeline.sampling.window_order import window_order
from pipeline.synthetic import synthetic_batch

if TYPE_CHECKING:
    from pipeline.decode.cache import DecodedCache

LOADERS = ("dali", "cpu", "synthetic")
SYNTHETIC_STEPS = 1000  # number of steps per epoch of the synthetic loader without a record set


class Batch(NamedTuple):
    """One batch of B images of one rank.

    ``image`` is float32 (B, 3, H, W) on the device.  ``label`` is float32 (B,) with whole numbers,
    which are exact up to 2**24.  A run can resume after this batch at the position ``after``.
    ``skipped`` are the bad images that other images of the batch replace.
    """

    image: mx.nd.NDArray
    label: mx.nd.NDArray
    after: Position
    skipped: tuple[SkippedImage, ...] = ()


class Loader:
    """Endless iterator over batches that a thread prefetches; create it with ``build_loader``.

    ``notice`` is a message for the log, or an empty string.
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
        # DALI's exit handler aborts the process if DALI is still in use, so close the loader first.
        atexit.register(self.close)

    def __iter__(self) -> Loader:
        return self

    def __next__(self) -> Batch:
        """Return the next batch.

        If the thread fails, this call and all later calls raise its error, for example RecordError
        for a damaged image.
        """
        if self._failure is None:
            item = self._queue.take()
            if isinstance(item, Batch):
                return item
            self._failure = item
        raise self._failure

    def close(self) -> None:
        """Stop the prefetching thread and wait until it ends.

        The thread may finish one more batch, which is dropped.
        """
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
    permitted_bad_images: int | None = None,
) -> Loader:
    """Build a loader that yields the batches of one rank, starting at a position in the data.

    Parameters
    ----------
    name
        Loader: "dali", "cpu" (Gluon DataLoader) or "synthetic" (the same batch in every step).
    records
        Record set; only the synthetic loader accepts None.
    batch_size
        Number of images B per batch of this rank.
    position
        Position of the first batch; the "window" reader always starts at the beginning of the
        position's epoch.
    seed
        Seed of the image order and of the augmentation.
    share
        Rank of this process and number of ranks.
    ctx
        Device of the batches; the CPU by default.
    reader
        "random": one permutation of all images per epoch.  "blocks": blocks of ``block``
        consecutive images in random order, then a shuffle within each ``window`` images.
        "window": the order of DALI's sequential reader with a shuffle buffer of ``window`` images.
    decode
        Decode mode, a key of ``pipeline.decode.dali.PATHS``.  Default: "native" if its compiled
        functions are available, else "cpu".  All other modes need a GPU.
    images_per_person
        For the "random" reader: a batch consists of groups of this many images of one person, and
        an epoch has one group of every person.  0: no groups.
    augmentation
        Settings of the random augmentation of the images.
    threads
        Number of threads of the decoder.
    workers
        Number of worker processes of the "cpu" loader.
    prefetch
        Maximum number of prefetched batches.
    index_folder
        Folder for the .idx file that the "window" reader writes for DALI's reader.
    cache
        Cache of decoded images, for the "dali" loader with the "random" or "blocks" reader; the
        loader closes the cache.
    num_classes
        Number of classes in the synthetic batch, if ``records`` is None.
    image_size
        (height, width) in pixels of the synthetic batch, if ``records`` is None.
    permitted_bad_images
        Number of images of this rank that may be bad, that is, cannot be read or decoded.  Another
        image of the batch replaces a bad image, and the batch lists the bad image in ``skipped``.
        None: the loader raises RecordError for the first bad image.

    Raises
    ------
    ValueError
        If a name is unknown, the global batch is larger than an epoch, or options exclude each
        other.
    """
    ctx, kernels = ctx or mx.cpu(), loader_kernels()
    mapped.guard_with(guard())
    if name not in LOADERS:
        raise ValueError(f"data.loader: must be one of {', '.join(LOADERS)}, got {name!r}")
    if name == "synthetic":
        step_images = share.global_batch_size(batch_size)
        images = max(len(records), step_images) if records else SYNTHETIC_STEPS * step_images
        if records is not None:
            num_classes, image_size = records.num_classes, records.image_size
        arrays = synthetic_batch(batch_size, num_classes, image_size, seed + share.rank)
        image, label = (mx.nd.array(array, ctx=ctx) for array in arrays)
        return Loader(_repeat(image, label, position, images, step_images), images, prefetch=2)
    if records is None:
        raise ValueError(
            f"data.loader: {name!r} needs a record set, got none; set data.records, or use "
            "data.loader=synthetic"
        )
    if cache is not None and reader == "window":
        raise ValueError(
            "data.decoded_cache_mib: the cache does not work with data.reader=window, got both; "
            "use data.reader=random or blocks, or set data.decoded_cache_mib=0"
        )
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
    bad_images = BadImages(records, permitted_bad_images)
    if bad_images.skips:
        plans = map(bad_images.replace, plans)
    decoder: Decoder
    if name == "cpu":
        decoder = GluonDecoder(records, workers, ctx, batch_size, bad_images)
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
            bad_images=bad_images,
        )
    batches = _add_labels(decoder, decoder(plans), records, ctx)
    notice = ""
    if position.epoch == start.epoch and position.consumed > start.consumed == 0:
        notice = (
            f"data.reader=window: epoch {start.epoch} restarts at its first image, so "
            f"{position.consumed} images that were already used are read a second time"
        )
    return Loader(batches, sampler.images_per_epoch, prefetch, notice)


def _add_labels(
    decoder: Decoder,
    images: Generator[tuple[mx.nd.NDArray, BatchPlan], None, None],
    records: RecordSet,
    ctx: mx.Context,
) -> Generator[Batch, None, None]:
    """Yield batches of images with their labels; raise RecordError if a mapped file became shorter.

    Missing pages of a mapped file read as zeros, which give a wrong batch or a misleading error.
    Therefore this function checks the files before it raises an error.  It also checks them before
    it yields a batch, if a check is due (``mapped.FileWatch``).
    """

    def check_files() -> None:
        for data in decoder.files:
            mapped.check_file(data)

    watch = mapped.FileWatch(decoder.files)
    try:
        for image, plan in images:
            label = labels_to_ndarray(records.labels[plan.rows], ctx)
            batch = Batch(image, label, plan.after, plan.skipped)
            if watch.is_check_due():
                check_files()
            yield batch
    except Exception:
        check_files()
        raise
    finally:
        # Close the generator before the decoder, because the generator waits for threads of the
        # decoder and decoder.close() ends these threads.
        images.close()
        decoder.close()


def _repeat(
    image: mx.nd.NDArray,
    label: mx.nd.NDArray,
    position: Position,
    images_per_epoch: int,
    step_images: int,
) -> Generator[Batch, None, None]:
    """Yield the same image and label arrays forever; only the position of the batch advances."""
    while True:
        epoch, consumed = epoch_orders.skip_tail(position, images_per_epoch, step_images)
        position = Position(epoch, consumed + step_images)
        yield Batch(image, label, position)
