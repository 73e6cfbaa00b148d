# SPDX-License-Identifier: Apache-2.0
"""Which way to decode is the fastest here: measured on pictures of the run, on all ranks at once.

Which one it is depends on the GPU, the cores of each rank and the size of the pictures, so that no
rule says it.  Knows no mxnet.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from itertools import cycle
from typing import TYPE_CHECKING, Any

import numpy as np

from encoded_images import may_turn, upright
from pipeline.decode.dali import PATHS, DecodeGraph, release_memory
from pipeline.records.open import RecordSet
from pipeline.records.reader import Memory, RecordReader
from pipeline.sampling.augmentation import Augmentation, Choices, choose

if TYPE_CHECKING:
    from ops.feed import LoaderKernels  # which brings MXNet
    from ops.jpeg_decoder import Decoding, JpegDecoder

SECONDS = 1.0
SAMPLE = 512  # pictures that are decoded again and again
DEPTH = 2  # batches in the graph, as the loader has them
TRIED = 64  # pictures that say whether the compiled decoder is of use
LEFT_MOST = 0.5  # of them, that it may leave to DALI


class Bytes:
    """JPEG bytes in memory."""

    def __init__(self, jpegs: list[np.ndarray]):
        self.jpegs = jpegs
        self.addresses = np.array([jpeg.ctypes.data for jpeg in jpegs])
        self.sizes = np.array([jpeg.size for jpeg in jpegs])


def sample(records: RecordSet, count: int) -> tuple[np.ndarray, list[np.ndarray]]:
    """Return random rows of a set and copies of their pictures, as decoders are given them.

    Horovod: the same rows on all ranks, in the order of the file, so that a slow disk is asked for
    few of them.  Nothing that is timed later waits for it.
    """
    rows = np.sort(np.random.default_rng(0).integers(0, len(records), count))
    reader = RecordReader(records)
    jpegs = [_copied(jpeg) for jpeg in reader.read(rows)]
    reader.check_files()
    return rows, jpegs


def _copied(image: np.ndarray) -> np.ndarray:
    copy = upright(image) if may_turn(image) else None
    return image.copy() if copy is None else copy  # one that is damaged is no decoder's anyway


class Probe:
    """A decode graph that is fed with random pictures of a set, warmed up.

    Parameters
    ----------
    records
        The set.
    path
        Name in PATHS.
    batch_size, threads
        Images per batch, decoder threads.
    device_id
        GPU on which the batches end; None for the memory of the CPU.
    augmentation
        What is done to the images.
    feed
        The compiled functions, for the path "native".

    Raises
    ------
    RuntimeError
        If it cannot be decoded in this way here.
    """

    def __init__(
        self,
        records: RecordSet,
        path: str,
        batch_size: int,
        threads: int,
        device_id: int | None,
        augmentation: Augmentation,
        feed: LoaderKernels | None = None,
    ):
        count = max(2, -(-SAMPLE // batch_size))
        rows, jpegs = sample(records, count * batch_size)
        choices = choose(augmentation, records.ids(rows), 0, 0, records.image_size)
        parts = [slice(k * batch_size, (k + 1) * batch_size) for k in range(count)]
        self._batch_size, self._size = batch_size, records.image_size
        self._batches = cycle([(Bytes(jpegs[p]), Choices(*(c[p] for c in choices))) for p in parts])
        self._left = 0  # pictures of the last batch that the compiled decoder does not take
        self._decoder: JpegDecoder | None = None
        if path == "native":
            if feed is None:
                raise RuntimeError("no compiled functions")
            self._decoder, self._memory = feed.decoder(threads), Memory(DEPTH + 2)
            self._under_way: deque[tuple[Decoding, np.ndarray, Choices]] = deque()
        self._graph = DecodeGraph(
            *(batch_size, path, threads, DEPTH, device_id, augmentation),
            "jpeg" if self._decoder is None else "pixels",
        )
        for _ in range(DEPTH):
            self._graph.feed(*self._next())
        for _ in range(count + DEPTH):  # memory has grown to what the largest batch needs
            self.turn()

    def _next(self) -> tuple[Any, Choices]:
        """Return the next batch as the graph takes it; a compiled decoder works on another one."""
        if self._decoder is None:
            batch, choices = next(self._batches)
            return batch.jpegs, choices
        while len(self._under_way) < 2:
            batch, choices = next(self._batches)
            shape = (self._batch_size, *self._size, 3)
            out = self._memory.take(self._batch_size, shape[1] * shape[2] * 3).reshape(shape)
            started = self._decoder.to_pixels(
                *(batch.addresses, batch.sizes, self._size, out, batch)
            )
            self._under_way.append((started, out, choices))
        started, out, choices = self._under_way.popleft()
        self._left = len(self._decoder.wait(started))
        return out, choices

    def close(self) -> None:
        """End the compiled decoder's threads."""
        if self._decoder is not None:
            self._decoder.close()

    def rate(self, seconds: float) -> float:
        """Return the images/s over some seconds.

        As many batches are under way at the end as at the start, and those that are counted are
        finished: ``take`` says why.
        """
        images, start, elapsed = 0, time.perf_counter(), 0.0
        while elapsed < seconds:
            self.turn()
            images += self._batch_size - self._left  # DALI's part of the work is not measured
            elapsed = time.perf_counter() - start
        return images / elapsed

    def turn(self) -> None:
        """Wait for a batch, give it back and feed another one."""
        # Sync: DALI's share_outputs, behind ``take``, holds the host until the GPU has passed the
        # event that is recorded after the last kernel of the batch.
        self._graph.take()
        self._graph.release()
        self._graph.feed(*self._next())


