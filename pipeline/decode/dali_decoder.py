# SPDX-License-Identifier: Apache-2.0
"""Decoder that feeds JPEG bytes or pixels to a DALI pipeline."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import mxnet as mx
import numpy as np

from pipeline.decode.faults import take_tensor
from pipeline.decode.to_mxnet import Normalizer, copy_to_ndarray
from pipeline.records.reader import BufferRing, RecordReader
from pipeline.records.record_set import ImageError
from pipeline.sampling.batches import BatchGroup, BatchPlan

if TYPE_CHECKING:
    from pipeline.decode.dali import DecodeGraph
    from pipeline.sampling.bad_images import BadImages

# Maximum number of groups of batches in DALI's queue.
IN_FLIGHT_GROUPS = 2

Images = Generator[tuple[mx.nd.NDArray, BatchPlan], None, None]
Groups = Callable[[Iterator[BatchPlan]], Iterator[BatchGroup]]


class ImageSource(Protocol):
    """Component that adds JPEG bytes or pixels to groups of batches."""

    files: list[np.ndarray]
    """Bytes of the mapped files, one array per file."""

    def with_images(self, groups: Iterator[BatchGroup]) -> Iterator[BatchGroup]:
        """Yield each group with its images, and with bad images replaced."""

    def close(self) -> None:
        """Stop the threads of the component."""


class JpegBytes:
    """Reads JPEG bytes from the mapped files for DALI's decoders.

    ``decode`` is the name of the decode mode in PATHS.
    """

    def __init__(self, reader: RecordReader, decode: str, bad_images: BadImages):
        self.files, self._reader, self._bad = reader.files, reader, bad_images
        # DALI's CPU decoder gets one array with the JPEGs of all images.  DALI's GPU decoders get a
        # list of arrays, because they were never tested with a single array.
        self._buffers = BufferRing(IN_FLIGHT_GROUPS) if decode == "cpu" else None

    def with_images(self, groups: Iterator[BatchGroup]) -> Iterator[BatchGroup]:
        """Yield each group with the JPEG bytes of its images."""
        for group in groups:
            yield self.read(group, self._buffers)

    def read(self, group: BatchGroup, buffers: BufferRing | None = None) -> BatchGroup:
        """Return a group with the JPEG bytes of its images, and with bad images replaced."""

        def start(group: BatchGroup) -> Callable[[], Any]:
            # A retry takes no buffer from the ring, which counts one buffer per group: a second
            # buffer for this group could be the buffer of another group in flight.
            return partial(self._reader.gather, group.rows)

        # Replace the bad images that were found after the plans of the group were made.
        group = self._bad.replace_in(group)
        first = partial(self._reader.gather, group.rows, buffers)
        images, group = self._bad.retried(group, first, start, self._reader.check_files)
        return group._replace(images=images)

    def close(self) -> None:
        """Do nothing, because ``JpegBytes`` has no threads to stop."""


@dataclass
class DaliDecoder:
    """Decodes or augments images with DALI, and normalises them with ``normalizer`` or DALI.

    With a ``normalizer``, the graph must have ``finish="bytes"``.  If ``normalizer`` is None, DALI
    normalises: the graph must have ``finish="float"``, and each group must consist of one batch.
    """

    images: ImageSource
    make_graph: Callable[[], DecodeGraph]
    groups: Groups
    reader: RecordReader
    bad_images: BadImages
    normalizer: Normalizer | None
    ctx: mx.Context

    def __post_init__(self) -> None:
        self.files = self.images.files
        self._graph: DecodeGraph | None = self.make_graph()
        self._in_flight: deque[BatchGroup] = deque()

    def __call__(self, plans: Iterator[BatchPlan]) -> Images:
        for group in self.images.with_images(self.groups(plans)):
            self._feed(group)
            if len(self._in_flight) < IN_FLIGHT_GROUPS:
                continue
            tensor = self._take()
            oldest = self._in_flight.popleft()
            if self.normalizer is None:
                yield copy_to_ndarray(tensor, self.ctx), oldest.plans[0]
            else:
                indices = np.arange(len(oldest.rows))
                yield from normalized_batches(oldest, tensor.data_ptr(), indices, self.normalizer)
            assert self._graph is not None
            self._graph.release()

    def _feed(self, group: BatchGroup) -> None:
        assert self._graph is not None
        self._graph.feed(group.images, group.params)
        self._in_flight.append(group._replace(images=None))

    def _take(self) -> Any:
        """Wait for the oldest group in flight; return its images as a DALI tensor.

        If DALI finds a bad image, this method replaces the bad images of all groups in flight and
        starts these groups again in a new graph.
        """
        while True:
            assert self._graph is not None
            try:
                return take_tensor(self.reader, self._graph, [g.rows for g in self._in_flight])
            except ImageError as error:
                # Only JPEG bytes can have a bad image here: pixels come from decoded images.
                if not isinstance(self.images, JpegBytes):
                    raise
                self.bad_images.add(error)
                groups = self.bad_images.replace_all(self._in_flight, error)
            # DALI cannot use the graph after an error.  Delete the graph, which frees its memory,
            # before the next graph is made.
            self._graph = None
            self._graph = self.make_graph()
            self._in_flight.clear()
            for group in groups:
                self._feed(self.images.read(group))

    def close(self) -> None:
        self.images.close()


def normalized_batches(
    group: BatchGroup, address: int, rows: np.ndarray, normalizer: Normalizer
) -> Images:
    """Normalise the images of a group, and yield (images, plan) for each of its batches.

    ``address`` is the memory address of the pixels of N images, uint8 (N, H, W, 3).  ``rows`` (n,)
    are the indices of the group's n images among these N images.
    """
    start = 0
    for plan in group.plans:
        end = start + len(plan.rows)
        yield normalizer(address, rows[start:end], plan.params.mirror), plan
        start = end
