# SPDX-License-Identifier: Apache-2.0
"""From batch plans to images on the device: ``make_decoder`` chooses among the decoders.

``NativeDecoder``: our decoder writes normalised planes; on the CPU, where nothing but mirroring is
done to the pixels.  ``CachedDecoder``: from pixels that were decoded before.  ``DaliDecoder``: DALI
decodes to bytes, or augments, and our kernel or DALI normalises.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import mxnet as mx
import numpy as np

from ops import loader_kernels
from pipeline.decode.dali import DecodeGraph
from pipeline.decode.dali_reader import DaliReaderDecoder
from pipeline.decode.faults import take_dense
from pipeline.decode.native import JpegFallbackDecoder
from pipeline.decode.to_mxnet import Normalizer, copy_to_ndarray
from pipeline.records.read_ahead import ReadAhead
from pipeline.records.reader import BufferRing, RecordReader
from pipeline.sampling.augmentation import Augmentation
from pipeline.sampling.batches import BatchGroup, BatchPlan, grouped
from pipeline.sampling.epoch_orders import Position
from pipeline.sampling.samplers import Sampler, WindowSampler

if TYPE_CHECKING:
    from pipeline.decode.cache import DecodedCache
    from pipeline.records import RecordSet

GROUP_IMAGES = 512
"""Images that are planned, and that DALI decodes, in one go, as near as whole batches come: that
spreads the cost of a call."""
MIN_IMAGES_IN_FLIGHT = 256
"""Images that our decoder has to do at least, while others are waited for."""
MAX_BATCHES_IN_FLIGHT = 16
"""The memory of each is two large pages at least."""
DEPTH = 2
"""Batches, or groups of them, that DALI has in flight."""

Images = Generator[tuple[mx.nd.NDArray, BatchPlan], None, None]
Groups = Callable[[Iterator[BatchPlan]], Iterator[BatchGroup]]


class NoDecoder(ValueError):
    """This machine has no decoder of that name."""


class Decoder(Protocol):
    """Turns batch plans into images on the device; called once, with plans that have no end."""

    files: list[np.ndarray]
    """Arrays of all mapped files that it reads; a page that is gone reads as zeros."""

    def __call__(self, plans: Iterator[BatchPlan]) -> Images:
        """Yield a new array, float32 (B, 3, H, W), for each plan; RecordError names a bad image."""

    def close(self) -> None:
        """End the threads; to be called when the generator is closed."""


class NativeDecoder:
    """Our decoder, from JPEGs in the mapped files to planes on the CPU, or to pixels for DALI."""

    def __init__(self, jpegs: JpegFallbackDecoder, groups: Groups, ctx: mx.Context):
        self.files = jpegs.reader.files
        self._jpegs, self._groups, self._ctx = jpegs, groups, ctx

    def __call__(self, plans: Iterator[BatchPlan]) -> Images:
        in_flight: deque[tuple[BatchPlan, Callable[[], mx.nd.NDArray]]] = deque()
        for group in self._groups(plans):
            for plan in group.plans:
                mirror = plan.params.mirror
                in_flight.append((plan, self._jpegs.start_planes(plan.rows, mirror, self._ctx)))
                depth = max(2, -(-MIN_IMAGES_IN_FLIGHT // len(plan.rows)))
                if len(in_flight) > min(MAX_BATCHES_IN_FLIGHT, depth):
                    plan, finish = in_flight.popleft()
                    yield finish(), plan

    def with_images(self, groups: Iterator[BatchGroup]) -> Iterator[BatchGroup]:
        """Yield groups with their pixels; one is decoded while another is used."""
        buffers = BufferRing(DEPTH + 1)  # of groups: DALI's, and the one that is decoded
        in_flight: deque[tuple[BatchGroup, Callable[[], np.ndarray]]] = deque()
        for group in groups:
            out = self._jpegs.pixels_in(buffers, len(group.rows))
            in_flight.append((group, self._jpegs.start_pixels(group.rows, out)))
            if len(in_flight) > 1:
                group, finish = in_flight.popleft()
                yield group._replace(images=finish())

    def close(self) -> None:
        self._jpegs.close()


class CachedDecoder:
    """Pixels out of a ``DecodedCache``, decoded there when they are first wanted.

    ``jpegs`` fills the cache; ``normalizer`` is None where DALI finishes the batches.
    """

    def __init__(
        self,
        cache: DecodedCache,
        jpegs: JpegFallbackDecoder,
        groups: Groups,
        normalizer: Normalizer | None,
    ):
        self.files = [*jpegs.reader.files, cache.images]
        self._cache, self._jpegs, self._groups = cache, jpegs, groups
        self._normalizer, self._buffers = normalizer, BufferRing(0)

    def __call__(self, plans: Iterator[BatchPlan]) -> Images:
        assert self._normalizer is not None
        for group in self._groups(plans):
            self.fill(group.rows)
            yield from _normalized(group, self._cache.address, group.rows, self._normalizer)

    def with_images(self, groups: Iterator[BatchGroup]) -> Iterator[BatchGroup]:
        """Yield groups with their pixels."""
        for group in groups:
            self.fill(group.rows)
            yield group._replace(images=self._cache.images[group.rows])

    def fill(self, rows: np.ndarray) -> None:
        """Decode the images of rows that the cache lacks into it."""
        missing = self._cache.missing(rows)
        if len(missing):
            out = self._jpegs.pixels_in(self._buffers, len(missing))
            self._cache.store(missing, self._jpegs.start_pixels(missing, out)())

    def close(self) -> None:
        self._jpegs.close()
        self._cache.close()


class JpegBytes:
    """JPEGs out of the mapped files, for DALI's decoders; ``decode`` is a name in PATHS."""

    def __init__(self, reader: RecordReader, decode: str):
        self.files, self._reader = reader.files, reader
        # One array for the CPU's decoder alone: those on GPUs have not been tried on it.
        self._buffers = BufferRing(DEPTH) if decode == "cpu" else None

    def with_images(self, groups: Iterator[BatchGroup]) -> Iterator[BatchGroup]:
        """Yield groups with their JPEGs."""
        for group in groups:
            yield group._replace(images=self._reader.gather(group.rows, self._buffers))

    def close(self) -> None:
        """Nothing to end."""


