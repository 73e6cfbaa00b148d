# SPDX-License-Identifier: Apache-2.0
"""Which way to decode is the fastest here: measured on pictures of the run, on all ranks at once.

Which one it is depends on the GPU, the cores of each rank and the size of the pictures, so that no
rule says it.  Knows no mxnet.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import cycle

import numpy as np

from pipeline.augmentation import Augmentation, Choices, choose
from pipeline.dali import DecodeGraph, release_memory
from pipeline.decode_paths import PATHS
from pipeline.decode_paths import choose as choose_path
from pipeline.record_reader import RecordReader
from pipeline.records import RecordSet

SECONDS = 1.0
SAMPLE = 512  # pictures that are decoded again and again
DEPTH = 2  # batches in the graph, as the loader has them


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

    Raises
    ------
    RuntimeError
        If DALI cannot decode in this way here.
    """

    def __init__(
        self,
        records: RecordSet,
        path: str,
        batch_size: int,
        threads: int,
        device_id: int | None,
        augmentation: Augmentation,
    ):
        count = max(2, -(-SAMPLE // batch_size))
        # Horovod: the same rows on all ranks, in the order of the file, so that a slow disk is
        # asked for few of them.
        rows = np.sort(np.random.default_rng(0).integers(0, len(records), count * batch_size))
        # Copies: nothing that is timed waits for the disk.
        jpegs = [jpeg.copy() for jpeg in RecordReader(records).read(rows)]
        choices = choose(augmentation, records.ids(rows), 0, 0, records.image_size)
        parts = [slice(k * batch_size, (k + 1) * batch_size) for k in range(count)]
        self._batch_size = batch_size
        self._batches = cycle([(jpegs[p], Choices(*(c[p] for c in choices))) for p in parts])
        self._graph = DecodeGraph(batch_size, path, threads, DEPTH, device_id, augmentation)
        for _ in range(DEPTH):
            self._graph.feed(*next(self._batches))
        for _ in range(count + DEPTH):  # memory has grown to what the largest batch needs
            self.turn()

    def rate(self, seconds: float) -> float:
        """Return the images/s over some seconds.

        As many batches are under way at the end as at the start, and those that are counted are
        finished: ``take`` says why.
        """
        images, start, elapsed = 0, time.perf_counter(), 0.0
        while elapsed < seconds or not images:
            self.turn()
            images += self._batch_size
            elapsed = time.perf_counter() - start
        return images / elapsed

    def turn(self) -> None:
        """Wait for a batch, give it back and feed another one."""
        # Sync: DALI's share_outputs, behind ``take``, holds the host until the GPU has passed the
        # event that is recorded after the last kernel of the batch.
        self._graph.take()
        self._graph.release()
        self._graph.feed(*next(self._batches))


def measure(
    records: RecordSet,
    path: str,
    batch_size: int,
    threads: int,
    device_id: int | None,
    augmentation: Augmentation,
    seconds: float,
    ready: Callable[[], object] = lambda: None,
) -> float:
    """Return the images/s of a path; 0.0 where DALI cannot take it on this machine.

    Parameters
    ----------
    records, path, batch_size, threads, device_id, augmentation
        As `Probe` has them.
    seconds
        How long is measured, after the warm-up.
    ready
        Called once, between warm-up and measurement, also when the warm-up failed.
    """
    try:
        probe = Probe(records, path, batch_size, threads, device_id, augmentation)
    except RuntimeError:
        return 0.0
    finally:
        ready()
    try:
        return probe.rate(seconds)
    except RuntimeError:
        return 0.0


def fastest_path(
    records: RecordSet,
    batch_size: int,
    threads: int,
    device_id: int | None,
    augmentation: Augmentation,
    gather: Callable[[np.ndarray], np.ndarray],
    seconds: float = SECONDS,
) -> tuple[str, str]:
    """Return the name of the path that the run should take, and a sentence for the log.

    All ranks call it together and get the same.  They share cores and disk, so each path is
    measured on all of them at the same time.  Without a GPU nothing is measured.

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

    Raises
    ------
    ValueError
        If there is no path that every rank can take.
    """
    if device_id is None:
        return "cpu", "decode: cpu (the only way without a GPU)"
    fault: Exception | None = None
    columns = []
    for path in PATHS:
        rate = 0.0
        try:
            rate = measure(
                *(records, path, batch_size, threads, device_id, augmentation, seconds),
                ready=lambda: gather(np.zeros(1)),
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


def _sentence(name: str, rates_of_ranks: np.ndarray) -> str:
    """Return what was measured, of each path that of the slowest rank, to the next hundred."""
    slowest = rates_of_ranks.min(axis=0)
    rates = {path: f"{round(rate, -2):,.0f}" for path, rate in zip(PATHS, slowest, strict=True)}
    ranks = len(rates_of_ranks)
    where = "here" if ranks == 1 else f"on the slowest of {ranks} ranks"
    others = ", ".join(f"{path} {rate}" for path, rate in rates.items() if path != name)
    return f"decode: {name}, {rates[name]} images/s {where} ({others})"
