# SPDX-License-Identifier: Apache-2.0
"""One DALI pipeline from the records to normalised images, ``fn.readers.mxnet`` at its head.

    readers.mxnet -> decoders.image (cpu or mixed) -> augmentation -> crop_mirror_normalize

for ``data.reader=window`` where DALI decodes.  Images never leave DALI on the way.  What augments
them is fed in the order of the reader, which the sampler computes: the reader itself says nothing
about the records that it delivers.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

# DALI's own modules too come from there, which loads them before Horovod does harm.
from pipeline.decode.dali import (
    PATHS,
    PLANES,
    DecodeGraph,
    PipelineQueue,
    augment,
    augment_inputs,
    decoder_options,
    external_input,
    fn,
    pipeline_def,
    types,
)
from pipeline.decode.faults import take_dense
from pipeline.decode.to_mxnet import copy_to_ndarray
from pipeline.records import RecordError, RecordSet
from pipeline.records.index_cache import image_index

if TYPE_CHECKING:
    import mxnet as mx
    import numpy as np

    from pipeline.records.reader import RecordReader
    from pipeline.sampling.augmentation import Augmentation
    from pipeline.sampling.batches import BatchPlan
    from pipeline.sampling.samplers import WindowSampler

DEPTH = 2  # batches in flight
EARLY_IMAGES = 2048
"""The pipeline of the next epoch starts, and fills its window, so many images before it is due."""


@pipeline_def(enable_conditionals=True)
def read_pipeline(
    rec: str,
    index: str,
    *,
    shard_id: int,
    num_shards: int,
    window: int,
    reader_seed: int,
    use_mmap: bool,
    decode: str,
    augmentation: Augmentation,
    to_gpu: bool,
) -> Any:
    """One epoch of a shard -> float32 (3, H, W), augmented and normalised.

    ``index`` is an .idx of the images alone.  ``to_gpu`` brings what the CPU has decoded to the
    GPU.
    """
    jpeg, _ = fn.readers.mxnet(
        path=[rec],
        index_path=[index],
        shard_id=shard_id,
        num_shards=num_shards,
        random_shuffle=window > 1,
        initial_fill=window,
        seed=reader_seed,  # not one that DALI draws from the pipeline's: window_order takes it
        tensor_init_bytes=1,  # what it reads stays in the mapped file
        dont_use_mmap=not use_mmap,
    )
    image = fn.decoders.image(jpeg, **decoder_options(decode))
    if to_gpu and image.device == "cpu":
        image = image.gpu()  # first: augmentation may make float32 of it, four times the bytes
    image = augment(image, augmentation)
    return fn.crop_mirror_normalize(
        image, mirror=external_input("mirror", types.INT32, 0), **PLANES
    )


class _EpochQueue(PipelineQueue):
    """The batches of one epoch, in flight in a pipeline that reads them itself."""

    fault: RuntimeError | None = None
    _images: Any = None

    def wait(self, rec: Path) -> None:
        """Wait for the oldest batch; ``take`` returns it then, or raises as decoders do.

        Raises
        ------
        RecordError
            If the .rec cannot be read.
        """
        try:
            self._images = super().take()
        except RuntimeError as error:
            if "readers" in str(error):
                raise RecordError(
                    f"{rec}: cannot be read with data.reader=window, got from DALI: "
                    f"{_reason(error)}; make or copy it again, or use data.reader=random"
                ) from None
            self.fault = error

    def take(self) -> Any:
        if self.fault is not None:
            raise self.fault
        return self._images


class DaliReaderDecoder:
    """Decode batches that DALI reads itself, with a pipeline for each epoch.

    Parameters
    ----------
    records
        The set, one file: DALI's reader takes several for one stream that was cut up, and loses its
        place where a file begins with an image.
    sampler
        Gives ``shard(epoch)``, ``reader_seed(epoch)``, ``window`` and ``share``.
    reader
        Reads the same records by row: checks them, and finds the damaged image.
    batch_size, threads
        Images per batch, decoder threads.
    decode
        Name in `pipeline.decode.dali.PATHS`.
    ctx
        Device of the batches.
    index_folder
        Where the .idx of the images alone is written.
    """

    def __init__(
        self,
        records: RecordSet,
        sampler: WindowSampler,
        reader: RecordReader,
        *,
        batch_size: int,
        decode: str,
        threads: int,
        augmentation: Augmentation,
        ctx: mx.Context,
        index_folder: Path,
    ):
        self.files = reader.files
        self._records, self._sampler, self._reader = records, sampler, reader
        self._batch_size, self._decode, self._threads = batch_size, decode, threads
        self._augmentation, self._ctx, self._index_folder = augmentation, ctx, index_folder
        self._device_id = ctx.device_id if ctx.device_type == "gpu" else None
        (self._rec,) = records.files
        self._queues: dict[int, _EpochQueue] = {}  # by epoch: this one and the next
        self._upright: DecodeGraph | None = None

    def __call__(
        self, plans: Iterator[BatchPlan]
    ) -> Generator[tuple[mx.nd.NDArray, BatchPlan], None, None]:
        """Yield the images of batches, float32 (B, 3, H, W), and their plans.

        Parameters
        ----------
        plans
            Endless, from the start of an epoch on, in the order of the reader.

        Raises
        ------
        RecordError
            If the .rec cannot be read, or an image cannot be decoded or has another size.
        """
        index = image_index(self._records, self._index_folder)
        steps = len(self._records) // self._sampler.share.global_batch_size(self._batch_size)
        early = min(steps, max(DEPTH, -(-EARLY_IMAGES // self._batch_size)))
        planned: deque[BatchPlan] = deque()
        for plan in plans:
            epoch = plan.after.epoch
            if epoch not in self._queues:
                self._queues[epoch] = self._started(epoch, index, min(DEPTH, steps))
            self._queues[epoch].feed_inputs(augment_inputs(plan.params, self._augmentation))
            planned.append(plan)
            if len(planned) > early:
                images = self._images(planned)
                plan = planned.popleft()
                if planned[0].after.epoch != plan.after.epoch:
                    del self._queues[plan.after.epoch]
                yield images, plan

    def close(self) -> None:
        """End the threads of all pipelines."""
        self._queues.clear()
        self._upright = None

    def _started(self, epoch: int, index: Path, depth: int) -> _EpochQueue:
        """Return the queue of an epoch, before its first batch."""
        pipeline = read_pipeline(
            str(self._rec),
            str(index),
            shard_id=self._sampler.shard(epoch),
            num_shards=self._sampler.share.size,
            window=self._sampler.window,
            reader_seed=self._sampler.reader_seed(epoch),
            use_mmap=self._reader.is_guarded,
            decode=self._decode,
            augmentation=self._augmentation,
            to_gpu=self._device_id is not None,
            batch_size=self._batch_size,
            num_threads=self._threads,
            device_id=self._device_id,
            prefetch_queue_depth=depth,
        )
        return _EpochQueue(pipeline, depth)

    def _images(self, planned: deque[BatchPlan]) -> mx.nd.NDArray:
        """Return the images of the first of some plans, whose batches are in flight."""
        plan = planned[0]
        queue = self._queues[plan.after.epoch]
        queue.wait(self._rec)
        upright = self._reader.check(plan.rows)
        if upright is not None and queue.fault is None:  # Exif turns some, and DALI does not
            images = self._turned(plan, upright)
        else:
            in_flight = [p.rows for p in planned if p.after.epoch == plan.after.epoch]
            images = self._dense(queue, in_flight[:DEPTH])
        queue.release()
        return images

    def _turned(self, plan: BatchPlan, jpegs: list[np.ndarray]) -> mx.nd.NDArray:
        """Return the images of a plan, decoded from other JPEGs than the records'."""
        if self._upright is None:
            self._upright = DecodeGraph(
                self._batch_size,
                self._decode,
                self._threads,
                1,
                self._device_id,
                self._augmentation,
            )
        self._upright.feed(jpegs, plan.params)
        images = self._dense(self._upright, [plan.rows])
        self._upright.release()
        return images

    def _dense(self, queue: PipelineQueue, in_flight: list[np.ndarray]) -> mx.nd.NDArray:
        """Return the oldest batch of a queue; ``in_flight`` has the rows of all."""
        tensor = take_dense(
            self._reader,
            queue,
            in_flight,
            gpu=self._device_id,
            decodes_on_gpu=PATHS[self._decode].device == "mixed",
        )
        return copy_to_ndarray(tensor, self._ctx, self._reader.kernels)


@pipeline_def
def _decode_only(rec: str, index: str) -> Any:
    jpeg, _ = fn.readers.mxnet(
        path=[rec], index_path=[index], random_shuffle=True, tensor_init_bytes=16384
    )
    return fn.decoders.image(jpeg, **decoder_options("cpu"))


def decode_alone(rec: Path, index: Path, batch_size: int, threads: int) -> Iterator[None]:
    """Read and decode batches and do nothing with them: what no loader on DALI can exceed."""
    pipeline = _decode_only(
        str(rec), str(index), batch_size=batch_size, num_threads=threads, device_id=None
    )
    pipeline.build()
    pipeline.schedule_run()
    while True:
        pipeline.share_outputs()
        yield
        pipeline.release_outputs()
        pipeline.schedule_run()


def _reason(error: RuntimeError) -> str:
    """Return what DALI says in an error, without the operator and the stack around it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or ["nothing"]
    inner = [line for line in lines if line.startswith("Error in thread")]
    return (inner or lines)[0].rpartition(" failed: ")[2]
