# SPDX-License-Identifier: Apache-2.0
"""The fastest decode mode here: real decoders timed on images of the run, on all ranks at once.

It depends on the GPU, the cores of each rank and the size of the images, so that no rule gives it.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from functools import partial
from itertools import cycle, islice
from typing import TYPE_CHECKING, Any

import numpy as np

from ops import loader_kernels
from pipeline.decode.dali import PATHS, release_memory
from pipeline.decode.decoders import DEPTH, NoDecoder, batches_per_group, make_decoder
from pipeline.decode.faults import GraphError
from pipeline.records.reader import RecordReader
from pipeline.sampling.batches import batch_plans
from pipeline.sampling.epoch_orders import Position

if TYPE_CHECKING:
    import mxnet as mx

    from ops.feed import LoaderKernels
    from pipeline.records import RecordSet
    from pipeline.sampling.augmentation import Augmentation
    from pipeline.sampling.samplers import Upcoming

SECONDS = 1.0
SAMPLE_IMAGES = 512  # that are decoded again and again
PROBE_IMAGES = 64  # that say whether our decoder is of use
MAX_FALLBACK_FRACTION = 0.5  # of them, that it may leave to DALI


def choose_decode_path(
    records: RecordSet,
    *,
    batch_size: int,
    threads: int,
    ctx: mx.Context,
    augmentation: Augmentation,
    gather: Callable[[np.ndarray], np.ndarray],
    seconds: float = SECONDS,
) -> tuple[str, str]:
    """Return the name of the decode mode that the run should use, and a sentence for the log.

    All ranks call it together and get the same.  They share cores and disk, so each mode is timed
    on all of them at once.  Without a GPU nothing is timed: our decoder is used if it is compiled
    and supports most of the images.

    Parameters
    ----------
    gather
        Returns the rows of all ranks, by rank; waits for all of them.
    seconds
        How long each mode is timed.

    Raises
    ------
    ValueError
        If there is no mode that every rank can use.
    """
    if ctx.device_type != "gpu":
        return _choose_without_gpu(records, gather)
    fault: Exception | None = None
    columns = []
    sample = partial(sample_batches, records, batch_size=batch_size, threads=threads, ctx=ctx)
    for path in PATHS:
        batches, rate = sample(path, augmentation=augmentation), 0.0
        try:
            rate = measure(batches, batch_size, seconds, ready=lambda: gather(np.zeros(1)))
        except Exception as error:
            # Horovod: whatever happens here, the other ranks wait for this one in every gather.
            fault = fault or error
        columns.append(gather(np.array([rate])))
    release_memory()
    if fault is not None:
        raise fault
    rates_of_ranks = np.stack(columns, axis=1)
    name = fastest_path(rates_of_ranks)
    return name, _sentence(name, rates_of_ranks)


def sample_rows(records: RecordSet, count: int) -> np.ndarray:
    """Return random rows of a set, (count,).

    Horovod: the same rows on all ranks, in the order of the file, so that a slow disk is asked for
    few of them.
    """
    return np.sort(np.random.default_rng(0).integers(0, len(records), count))


def sample_batches(
    records: RecordSet,
    path: str,
    *,
    batch_size: int,
    threads: int,
    ctx: mx.Context,
    augmentation: Augmentation,
) -> Generator[mx.nd.NDArray, None, None]:
    """Yield batches of the same sample again and again, as the decoder of a mode makes them."""
    steps = _sample_steps(batch_size)
    sampler = _SampleSampler(sample_rows(records, steps * batch_size), batch_size)
    batches = islice(sampler.batches(Position()), steps)
    plans = list(batch_plans(records, batches, seed=0, augmentation=augmentation))
    options: dict[str, Any] = {"threads": threads, "augmentation": augmentation, "ctx": ctx}
    decoder = make_decoder(path, records, sampler, **options)
    images = decoder(cycle(plans))
    try:
        for image, _ in images:
            yield image
    finally:
        images.close()
        decoder.close()


class _SampleSampler:
    """The same rows again and again; some may be drawn twice, so that any batch can be filled."""

    def __init__(self, rows: np.ndarray, batch_size: int):
        self.batch_size, self.images_per_epoch = batch_size, len(rows)
        self._batches = np.split(rows, len(rows) // batch_size)

    def start(self, position: Position) -> Position:
        return position

    def batches(self, start: Position) -> Iterator[tuple[np.ndarray, Position]]:
        return ((rows, start) for rows in cycle(self._batches))

    def upcoming(self, start: Position) -> Upcoming:
        return lambda rows, after: rows


def measure(
    batches: Generator[mx.nd.NDArray, None, None],
    batch_size: int,
    seconds: float,
    ready: Callable[[], object] = lambda: None,
) -> float:
    """Return the images/s of ``sample_batches``, and close them; 0.0 if this machine cannot.

    ``ready`` is called once, between warm-up and measurement, also when the warm-up failed.
    """
    with contextlib.closing(batches):
        try:
            try:
                warm_up(batches, batch_size)
            finally:
                ready()
            return images_per_second(batches, batch_size, seconds)
        except (RuntimeError, GraphError, NoDecoder):
            return 0.0


def warm_up(batches: Iterator[mx.nd.NDArray], batch_size: int) -> None:
    """Take the sample's batches once and what is in flight: memory is as large as it will be."""
    for _ in range(_sample_steps(batch_size) + DEPTH * batches_per_group(batch_size)):
        next(batches)