class DaliDecoder:
    """DALI decodes or augments; our kernel or DALI itself normalises.

    ``groups`` are as large as the graph's batches.  With a ``normalizer`` the graph's ``finish`` is
    "bytes"; without it "float", for groups of one batch.
    """

    def __init__(
        self,
        images: JpegBytes | NativeDecoder | CachedDecoder,
        graph: DecodeGraph,
        groups: Groups,
        *,
        reader: RecordReader,
        normalizer: Normalizer | None,
        ctx: mx.Context,
    ):
        self.files = images.files
        self._images, self._graph, self._groups = images, graph, groups
        self._reader, self._normalizer, self._ctx = reader, normalizer, ctx

    def __call__(self, plans: Iterator[BatchPlan]) -> Images:
        for group, tensor in self._outputs(plans):
            if self._normalizer is None:
                yield copy_to_ndarray(tensor, self._ctx), group.plans[0]
            else:
                places = np.arange(len(group.rows))
                yield from _normalized(group, tensor.data_ptr(), places, self._normalizer)

    def _outputs(self, plans: Iterator[BatchPlan]) -> Iterator[tuple[BatchGroup, Any]]:
        """Feed the graph; yield each group with its output, valid until the next one."""
        in_flight: deque[BatchGroup] = deque()
        for group in self._images.with_images(self._groups(plans)):
            self._graph.feed(group.images, group.params)
            in_flight.append(group._replace(images=None))
            if len(in_flight) < DEPTH:
                continue
            rows, graph = [one.rows for one in in_flight], self._graph
            gpu, on_gpu = graph.device_id, graph.decodes_on_gpu
            tensor = take_dense(self._reader, graph, rows, gpu=gpu, decodes_on_gpu=on_gpu)
            yield in_flight.popleft(), tensor
            self._graph.release()

    def close(self) -> None:
        self._images.close()


