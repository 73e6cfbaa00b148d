# SPDX-License-Identifier: Apache-2.0
"""From groups of batches to images on the device.

``straight``: the compiled decoder writes normalised planes; on the CPU, where nothing else is done
to the pixels.  ``cached``: from pictures that were decoded before.  ``decoded``: DALI decodes to
bytes, or changes pixels, and ``Normaliser`` does the rest in one pass; on the CPU, with the
compiled functions, where no colours are changed.  ``graph_batches``, the general way: DALI does
everything.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator
from typing import Any

import mxnet as mx
import numpy as np

from pipeline.decode.cache import DecodedCache
from pipeline.decode.dali import DecodeGraph
from pipeline.decode.native import PictureDecoder, Started, take_dense
from pipeline.decode.to_mxnet import Normaliser, hand_over
from pipeline.records.open import RecordSet
from pipeline.records.reader import BufferRing, RecordReader
from pipeline.sampling.batches import Group, Plan

DECODE_BATCH = 512
"""Images that are planned, and that DALI decodes, in one go, as near as whole batches come: that
spreads the cost of a call."""
UNDER_WAY = 256
"""Images that the compiled decoder has to do at least, while others are waited for."""
MOST_BATCHES = 16
"""That are under way at once: the memory of each is two large pages at least."""

Finished = Generator[tuple[mx.nd.NDArray, Plan], None, None]


def together(batch_size: int) -> int:
    """Return how many batches are decoded in one go."""
    return max(1, round(DECODE_BATCH / batch_size))


def straight(
    groups: Iterator[Group], decoder: PictureDecoder, batch_size: int, ctx: mx.Context
) -> Finished:
    """Yield batches that the compiled decoder writes where MXNet finds them."""
    depth = min(MOST_BATCHES, max(2, -(-UNDER_WAY // batch_size)))
    under_way: deque[tuple[Plan, Started]] = deque()
    for group in groups:
        for plan in group.plans:
            under_way.append((plan, decoder.start_planes(plan.rows, plan.choices.mirror, ctx)))
            if len(under_way) > depth:
                plan, started = under_way.popleft()
                yield decoder.planes(started), plan


def with_pixels(
    groups: Iterator[Group], decoder: PictureDecoder, image_size: tuple[int, int], kept: int
) -> Iterator[Group]:
    """Yield groups with their pixels for images; one is decoded while another is used.

    Parameters
    ----------
    image_size
        (H, W) in pixels.
    kept
        Groups whose pixels stay as they are after their own.
    """
    memory = BufferRing(kept + 1)  # and the one that is decoded meanwhile
    under_way: deque[tuple[Group, Started]] = deque()
    for group in groups:
        count, size = len(group.rows), 3 * image_size[0] * image_size[1]
        out = memory.take(count, size).reshape(count, *image_size, 3)
        under_way.append((group, decoder.start_pixels(group.rows, out)))
        if len(under_way) > 1:
            group, started = under_way.popleft()
            yield group._replace(images=decoder.pixels(started))


def decoded(
    records: RecordSet,
    groups: Iterator[Group],
    graph: DecodeGraph,
    depth: int,
    normaliser: Normaliser,
    reader: RecordReader,
) -> Finished:
    """Yield batches that DALI decodes, or changes, and ``normaliser`` finishes.

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


def fill(
    cache: DecodedCache, rows: np.ndarray, decoder: PictureDecoder, memory: BufferRing
) -> None:
    """Have the pictures of some rows in the cache.

    Raises
    ------
    RecordError
        If one cannot be decoded or has another size.
    """
    missing = cache.missing(rows)
    if len(missing):
        shape = (len(missing), *cache.pictures.shape[1:])
        out = memory.take(len(missing), cache.pictures[0].size).reshape(shape)
        cache.store(missing, decoder.pixels(decoder.start_pixels(missing, out)))


def cached(
    groups: Iterator[Group], cache: DecodedCache, decoder: PictureDecoder, normaliser: Normaliser
) -> Finished:
    """Yield batches out of memory, decoded there when first wanted."""
    memory = BufferRing(0)
    for group in groups:
        fill(cache, group.rows, decoder, memory)
        yield from _finished(group, cache.address, group.rows, normaliser)


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
        tensor = take_dense(
            *(records, reader, graph, [one.rows for one in under_way]),
            gpu=graph.device_id,
            decodes_on_gpu=graph.decodes_on_gpu,
        )
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
