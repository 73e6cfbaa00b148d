# SPDX-License-Identifier: Apache-2.0
"""From groups of batches to images on the device, through DALI: the fast way and the general one.

The fast way has DALI decode to bytes and ``Normaliser`` do the rest in one pass: on the CPU, with
the compiled functions of ``ops.feed``, where no colours are changed (``decoded``), or from pictures
that were decoded before (``cached``).  The general way, ``graph_batches``, has DALI do everything.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator, Sequence
from typing import Any

import mxnet as mx
import numpy as np

from pipeline.augmentation import NO_AUGMENTATION
from pipeline.dali import DecodeGraph, find_faulty
from pipeline.decoded_cache import DecodedCache
from pipeline.hand_over import Normaliser, hand_over
from pipeline.plans import Group, Plan
from pipeline.record_reader import Memory, RecordReader
from pipeline.records import RecordError, RecordSet

DECODE_BATCH = 512
"""Images that DALI decodes in one go, as near as whole batches come: that spreads its own cost."""

Finished = Generator[tuple[mx.nd.NDArray, Plan], None, None]


def together(batch_size: int) -> int:
    """Return how many batches are decoded in one go."""
    return max(1, round(DECODE_BATCH / batch_size))


def decoded(
    records: RecordSet,
    groups: Iterator[Group],
    graph: DecodeGraph,
    depth: int,
    normaliser: Normaliser,
    reader: RecordReader,
) -> Finished:
    """Yield batches that DALI decodes and ``normaliser`` finishes.

    Parameters
    ----------
    graph
        With ``finish`` "bytes", for a group.
    depth
        Groups in the graph.
    reader
        To find a damaged picture.
    """
    for group, pixels in _taken(records, groups, graph, depth, reader):
        yield from _finished(group, pixels.data_ptr(), np.arange(len(group.rows)), normaliser)


def cached(groups: Iterator[Group], filler: CacheFiller, normaliser: Normaliser) -> Finished:
    """Yield batches out of memory, decoded there when first wanted."""
    for group in groups:
        filler.fill(group.rows)
        yield from _finished(group, filler.cache.address, group.rows, normaliser)


def graph_batches(
    records: RecordSet,
    groups: Iterator[Group],
    graph: DecodeGraph,
    depth: int,
    reader: RecordReader,
    ctx: mx.Context,
) -> Finished:
    """Yield batches of which DALI does everything.

    Parameters
    ----------
    groups
        Of one batch each.
    graph
        With ``finish`` "float", for one batch.
    depth
        Batches in the graph.
    """
    for group, images in _taken(records, groups, graph, depth, reader):
        yield hand_over(images, ctx), group.plans[0]


def _taken(
    records: RecordSet,
    groups: Iterator[Group],
    graph: DecodeGraph,
    depth: int,
    reader: RecordReader,
) -> Iterator[tuple[Group, Any]]:
    """Feed a graph with groups; yield each with what came of it, valid until the next one."""
    under_way: deque[Group] = deque()
    for group in groups:
        graph.feed(group.images, group.choices)
        under_way.append(group._replace(images=None))
        if len(under_way) < depth:
            continue
        tensor = _take(records, reader, graph, [one.rows for one in under_way])
        group = under_way.popleft()
        yield group, tensor
        graph.release()
        group.release()


def _finished(group: Group, address: int, rows: np.ndarray, normaliser: Normaliser) -> Finished:
    begin = 0
    for plan in group.plans:
        end = begin + len(plan.rows)
        yield normaliser(address, rows[begin:end], plan.choices.mirror), plan
        begin = end


class CacheFiller:
    """Decodes pictures into the cache.

    Parameters
    ----------
    most
        Pictures that are asked for at once.
    threads
        Decoder threads.
    """

    def __init__(
        self,
        records: RecordSet,
        cache: DecodedCache,
        reader: RecordReader,
        most: int,
        threads: int,
    ):
        self.cache = cache
        self._records, self._reader, self._memory = records, reader, Memory(1)
        self._most, self._threads = most, threads
        self._graph: DecodeGraph | None = None

    def fill(self, rows: np.ndarray) -> None:
        """Have the pictures of some rows in the cache.

        Raises
        ------
        RecordError
            If one cannot be decoded or has another size.
        """
        missing = self.cache.missing(rows)
        if not len(missing):
            return
        if self._graph is None:
            self._graph = DecodeGraph(
                *(self._most, "cpu", self._threads, 1, None, NO_AUGMENTATION), finish="bytes"
            )
        jpegs = self._reader.gather(missing, self._memory)
        self._graph.feed(jpegs, None)
        tensor = _take(self._records, self._reader, self._graph, [missing])
        self.cache.store(missing, np.array(tensor, copy=False))
        self._graph.release()


def _take(
    records: RecordSet,
    reader: RecordReader,
    graph: DecodeGraph,
    under_way: Sequence[np.ndarray],
) -> Any:
    """Return the oldest batch of a graph as a dense tensor; name the damaged picture if it fails.

    Parameters
    ----------
    under_way
        Rows of each batch in the graph.
    """
    fault, images = None, None
    try:
        images = graph.take()
    except RuntimeError as error:
        fault = error
    if images is not None and images.is_dense_tensor():
        tensor = images.as_tensor()
        shape = tuple(tensor.shape())
        if (shape[1:3] if shape[-1] == 3 else shape[2:]) == tuple(records.image_size):
            return tensor
    rows = np.concatenate(under_way)
    found = find_faulty(reader.read(rows), records.image_size)
    if found is not None:
        place, what = found
        raise RecordError(
            f"{records.picture(rows[place])} {what}; mend the record or leave its key out of the "
            ".idx"
        ) from None
    raise fault or RecordError(
        f"{records.name}: holds pictures of several sizes, got a batch that is not all "
        f"{records.image_size}"
    )
