# SPDX-License-Identifier: Apache-2.0
"""DALI pipeline that reads records and returns normalised images, for ``data.reader=window``.

    readers.mxnet -> decoders.image (cpu or mixed) -> augmentation -> crop_mirror_normalize

DALI's reader does not say which records it delivers.  Therefore the sampler computes the order in
which the reader delivers them, and the parameters of the augmentation are fed in that order.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

# Import DALI's modules through pipeline.decode.dali, which checks that Horovod is not loaded yet.
from pipeline.decode.dali import (
    PATHS,
    DecodeGraph,
    PipelineQueue,
    augment_inputs,
    decoder_options,
    fn,
    pipeline_def,
    to_planes,
)
from pipeline.decode.faults import check_output, dali_message, take_tensor
from pipeline.decode.to_mxnet import copy_to_ndarray
from pipeline.records import RecordError
from pipeline.records.index_cache import image_index

if TYPE_CHECKING:
    import mxnet as mx
    import numpy as np

    from pipeline.records.reader import RecordReader
    from pipeline.sampling.augmentation import Augmentation
    from pipeline.sampling.batches import BatchPlan
    from pipeline.sampling.samplers import WindowSampler

IN_FLIGHT_BATCHES = 2
# The pipeline of the next epoch starts when about this many images of this rank's current epoch
# remain, so that the shuffle buffer of the new pipeline is full before its first batch is needed.
EARLY_IMAGES = 2048


@pipeline_def(enable_conditionals=True)
def read_pipeline(reader_options: dict[str, Any], decode: str, augmentation: Augmentation) -> Any:
    """Define the DALI pipeline that reads, decodes, augments and normalises images.

    ``reader_options`` are the arguments of ``fn.readers.mxnet``.  The output is planes, float32
    (3, H, W).
    """
    jpeg, _ = fn.readers.mxnet(**reader_options)
    return to_planes(fn.decoders.image(jpeg, **decoder_options(decode)), augmentation)


class DaliReaderDecoder:
    """Decodes batches of images that DALI reads itself, with one DALI pipeline per epoch.

    This decoder supports only record sets of one .rec file.  DALI's reader fails on several files
    if one of them has no header record, so that its first record is an image.

    The sampler computes the shard, the seed and the order of DALI's reader.  ``reader`` reads the
    same records by row, to check them and to find a damaged image.  In ``index_folder`` the decoder
    writes an .idx that lists only the records with images.  ``make_decoder`` documents the other
    parameters.
    """

    def __init__(
        self,
        sampler: WindowSampler,
        reader: RecordReader,
        *,
        decode: str,
        threads: int,
        augmentation: Augmentation,
        ctx: mx.Context,
        index_folder: Path,
    ):
        self.files = reader.files
        self._sampler, self._reader = sampler, reader
        self._decode, self._threads = decode, threads
        self._augmentation, self._ctx, self._index_folder = augmentation, ctx, index_folder
        self._device_id = ctx.device_id if ctx.device_type == "gpu" else None
        (self._rec,) = reader.records.files
        # DALI queues of the current and the next epoch, by epoch number.
        self._queues: dict[int, PipelineQueue] = {}
        self._upright_graph: DecodeGraph | None = None

    def __call__(
        self, plans: Iterator[BatchPlan]
    ) -> Generator[tuple[mx.nd.NDArray, BatchPlan], None, None]:
        """Yield (images, plan) for each plan, as ``Decoder`` documents.

        The first plan must belong to the first batch of an epoch.
        """
        records, batch_size = self._reader.records, self._sampler.batch_size
        index = image_index(records, self._index_folder)
        steps = len(records) // self._sampler.share.global_batch_size(batch_size)
        early = min(steps, max(IN_FLIGHT_BATCHES, -(-EARLY_IMAGES // batch_size)))
        planned: deque[BatchPlan] = deque()
        for plan in plans:
            epoch = plan.after.epoch
            if epoch not in self._queues:
                self._queues[epoch] = self._start(epoch, index, min(IN_FLIGHT_BATCHES, steps))
            self._reader.check_sizes(plan.rows)  # check now: DALI decodes the batch once it is fed
            self._queues[epoch].feed_inputs(augment_inputs(plan.params, self._augmentation))
            planned.append(plan)
            if len(planned) > early:
                images = self._take_oldest(planned)
                plan = planned.popleft()
                if planned[0].after.epoch != plan.after.epoch:
                    del self._queues[plan.after.epoch]
                yield images, plan

    def close(self) -> None:
        self._queues.clear()
        self._upright_graph = None

    def _start(self, epoch: int, index: Path, depth: int) -> PipelineQueue:
        """Create the pipeline of an epoch; return its queue, which is still empty."""
        sampler = self._sampler
        reader_options = {
            "path": [str(self._rec)],
            "index_path": [str(index)],
            "shard_id": sampler.shard(epoch),
            "num_shards": sampler.share.size,
            "random_shuffle": sampler.window > 1,
            "initial_fill": sampler.window,
            "seed": sampler.reader_seed(epoch),  # the sampler computes the order from this seed
            "tensor_init_bytes": 1,  # with mmap DALI copies no record, so it needs no buffers
            "dont_use_mmap": not self._reader.is_guarded,
        }
        pipeline = read_pipeline(
            reader_options,
            self._decode,
            self._augmentation,
            batch_size=sampler.batch_size,
            num_threads=self._threads,
            device_id=self._device_id,
            prefetch_queue_depth=depth,
        )
        return PipelineQueue(pipeline, depth, PATHS[self._decode].device == "mixed")

    def _take_oldest(self, planned: deque[BatchPlan]) -> mx.nd.NDArray:
        """Wait for the images of the oldest plan, ``planned[0]``, and return them."""
        plan = planned[0]
        queue, kernels = self._queues[plan.after.epoch], self._reader.kernels
        try:
            output = queue.take()
        except RuntimeError as error:
            if "readers" in str(error):
                reason = dali_message(error).rpartition(" failed: ")[2]
                raise RecordError(
                    f"{self._rec}: cannot be read with data.reader=window, got from DALI: {reason};"
                    " make or copy the file again, or use data.reader=random"
                ) from None
            output = error
        upright = self._reader.check(plan.rows)
        if upright is not None and not isinstance(output, RuntimeError):
            # DALI ignores the Exif orientation, so decode upright copies of the images.
            images = self._decode_upright(plan, upright)
        else:
            in_flight = [p.rows for p in planned if p.after.epoch == plan.after.epoch]
            tensor = check_output(self._reader, queue, in_flight[:IN_FLIGHT_BATCHES], output)
            images = copy_to_ndarray(tensor, self._ctx, kernels)
        queue.release()
        return images

    def _decode_upright(self, plan: BatchPlan, upright: list[np.ndarray]) -> mx.nd.NDArray:
        """Decode encoded upright copies of a plan's images; return them as one NDArray."""
        if self._upright_graph is None:
            size, device, augmentation = len(plan.rows), self._device_id, self._augmentation
            self._upright_graph = DecodeGraph(
                size, self._decode, self._threads, 1, device, augmentation
            )
        self._upright_graph.feed(upright, plan.params)
        tensor = take_tensor(self._reader, self._upright_graph, [plan.rows])
        images = copy_to_ndarray(tensor, self._ctx, self._reader.kernels)
        self._upright_graph.release()
        return images
