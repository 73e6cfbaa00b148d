# SPDX-License-Identifier: Apache-2.0
"""Decoders: objects that take batch plans and yield images on the device.

``make_decoder`` chooses the decoder of a run:

``NativeDecoder``: the compiled decoder decodes, mirrors and normalises, on CPUs only.
``CachedDecoder``: a cache provides decoded pixels, and a compiled kernel normalises.
``DaliDecoder`` (in ``dali_decoder``): DALI decodes or augments, and a compiled kernel or DALI
normalises.
``DaliReaderDecoder`` (in ``dali_reader``): DALI reads the records, decodes, augments, normalises.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import mxnet as mx

from ops import loader_kernels
from pipeline.decode.dali import DecodeGraph
from pipeline.decode.dali_decoder import (
    IN_FLIGHT_GROUPS,
    DaliDecoder,
    Groups,
    Images,
    JpegBytes,
    normalized_batches,
)
from pipeline.decode.dali_reader import DaliReaderDecoder
from pipeline.decode.native import JpegFallbackDecoder
from pipeline.decode.to_mxnet import Normalizer
from pipeline.records.read_ahead import ReadAhead
from pipeline.records.reader import BufferRing, RecordReader
from pipeline.sampling.augmentation import Augmentation
from pipeline.sampling.bad_images import BadImages
from pipeline.sampling.batches import BatchGroup, BatchPlan, grouped
from pipeline.sampling.epoch_orders import Position
from pipeline.sampling.samplers import Sampler, WindowSampler

if TYPE_CHECKING:
    import numpy as np

    from pipeline.decode.cache import DecodedCache
    from pipeline.records import RecordSet

# Approximate number of images in a group of batches.  DALI decodes all images of a group in one
# call, because a call with more images costs less per image.
GROUP_IMAGES = 512
# Minimum number of images that the compiled decoder has in flight.
MIN_IN_FLIGHT_IMAGES = 256
# Maximum number of batches that the compiled decoder has in flight.  The number is limited because
# even a small batch takes at least two huge pages of memory.  This limit has priority over
# MIN_IN_FLIGHT_IMAGES.
MAX_IN_FLIGHT_BATCHES = 16

WINDOW_CANNOT_SKIP = (
    "data.on_bad_image: 'skip' cannot replace images that DALI reads (data.reader=window), got "
    "data.decode={decode}; use data.reader=random or blocks, data.decode=native, or "
    "data.on_bad_image=stop"
)


class NoDecoder(ValueError):
    """Error for a decoder that is not available on this machine or with the other settings."""


class Decoder(Protocol):
    """Interface of all decoders, which convert batch plans to images on the device.

    Call a decoder only once, with an endless iterator of plans.
    """

    files: list[np.ndarray]
    """Bytes of the mapped files, one array per file.  If a file shrinks while it is mapped, the
    missing pages read as zeros."""

    def __call__(self, plans: Iterator[BatchPlan]) -> Images:
        """Yield (images, plan) for each plan; the images are a new float32 (B, 3, H, W) NDArray.

        Raises RecordError if a record cannot be read, if an image cannot be decoded, or if an image
        does not have the image size of the record set.
        """

    def close(self) -> None:
        """Stop the decoder's threads.  First close the generator that ``__call__`` returned."""