def measure(
    records: RecordSet,
    path: str,
    batch_size: int,
    threads: int,
    device_id: int | None,
    augmentation: Augmentation,
    seconds: float,
    ready: Callable[[], object] = lambda: None,
    feed: LoaderKernels | None = None,
) -> float:
    """Return the images/s of a path; 0.0 where it cannot be taken on this machine.

    Parameters
    ----------
    records, path, batch_size, threads, device_id, augmentation, feed
        As `Probe` has them.
    seconds
        How long is measured, after the warm-up.
    ready
        Called once, between warm-up and measurement, also when the warm-up failed.
    """
    try:
        probe = Probe(records, path, batch_size, threads, device_id, augmentation, feed)
    except RuntimeError:
        return 0.0
    finally:
        ready()
    try:
        return probe.rate(seconds)
    except RuntimeError:
        return 0.0
    finally:
        probe.close()


def fastest_path(
    records: RecordSet,
    batch_size: int,
    threads: int,
    device_id: int | None,
    augmentation: Augmentation,
    gather: Callable[[np.ndarray], np.ndarray],
    seconds: float = SECONDS,
    feed: LoaderKernels | None = None,
) -> tuple[str, str]:
    """Return the name of the path that the run should take, and a sentence for the log.

    All ranks call it together and get the same.  They share cores and disk, so each path is
    measured on all of them at the same time.  Without a GPU nothing is measured: the compiled
    decoder is taken where there is one and pictures are of its kind.

    Parameters
    ----------
    records, batch_size, threads, augmentation
        Of the run: images per batch and decoder threads of a rank.
    device_id
        GPU of this rank, None without one.
    gather
        Returns the rows of all ranks, by rank; waits for all of them.
    seconds
        How long each path is measured.
    feed
        The compiled functions, if there are any.

    Raises
    ------
    ValueError
        If there is no path that every rank can take.
    """
    if device_id is None:
        return _without_gpu(records, gather, feed)
    fault: Exception | None = None
    columns = []
    for path in PATHS:
        rate = 0.0
        try:
            rate = measure(
                *(records, path, batch_size, threads, device_id, augmentation, seconds),
                ready=lambda: gather(np.zeros(1)),
                feed=feed,
            )
        except Exception as error:
            # Horovod: whatever happens here, the other ranks wait for this one in every gather.
            fault = fault or error
        columns.append(gather(np.array([rate])))
    release_memory()
    if fault is not None:
        raise fault
    rates_of_ranks = np.stack(columns, axis=1)
    name = choose_path(rates_of_ranks)
    return name, _sentence(name, rates_of_ranks)


def choose_path(rates_of_ranks: np.ndarray, names: Sequence[str] = tuple(PATHS)) -> str:
    """Return the path whose slowest rank is the fastest; of equals the first.

    A step of training waits for the slowest rank.

    Parameters
    ----------
    rates_of_ranks
        (ranks, paths), images/s; 0 where a rank cannot take a path.
    names
        Of the paths, (paths,).

    Raises
    ------
    ValueError
        If there is no path that every rank can take.
    """
    slowest = np.asarray(rates_of_ranks).min(axis=0)
    if not slowest.max() > 0:
        raise ValueError(
            "data.decode: 'auto' finds no way that every rank can decode a sample of the pictures, "
            f"got 0 images/s for each of {', '.join(names)}; with data.decode=cpu a picture that "
            "is damaged is named"
        )
    return names[int(slowest.argmax())]


def _without_gpu(
    records: RecordSet, gather: Callable[[np.ndarray], np.ndarray], feed: LoaderKernels | None
) -> tuple[str, str]:
    fault: Exception | None = None
    left = TRIED
    try:
        left = TRIED if feed is None else _left(records, feed)
    except Exception as error:
        fault = error  # Horovod: the other ranks wait in the gather
    compiled, most = gather(np.array([[feed is not None, left]])).T
    if fault is not None:
        raise fault
    if not compiled.all():
        return "cpu", "decode: cpu, no compiled functions"
    if most.max() > LEFT_MOST * TRIED:
        return "cpu", (
            f"decode: cpu, {most.max():.0f} of {TRIED} pictures are none for the compiled decoder"
        )
    return "native", "decode: native"


def _left(records: RecordSet, feed: LoaderKernels) -> int:
    """Return how many of TRIED pictures the compiled decoder leaves to DALI."""
    _, jpegs = sample(records, TRIED)
    batch, out = Bytes(jpegs), np.empty((TRIED, *records.image_size, 3), np.uint8)
    decoder = feed.decoder(1)
    try:
        started = decoder.to_pixels(*(batch.addresses, batch.sizes, records.image_size, out, batch))
        return len(decoder.wait(started))
    finally:
        decoder.close()


def _sentence(name: str, rates_of_ranks: np.ndarray) -> str:
    """Return what was measured, of each path that of the slowest rank, to the next hundred."""
    slowest = rates_of_ranks.min(axis=0)
    rates = {path: f"{round(rate, -2):,.0f}" for path, rate in zip(PATHS, slowest, strict=True)}
    ranks = len(rates_of_ranks)
    where = "here" if ranks == 1 else f"on the slowest of {ranks} ranks"
    others = ", ".join(f"{path} {rate}" for path, rate in rates.items() if path != name)
    return f"decode: {name}, {rates[name]} images/s {where} ({others})"
