# SPDX-License-Identifier: Apache-2.0
"""Choose the decode mode for ``data.decode=auto``.

The fastest mode depends on the GPU, the number of CPU cores per rank and the image sizes.
Therefore all ranks with a GPU time every mode with the real decoders and a sample of the run's
images.  At any time, all ranks time the same mode.
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
from pipeline.decode.dali_decoder import IN_FLIGHT_GROUPS
from pipeline.decode.decoders import NoDecoder, batches_per_group, make_decoder
from pipeline.decode.faults import GraphError
from pipeline.records.reader import RecordReader
from pipeline.sampling.bad_images import BadImages
from pipeline.sampling.batches import batch_plans
from pipeline.sampling.epoch_orders import Position

if TYPE_CHECKING:
    import mxnet as mx

    from ops.feed import LoaderKernels
    from pipeline.records import RecordSet
    from pipeline.sampling.augmentation import Augmentation
    from pipeline.sampling.samplers import Upcoming

# Approximate number of images that are decoded again and again to time a decode mode.
SAMPLE_IMAGES = 512
# Number of images that the compiled decoder decodes as a trial on a machine without a GPU.
PROBE_IMAGES = 64
# Largest fraction of the trial images that the compiled decoder may be unable to decode.  If it
# cannot decode a larger fraction, the decode mode is "cpu".
MAX_FALLBACK_FRACTION = 0.5


def choose_decode_path(
    records: RecordSet,
    *,
    batch_size: int,
    threads: int,
    ctx: mx.Context,
    augmentation: Augmentation,
    gather: Callable[[np.ndarray], np.ndarray],
    seconds: float = 1.0,
    permitted_bad_images: int | None = None,
) -> tuple[str, str]:
    """Choose the decode mode for the run; return its name and a line for the log.

    All ranks must call this function together, and all get the same result.  With GPUs all
    ranks time the same mode at the same time, because the ranks share CPU cores and the disk.
    Without a GPU no mode is timed: the result is "native" if the compiled decoder is available and
    supports at least half of PROBE_IMAGES random images, else "cpu".

    ``gather`` is a blocking allgather that concatenates the arrays of all ranks.  ``seconds`` is
    the time for which each mode is measured.  ``permitted_bad_images`` has the same meaning as in
    ``build_loader``.  Raises ValueError if no mode works on every rank.
    """
    if ctx.device_type != "gpu":
        return _choose_without_gpu(records, gather)
    first_error: Exception | None = None
    columns = []
    sample = partial(sample_batches, records, batch_size=batch_size, threads=threads, ctx=ctx)
    if permitted_bad_images is not None:
        sample = partial(sample, permitted_bad_images=permitted_bad_images)
    for path in PATHS:
        batches, rate = sample(path, augmentation=augmentation), 0.0
        try:
            rate = measure(batches, batch_size, seconds, ready=lambda: gather(np.zeros(1)))
        except Exception as error:
            # Horovod: the other ranks wait for this rank in every gather, so this rank raises the
            # error only after its last gather.
            first_error = first_error or error
        columns.append(gather(np.array([rate])))
    release_memory()
    if first_error is not None:
        raise first_error
    rates_of_ranks = np.stack(columns, axis=1)
    name, slowest, ranks = fastest_path(rates_of_ranks), rates_of_ranks.min(axis=0), len(columns[0])
    rates = {path: f"{round(rate, -2):,.0f}" for path, rate in zip(PATHS, slowest, strict=True)}
    where = "on this rank" if ranks == 1 else f"on the slowest of {ranks} ranks"
    others = ", ".join(f"{path} {rate}" for path, rate in rates.items() if path != name)
    return name, f"decode: {name}, {rates[name]} images/s {where} (other modes: {others})"


def sample_rows(records: RecordSet, count: int) -> np.ndarray:
    """Draw random rows of a record set with a fixed seed; return them sorted, int64 (count,).

    A row may be drawn twice.  Horovod: all ranks get the same rows.  Sorted rows are read in file
    order, which is fastest on a slow disk.
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
    permitted_bad_images: int | None = None,
) -> Generator[mx.nd.NDArray, None, None]:
    """Decode the same random images again and again; yield the decoded batches endlessly.

    ``path`` is the name of the decode mode.  The decoder is the one that the run would use.
    """
    steps = _sample_steps(batch_size)
    sampler = _SampleSampler(sample_rows(records, steps * batch_size), batch_size)
    batches = islice(sampler.batches(Position()), steps)
    plans = list(batch_plans(records, batches, seed=0, augmentation=augmentation))
    options: dict[str, Any] = {"threads": threads, "augmentation": augmentation, "ctx": ctx}
    bad_images = BadImages(records, permitted_bad_images)
    decoder = make_decoder(path, records, sampler, bad_images=bad_images, **options)
    images = decoder(map(bad_images.replace, cycle(plans)))
    try:
        for image, _ in images:
            yield image
    finally:
        images.close()
        decoder.close()