class NativeDecoder:
    """Decodes JPEGs with the compiled decoder, to planes or to pixels that DALI augments."""

    def __init__(
        self, jpegs: JpegFallbackDecoder, groups: Groups, bad_images: BadImages, ctx: mx.Context
    ):
        self.files, self._check_files = jpegs.reader.files, jpegs.reader.check_files
        self._jpegs, self._groups, self._bad, self._ctx = jpegs, groups, bad_images, ctx

    def __call__(self, plans: Iterator[BatchPlan]) -> Images:
        in_flight: deque[tuple[BatchPlan, Callable[[], mx.nd.NDArray]]] = deque()
        for group in self._groups(plans):
            for plan in group.plans:
                in_flight.append((plan, self._start(plan)))
                depth = max(2, -(-MIN_IN_FLIGHT_IMAGES // len(plan.rows)))
                if len(in_flight) > min(MAX_IN_FLIGHT_BATCHES, depth):
                    plan, finish = in_flight.popleft()
                    yield self._bad.retried(plan, finish, self._start, self._check_files)

    def with_images(self, groups: Iterator[BatchGroup]) -> Iterator[BatchGroup]:
        """Decode the images of each group, and yield the group with their pixels.

        While the caller uses a group, the threads of the decoder decode the next group.
        """
        # DALI reads IN_FLIGHT_GROUPS buffers while the compiled decoder writes another buffer.
        buffers = BufferRing(IN_FLIGHT_GROUPS + 1)
        in_flight: deque[tuple[BatchGroup, Any, Callable[[], np.ndarray]]] = deque()
        for group in groups:
            out = self._jpegs.pixels_in(buffers, len(group.rows))
            start = partial(self._start_pixels, out=out)
            in_flight.append((group, start, start(group)))
            if len(in_flight) > 1:
                group, start, finish = in_flight.popleft()
                pixels, group = self._bad.retried(group, finish, start, self._check_files)
                yield group._replace(images=pixels)

    def _start(self, plan: BatchPlan) -> Callable[[], mx.nd.NDArray]:
        return self._jpegs.start_planes(plan.rows, plan.params.mirror, self._ctx)

    def _start_pixels(self, group: BatchGroup, out: np.ndarray) -> Callable[[], np.ndarray]:
        return self._jpegs.start_pixels(group.rows, out)

    def close(self) -> None:
        self._jpegs.close()


@dataclass
class CachedDecoder:
    """Reads pixels from a ``DecodedCache``; decodes missing images and stores them in the cache."""

    cache: DecodedCache
    jpegs: JpegFallbackDecoder
    groups: Groups
    bad_images: BadImages
    # Used only by ``__call__``.  None on a GPU or without compiled functions: then DALI normalises
    # the pixels that ``with_images`` provides.
    normalizer: Normalizer | None

    def __post_init__(self) -> None:
        self.files = [*self.jpegs.reader.files, self.cache.images]
        self._buffers = BufferRing(0)

    def __call__(self, plans: Iterator[BatchPlan]) -> Images:
        assert self.normalizer is not None
        for group in map(self._filled, self.groups(plans)):
            address = self.cache.images.ctypes.data
            yield from normalized_batches(group, address, group.rows, self.normalizer)

    def with_images(self, groups: Iterator[BatchGroup]) -> Iterator[BatchGroup]:
        """Yield each group with the pixels of its images, read from the cache."""
        for group in map(self._filled, groups):
            yield group._replace(images=self.cache.images[group.rows])

    def _filled(self, group: BatchGroup) -> BatchGroup:
        """Store all images of a group in the cache; return the group with bad images replaced."""

        def start(group: BatchGroup) -> Callable[[], None]:
            return partial(self.fill, group.rows)

        check_files = self.jpegs.reader.check_files
        return self.bad_images.retried(group, start(group), start, check_files)[1]

    def fill(self, rows: np.ndarray) -> None:
        """Decode the images of ``rows`` that the cache lacks, and store them in the cache."""
        missing = self.cache.missing(rows)
        if len(missing):
            out = self.jpegs.pixels_in(self._buffers, len(missing))
            self.cache.store(missing, self.jpegs.start_pixels(missing, out)())

    def close(self) -> None:
        self.jpegs.close()
        self.cache.close()


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
    bad_images: BadImages | None = None,
) -> Decoder:
    """Return the decoder for the batches that a sampler yields from the position ``start`` on.

    If ``decode`` is None, the mode is "native" if the operators are compiled, else "cpu".
    ``bad_images`` replaces bad images; None: a bad image is an error.  ``build_loader`` documents
    the remaining parameters.  Raises NoDecoder if ``decode`` is "native" and the operators are not
    compiled, or if bad images must be replaced and DALI reads the records.
    """
    ctx, compiled = ctx or mx.cpu(), loader_kernels()
    bad_images = bad_images or BadImages(records)
    decode = decode or ("native" if compiled else "cpu")
    if decode == "native" and not compiled:
        raise NoDecoder(
            "data.decode: 'native' needs the compiled operators, got none; use "
            "data.decode=cpu, or install g++ and leave run.operators at auto"
        )
    reader = RecordReader(records, compiled)
    options: dict[str, Any] = {"decode": decode, "threads": threads, "augmentation": augmentation}

    # First decision: which component provides the JPEG bytes or the pixels?
    if isinstance(sampler, WindowSampler) and decode != "native" and not sampler.has_gaps():
        if bad_images.skips:
            raise NoDecoder(WINDOW_CANNOT_SKIP.format(decode=decode))
        return DaliReaderDecoder(sampler, reader, ctx=ctx, index_folder=index_folder, **options)
    upcoming, fetch = sampler.upcoming(start), ReadAhead(records, reader)

    def read_ahead(rows: np.ndarray, after: Position) -> None:
        rows = upcoming(rows, after)
        fetch(rows if cache is None else cache.missing(rows))

    group_size = batches_per_group(sampler.batch_size)
    groups = partial(grouped, group_size=group_size, read_ahead=read_ahead)
    # The compiled kernels write to host memory, which is of use only if the device is a CPU.
    kernels = compiled if ctx.device_type == "cpu" else None
    images: JpegBytes | NativeDecoder | CachedDecoder = JpegBytes(reader, decode, bad_images)
    if decode == "native" or cache is not None:
        own, max_images = compiled if decode == "native" else None, group_size * sampler.batch_size
        jpegs = JpegFallbackDecoder(reader, max_images=max_images, threads=threads, kernels=own)
        images = NativeDecoder(jpegs, groups, bad_images, ctx)
    if cache is not None:
        normalizer = Normalizer(kernels, records.image_size, ctx, threads) if kernels else None
        images = CachedDecoder(cache, jpegs, groups, bad_images, normalizer)

    # Second decision: which component augments and normalises the images?
    if kernels and not isinstance(images, JpegBytes) and not augmentation.changes_pixels:
        return images
    normalizer = None
    if kernels and cache is None and not augmentation.colors:
        # The normalizer gets one thread, because DALI's threads keep the cores busy.
        normalizer = Normalizer(kernels, records.image_size, ctx, threads=1)
    else:
        group_size, groups = 1, partial(grouped, group_size=1, read_ahead=read_ahead)
    make_graph = partial(
        DecodeGraph,
        batch_size=group_size * sampler.batch_size,
        depth=IN_FLIGHT_GROUPS,
        device_id=ctx.device_id if ctx.device_type == "gpu" else None,
        source="jpeg" if isinstance(images, JpegBytes) else "pixels",
        finish="bytes" if normalizer else "float",
        **options,
    )
    return DaliDecoder(images, make_graph, groups, reader, bad_images, normalizer, ctx)


def batches_per_group(batch_size: int) -> int:
    """Return the number of batches that together have about ``GROUP_IMAGES`` images."""
    return max(1, round(GROUP_IMAGES / batch_size))