def make_decoder(
    decode: str | None,
    records: RecordSet,
    sampler: Sampler,
    *,
    start: Position = Position(),
    threads: int = 1,
    augmentation: Augmentation = Augmentation(),
    ctx: mx.Context | None = None,
    cache: DecodedCache | None = None,
    index_folder: Path = Path("."),
) -> Decoder:
    """Return the decoder of a sampler's batches; parameters as ``build_loader`` has them.

    Parameters
    ----------
    start
        Where the sampler starts.
    """
    ctx, compiled = ctx or mx.cpu(), loader_kernels()
    decode = decode or ("native" if compiled else "cpu")
    if decode == "native" and not compiled:
        raise NoDecoder(
            "data.decode: 'native' needs the compiled operators, got none; use "
            "data.decode=cpu, or install g++ and leave run.operators at auto"
        )
    reader, batch_size = RecordReader(records, compiled), sampler.batch_size
    upcoming, fetch = sampler.upcoming(start), ReadAhead(records, reader)

    def read_ahead(rows: np.ndarray, after: Position) -> None:
        rows = upcoming(rows, after)
        fetch(rows if cache is None else cache.missing(rows))

    group_size = batches_per_group(batch_size)
    groups = partial(grouped, group_size=group_size, read_ahead=read_ahead)
    # They work on the CPU whatever computes; what they write is the device's on the CPU alone.
    kernels = compiled if ctx.device_type == "cpu" else None

    # First decision: where the images come from.
    if isinstance(sampler, WindowSampler) and decode != "native" and not sampler.has_gaps():
        return DaliReaderDecoder(
            records,
            sampler,
            reader,
            batch_size=batch_size,
            decode=decode,
            threads=threads,
            augmentation=augmentation,
            ctx=ctx,
            index_folder=index_folder,
        )
    images: JpegBytes | NativeDecoder | CachedDecoder = JpegBytes(reader, decode)
    if decode == "native" or cache is not None:
        own, most = compiled if decode == "native" else None, group_size * batch_size
        jpegs = JpegFallbackDecoder(reader, max_images=most, threads=threads, kernels=own)
        images = NativeDecoder(jpegs, groups, ctx)
    if cache is not None:
        normalizer = Normalizer(kernels, records.image_size, ctx, threads) if kernels else None
        images = CachedDecoder(cache, jpegs, groups, normalizer)

    # Second decision: who finishes them.
    if kernels and not isinstance(images, JpegBytes) and not augmentation.changes_pixels:
        return images
    normalizer = None
    if kernels and cache is None and not augmentation.colors:
        # One thread: DALI's have the cores.
        normalizer = Normalizer(kernels, records.image_size, ctx, threads=1)
    else:
        group_size, groups = 1, partial(grouped, group_size=1, read_ahead=read_ahead)
    graph = DecodeGraph(
        batch_size=group_size * batch_size,
        decode=decode,
        threads=threads,
        depth=DEPTH,
        device_id=ctx.device_id if ctx.device_type == "gpu" else None,
        augmentation=augmentation,
        source="jpeg" if isinstance(images, JpegBytes) else "pixels",
        finish="bytes" if normalizer else "float",
    )
    return DaliDecoder(images, graph, groups, reader=reader, normalizer=normalizer, ctx=ctx)


def batches_per_group(batch_size: int) -> int:
    """Return how many batches are planned, and decoded by DALI, in one go."""
    return max(1, round(GROUP_IMAGES / batch_size))


def _normalized(
    group: BatchGroup, address: int, rows: np.ndarray, normalizer: Normalizer
) -> Images:
    """Yield the batches of a group whose pixels lie at an address."""
    start = 0
    for plan in group.plans:
        end = start + len(plan.rows)
        yield normalizer(address, rows[start:end], plan.params.mirror), plan
        start = end
