# SPDX-License-Identifier: Apache-2.0
"""Which way a batch takes from the records to the device: ``images`` chooses among those there are.

By what decodes, where the batch is to lie, what is done to the pixels, and whether they are kept;
``pipeline.decode.decoders`` has the ways.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import mxnet as mx
import numpy as np

from ops.feed import Feed
from pipeline.decode import decoders
from pipeline.decode.cache import DecodedCache
from pipeline.decode.dali import MEAN, STD, DecodeGraph
from pipeline.decode.native import PictureDecoder
from pipeline.decode.to_mxnet import Normaliser
from pipeline.records.open import RecordSet
from pipeline.records.read_ahead import ReadAhead
from pipeline.records.reader import BufferRing, RecordReader
from pipeline.sampling.augmentation import Augmentation
from pipeline.sampling.batches import Blocks, Group, Plan, grouped
from pipeline.sampling.permutations import Position
from pipeline.sampling.window_reader import Scan, window_groups, window_plans

DEPTH = 2  # batches, or groups of them, that DALI has under way


class Source:
    """The groups of batches of one rank: their rows alone, with JPEGs, or with pixels.

    Parameters
    ----------
    plans, begin
        What is read by random access, and where that begins.
    blocks, scan
        What reads otherwise, if it does.
    index_folder
        Where the index of DALI's reader is written.
    decode
        Name in `pipeline.decode.decode_paths.PATHS`.
    compiled
        The compiled functions, if there are any.
    decoder
        What decodes to pixels, if it is not the graph that changes them.
    """

    def __init__(
        self,
        plans: Iterator[Plan],
        begin: Position,
        blocks: Blocks | None,
        scan: Scan | None,
        index_folder: Path,
        records: RecordSet,
        reader: RecordReader,
        batch_size: int,
        decode: str,
        augmentation: Augmentation,
        cache: DecodedCache | None,
        compiled: Feed | None,
        decoder: PictureDecoder | None,
    ):
        self._plans, self._records, self._reader = plans, records, reader
        self._decode, self._cache, self._decoder = decode, cache, decoder
        self._scanned: Callable[[int], Iterator[Group]] | None = None

        # These know nothing of ``self``: a ring of references would keep the files open.
        fetch = ReadAhead(records, reader)

        def read_ahead(rows: np.ndarray) -> None:
            fetch(rows if cache is None else cache.missing(rows))

        self._ask: Callable[[np.ndarray, Position], None] = lambda rows, _: read_ahead(rows)
        if blocks is not None:
            self._ask = blocks.ahead(begin, read_ahead)
        elif scan is not None and (decode == "native" or scan.has_gaps()):
            self._plans = window_plans(scan, begin.epoch, batch_size, augmentation, compiled)
            self._ask = scan.ahead(begin.epoch, read_ahead)
        elif scan is not None:
            self._scanned = lambda together: window_groups(
                *(scan, begin.epoch, batch_size, augmentation, index_folder, together, DEPTH),
                use_mmap=reader.is_guarded,
            )

    def groups(self, together: int) -> Iterator[Group]:
        """Return groups of so many batches."""
        return grouped(self._plans, together, lambda rows: None, self._ask)

    def with_jpegs(self, together: int) -> Iterator[Group]:
        """Return groups with JPEG bytes."""
        if self._scanned is not None:
            return self._checked(self._scanned(together))
        # The array for the CPU's decoder alone: those on GPUs have not been tried on it.
        memory = BufferRing(DEPTH) if self._decode == "cpu" else None
        gather = self._reader.gather
        return grouped(self._plans, together, lambda rows: gather(rows, memory), self._ask)

    def with_pixels(self, together: int) -> Iterator[Group]:
        """Return groups with pixels, out of the cache or straight from the decoder."""
        assert self._decoder is not None
        if self._cache is None:
            size = self._records.image_size
            return decoders.with_pixels(self.groups(together), self._decoder, size, DEPTH)
        cache, decoder, memory = self._cache, self._decoder, BufferRing(0)

        def kept(rows: np.ndarray) -> np.ndarray:
            decoders.fill(cache, rows, decoder, memory)
            return cache.pictures[rows]

        return grouped(self._plans, together, kept, self._ask)

    def _checked(self, groups: Iterator[Group]) -> Iterator[Group]:
        for group in groups:
            upright = self._reader.check(group.rows)
            yield group if upright is None else group._replace(images=upright)


def images(
    plans: Iterator[Plan],
    begin: Position,
    blocks: Blocks | None,
    scan: Scan | None,
    index_folder: Path,
    records: RecordSet,
    reader: RecordReader,
    batch_size: int,
    decode: str,
    threads: int,
    ctx: mx.Context,
    augmentation: Augmentation,
    cache: DecodedCache | None,
    compiled: Feed | None,
) -> decoders.Finished:
    """Yield the images of a rank's batches and what they are of; close all that it has in the end.

    Parameters as `Source` and `pipeline.loader.build_loader` have them.
    """
    with ExitStack() as stack:
        if cache is not None:
            stack.callback(cache.close)
        native, changed = decode == "native", augmentation.changes_pixels
        many = decoders.together(batch_size)
        decoder = None
        if native or cache is not None:
            decoder = PictureDecoder(
                *(records, reader, many * batch_size, threads), compiled if native else None
            )
            stack.callback(decoder.close)
        source = Source(
            *(plans, begin, blocks, scan, index_folder, records, reader, batch_size),
            *(decode, augmentation, cache, compiled, decoder),
        )
        with_images, kind = (
            (source.with_pixels, "pixels") if decoder else (source.with_jpegs, "jpeg")
        )
        options: dict[str, Any] = {"augmentation": augmentation, "source": kind}
        options |= {"decode": decode, "threads": threads, "depth": DEPTH}
        # They work on the CPU whatever computes; what they write is the device's on the CPU alone.
        finisher = compiled if ctx.device_type == "cpu" else None
        finished: decoders.Finished
        if finisher and decoder and cache and not changed:
            normaliser = Normaliser(finisher, records.image_size, MEAN, STD, ctx, threads)
            finished = decoders.cached(source.groups(many), cache, decoder, normaliser)
        elif finisher and decoder and native and not changed:
            finished = decoders.straight(source.groups(many), decoder, batch_size, ctx)
        elif finisher and not cache and decode in ("native", "cpu") and not augmentation.colors:
            graph = DecodeGraph(many * batch_size, device_id=None, finish="bytes", **options)
            # One thread: DALI's have the cores.
            normaliser = Normaliser(finisher, records.image_size, MEAN, STD, ctx, 1)
            groups = with_images(many)
            finished = decoders.decoded(records, groups, graph, DEPTH, normaliser, reader)
        else:
            device_id = ctx.device_id if ctx.device_type == "gpu" else None
            graph = DecodeGraph(batch_size, device_id=device_id, **options)
            finished = decoders.graph_batches(records, with_images(1), graph, DEPTH, reader, ctx)
        stack.callback(finished.close)  # before what it uses
        yield from finished
