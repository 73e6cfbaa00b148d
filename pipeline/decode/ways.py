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

from ops.feed import LoaderKernels
from pipeline.decode import decoders
from pipeline.decode.cache import DecodedCache
from pipeline.decode.dali import MEAN, STD, DecodeGraph
from pipeline.decode.dali_reader import DaliReaderDecoder
from pipeline.decode.native import PictureDecoder
from pipeline.decode.to_mxnet import Normaliser
from pipeline.records.open import RecordSet
from pipeline.records.reader import Memory, RecordReader
from pipeline.sampling.augmentation import Augmentation
from pipeline.sampling.batches import Blocks, Group, Plan, grouped
from pipeline.sampling.permutations import Position
from pipeline.sampling.window_reader import Scan, window_plans

DEPTH = 2  # batches, or groups of them, that DALI has under way


class Source:
    """The groups of batches of one rank: their rows alone, with JPEGs, or with pixels.

    Parameters
    ----------
    plans, begin
        What is read by random access, and where that begins.
    blocks, scan
        What reads otherwise, if it does.
    decode
        Name in `pipeline.decode.dali.PATHS`.
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
        records: RecordSet,
        reader: RecordReader,
        batch_size: int,
        decode: str,
        augmentation: Augmentation,
        cache: DecodedCache | None,
        compiled: LoaderKernels | None,
        decoder: PictureDecoder | None,
    ):
        self._plans, self._records, self._reader = plans, records, reader
        self._decode, self._cache, self._decoder = decode, cache, decoder

        # These know nothing of ``self``: a ring of references would keep the files open.
        def read_ahead(rows: np.ndarray) -> None:
            reader.read_ahead(rows if cache is None else cache.missing(rows))

        self._ask: Callable[[np.ndarray, Position], None] = lambda rows, _: read_ahead(rows)
        if blocks is not None:
            self._ask = blocks.ahead(begin, read_ahead)
        elif scan is not None:
            self._plans = window_plans(scan, begin.epoch, batch_size, augmentation, compiled)
            self._ask = scan.ahead(begin.epoch, read_ahead)

    def groups(self, together: int) -> Iterator[Group]:
        """Return groups of so many batches."""
        return grouped(self._plans, together, lambda rows: None, self._ask)

    def with_jpegs(self, together: int) -> Iterator[Group]:
        """Return groups with JPEG bytes."""
        # The array for the CPU's decoder alone: those on GPUs have not been tried on it.
        memory = Memory(DEPTH) if self._decode == "cpu" else None
        gather = self._reader.gather
        return grouped(self._plans, together, lambda rows: gather(rows, memory), self._ask)

    def with_pixels(self, together: int) -> Iterator[Group]:
        """Return groups with pixels, out of the cache or straight from the decoder."""
        assert self._decoder is not None
        if self._cache is None:
            size = self._records.image_size
            return decoders.with_pixels(self.groups(together), self._decoder, size, DEPTH)
        cache, decoder, memory = self._cache, self._decoder, Memory(0)

        def kept(rows: np.ndarray) -> np.ndarray:
            decoders.fill(cache, rows, decoder, memory)
            return cache.pictures[rows]

        return grouped(self._plans, together, kept, self._ask)


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
    compiled: LoaderKernels | None,
) -> decoders.Finished:
    """Yield the images of a rank's batches and what they are of; close all that it has in the end.

    Parameters as `Source` and `pipeline.loader.build_loader` have them.
    """
    with ExitStack() as stack:
        if cache is not None:
            stack.callback(cache.close)
        native, changed = decode == "native", augmentation.changes_pixels
        many = decoders.together(batch_size)
        if scan is not None and not native and not scan.has_gaps():
            reading = DaliReaderDecoder(
                records,
                scan,
                reader,
                batch_size=batch_size,
                decode=decode,
                threads=threads,
                augmentation=augmentation,
                ctx=ctx,
                index_folder=index_folder,
            )
            stack.callback(reading.close)
            yield from reading(window_plans(scan, begin.epoch, batch_size, augmentation, compiled))
        decoder = None
        if native or cache is not None:
            decoder = PictureDecoder(
                *(records, reader, many * batch_size, threads), compiled if native else None
            )
            stack.callback(decoder.close)
        source = Source(
            *(plans, begin, blocks, scan, records, reader, batch_size),
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