def _sample_steps(batch_size: int) -> int:
    return max(2, -(-SAMPLE_IMAGES // batch_size))


class _SampleSampler:
    """Sampler that yields the batches of a fixed list of rows again and again.

    The rows may contain duplicates, so the record set may have fewer images than the sample.
    """

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
    """Time a decode mode; return its images/s, or 0.0 if the mode fails.

    ``batches`` is the generator that ``sample_batches`` returned for the mode; `measure` closes the
    generator.  ``ready`` is called once between warm-up and measurement, even if the warm-up fails,
    so that all ranks can start the measurement together.
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
    """Take and drop batches until the decoder has allocated all its memory.

    The function drops as many batches as one pass over the sampled images has, plus as many as the
    decoder's queue holds.
    """
    for _ in range(_sample_steps(batch_size) + IN_FLIGHT_GROUPS * batches_per_group(batch_size)):
        next(batches)


def images_per_second(batches: Iterator[mx.nd.NDArray], batch_size: int, seconds: float) -> float:
    """Take batches for at least ``seconds`` seconds; return the measured images/s.

    The decoder's queue is full at the start and at the end.  Therefore the decoder decodes as many
    batches during the measurement as the function takes.
    """
    images, start, elapsed = 0, time.perf_counter(), 0.0
    while elapsed < seconds:
        next(batches)  # Sync: returns when the batch is decoded and is in an NDArray
        images += batch_size
        elapsed = time.perf_counter() - start
    return images / elapsed


def fastest_path(rates_of_ranks: np.ndarray, names: Sequence[str] = tuple(PATHS)) -> str:
    """Return the name of the decode mode whose slowest rank has the highest rate.

    Every training step waits for the slowest rank.  If several modes are equally fast, the first of
    them is returned.  ``rates_of_ranks`` holds images/s as an array (ranks, modes), with 0 where a
    rank cannot use a mode.  ``names`` holds the names of the modes.
    """
    slowest = np.asarray(rates_of_ranks).min(axis=0)
    if not slowest.max() > 0:
        raise ValueError(
            "data.decode: 'auto' finds no mode that decodes a sample of the images on every rank, "
            f"got 0 images/s on at least one rank for each of {', '.join(names)}; use "
            "data.decode=cpu, whose error message names the damaged image if there is one"
        )
    return names[int(slowest.argmax())]


def _choose_without_gpu(
    records: RecordSet, gather: Callable[[np.ndarray], np.ndarray]
) -> tuple[str, str]:
    kernels, first_error, count = loader_kernels(), None, PROBE_IMAGES
    try:
        if kernels is not None:
            count = fallback_count(records, kernels)
    except Exception as error:
        # Horovod: raise the error only after the gather, where the other ranks wait for this rank.
        first_error = error
    compiled, counts = gather(np.array([[kernels is not None, count]])).T
    if first_error is not None:
        raise first_error
    if not compiled.all():
        return "cpu", "decode: cpu, because the compiled functions are not available"
    if counts.max() > MAX_FALLBACK_FRACTION * PROBE_IMAGES:
        return "cpu", (
            f"decode: cpu, because the compiled decoder does not support {counts.max():.0f} of "
            f"{PROBE_IMAGES} sample images"
        )
    return "native", "decode: native, the compiled JPEG decoder on the CPU"


def fallback_count(records: RecordSet, kernels: LoaderKernels) -> int:
    """Return how many of PROBE_IMAGES random images the compiled decoder cannot decode."""
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
