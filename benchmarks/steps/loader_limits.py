# SPDX-License-Identifier: Apache-2.0
"""Run single stages of our loaders; a complete loader cannot be faster than one of its stages.

Each public function is a generator that runs one stage and yields one item per batch.
benchmarks/steps/loader_steps.py counts the items and ignores their values.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.harness import baselines
from benchmarks.harness.inputs import MEAN, STD
from benchmarks.harness.process import CORES
from benchmarks.harness.worker import LeftOut
from benchmarks.steps.loaders_ours import opened, subset

if TYPE_CHECKING:
    from ops.feed import LoaderKernels


def raw_decode(path: Path, scratch: str, batch: int, workers: int) -> Iterator[Any]:
    """Decode JPEGs on all cores with libjpeg-turbo alone, without normalising the pixels."""
    baselines.use_folder()
    try:
        import simplejpeg
    except ImportError as error:
        raise LeftOut(f"simplejpeg cannot be imported: {error}") from None

    images = _group_batches(batch) * batch
    jpegs = _jpegs(path, scratch, images)

    def decode(part: list[bytes]) -> None:
        for jpeg in part:
            simplejpeg.decode_jpeg(jpeg)  # The threads run in parallel: this call releases the GIL.

    with ThreadPoolExecutor(CORES) as pool:
        while True:
            for start in range(0, len(jpegs) - images + 1, images):
                group = jpegs[start : start + images]
                list(pool.map(decode, [group[core::CORES] for core in range(CORES)]))
                yield from range(images // batch)


def dali_decode(rec: Path, scratch: str, batch: int, workers: int) -> Iterator[Any]:
    """Read and decode JPEGs with DALI alone, without normalising or copying the pixels."""
    from benchmarks.steps.dali_decode import decode_alone

    batches = _group_batches(batch)
    for _ in decode_alone(rec, rec.with_suffix(".idx"), batches * batch, CORES):
        yield from range(batches)


def native_decode(path: Path, scratch: str, batch: int, workers: int) -> Iterator[Any]:
    """Decode JPEGs in memory to normalised NCHW images with our decoder alone."""
    import numpy as np

    images = _group_batches(batch) * batch
    size = subset(opened(path, scratch)).image_size
    jpegs = [np.frombuffer(jpeg, np.uint8) for jpeg in _jpegs(path, scratch, images)]
    addresses = np.array([jpeg.ctypes.data for jpeg in jpegs])
    sizes = np.array([jpeg.size for jpeg in jpegs])
    out = np.empty((images, 3, *size), np.float32)
    mirror = np.random.default_rng(0).random(images) < 0.5
    decoder = _kernels().decoder(CORES)
    while True:
        for start in range(0, len(jpegs) - images + 1, images):
            part = slice(start, start + images)
            started = decoder.to_planes(
                addresses=addresses[part],
                sizes=sizes[part],
                image_size=size,
                mirror=mirror,
                mean=MEAN,
                std=STD,
                out=out.ctypes.data,
                source=jpegs,
                holder=out,
            )
            if len(decoder.wait(started)):
                raise LeftOut("the set has images that our decoder does not support")
            yield from range(images // batch)


def convert(path: Path, scratch: str, batch: int, workers: int) -> Iterator[Any]:
    """Mirror and normalise random uint8 pixels with our kernel, and yield NCHW batches.

    No JPEG is decoded.
    """
    import mxnet as mx
    import numpy as np

    from pipeline.decode.to_mxnet import Normalizer

    random, records = np.random.default_rng(0), subset(opened(path, scratch))
    pixels = random.integers(0, 256, (len(records), *records.image_size, 3), dtype=np.uint8)
    normalise = Normalizer(_kernels(), records.image_size, mx.cpu(), CORES)
    while True:
        rows, mirror = random.integers(0, len(records), batch), random.random(batch) < 0.5
        yield normalise(pixels.ctypes.data, rows, mirror)


def _kernels() -> LoaderKernels:
    """Return the compiled functions of our loaders; raise LeftOut if they are not compiled."""
    import ops

    kernels = ops.loader_kernels()
    if kernels is None:
        raise LeftOut("the native operators are not compiled")
    return kernels


def _jpegs(path: Path, scratch: str, min_count: int) -> list[bytes]:
    """Return at least ``min_count`` JPEGs of a record set, with repetitions if the set is small."""
    import numpy as np

    from pipeline.records.reader import RecordReader

    records = subset(opened(path, scratch))
    jpegs = [jpeg.tobytes() for jpeg in RecordReader(records).read(np.arange(len(records)))]
    return jpegs * -(-min_count // len(jpegs))


def _group_batches(batch: int) -> int:
    """Return the number of batches of size ``batch`` that our loaders decode at a time."""
    from pipeline.decode.decoders import batches_per_group

    return batches_per_group(batch)