def images_per_second(batches: Iterator[mx.nd.NDArray], batch_size: int, seconds: float) -> float:
    """Return the images/s over some seconds; as many are in flight at the end as at the start."""
    images, start, elapsed = 0, time.perf_counter(), 0.0
    while elapsed < seconds:
        next(batches)  # Sync: DALI has finished it and it was copied to MXNet
        images += batch_size
        elapsed = time.perf_counter() - start
    return images / elapsed


def fastest_path(rates_of_ranks: np.ndarray, names: Sequence[str] = tuple(PATHS)) -> str:
    """Return the decode mode whose slowest rank is the fastest, as a step waits for it.

    Of equals the first.  ``rates_of_ranks`` has images/s (ranks, modes), 0 where a rank cannot use
    a mode.
    """
    slowest = np.asarray(rates_of_ranks).min(axis=0)
    if not slowest.max() > 0:
        raise ValueError(
            "data.decode: 'auto' finds no way that every rank can decode a sample of the images, "
            f"got 0 images/s for each of {', '.join(names)}; with data.decode=cpu an image that "
            "is damaged is named"
        )
    return names[int(slowest.argmax())]


def _sample_steps(batch_size: int) -> int:
    return max(2, -(-SAMPLE_IMAGES // batch_size))


def _choose_without_gpu(
    records: RecordSet, gather: Callable[[np.ndarray], np.ndarray]
) -> tuple[str, str]:
    kernels, fault, count = loader_kernels(), None, PROBE_IMAGES
    try:
        if kernels is not None:
            count = fallback_count(records, kernels)
    except Exception as error:
        fault = error  # Horovod: the other ranks wait in the gather
    compiled, counts = gather(np.array([[kernels is not None, count]])).T
    if fault is not None:
        raise fault
    if not compiled.all():
        return "cpu", "decode: cpu, no compiled functions"
    if counts.max() > MAX_FALLBACK_FRACTION * PROBE_IMAGES:
        return "cpu", (
            f"decode: cpu, {counts.max():.0f} of {PROBE_IMAGES} images are not supported by the "
            "compiled decoder"
        )
    return "native", "decode: native"


def fallback_count(records: RecordSet, kernels: LoaderKernels) -> int:
    """Return how many of PROBE_IMAGES images our decoder leaves to DALI."""
    reader, decoder = RecordReader(records, kernels), kernels.decoder(1)
    out = np.empty((PROBE_IMAGES, *records.image_size, 3), np.uint8)
    addresses, sizes = reader.find(sample_rows(records, PROBE_IMAGES))
    try:
        decoding = decoder.to_pixels(addresses, sizes, records.image_size, out, source=reader)
        count = len(decoder.wait(decoding))
    finally:
        decoder.close()
    reader.check_files()
    return count


def _sentence(name: str, rates_of_ranks: np.ndarray) -> str:
    """Return what was measured, of each mode on the slowest rank, to the next hundred."""
    slowest = rates_of_ranks.min(axis=0)
    rates = {path: f"{round(rate, -2):,.0f}" for path, rate in zip(PATHS, slowest, strict=True)}
    ranks = len(rates_of_ranks)
    where = "here" if ranks == 1 else f"on the slowest of {ranks} ranks"
    others = ", ".join(f"{path} {rate}" for path, rate in rates.items() if path != name)
    return f"decode: {name}, {rates[name]} images/s {where} ({others})"
