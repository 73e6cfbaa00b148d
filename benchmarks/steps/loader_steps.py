# SPDX-License-Identifier: Apache-2.0
"""Loaders that run on MXNet, ours and the baselines, for benchmarks/loader_throughput.py.

Each loader gives float32 RGB images (B, 3, 112, 112) in random order, randomly mirrored and
normalised: (x - 127.5) / 128.  They are in an MXNet array that is ready to read.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any

from benchmarks.harness.worker import Work, serve
from benchmarks.steps import loader_limits, loaders_baselines, loaders_ours, page_cache
from launch.ranks.malloc import keep_memory
from launch.ranks.threads import share_cores

PREFETCHED_BATCHES = 16  # upper limit for loaders without workers

Source = Callable[[Path, str, int, int], Iterator[Any]]
"""(record set or .rec, temporary folder, images per batch, workers) -> images for `_take`."""

SOURCES: dict[str, Source] = {
    "random": partial(loaders_ours.ours, reader="random"),
    "random-dali": partial(loaders_ours.ours, reader="random", decode="cpu"),
    "window-dali": partial(loaders_ours.ours, reader="window", decode="cpu"),
    "blocks": partial(loaders_ours.ours, reader="blocks"),
    "window": partial(loaders_ours.ours, reader="window"),
    "cache": loaders_ours.cached,
    "synthetic": loaders_ours.synthetic,
    "raw": loader_limits.raw_decode,
    "native": loader_limits.native_decode,
    "convert": loader_limits.convert,
}
IMAGE_REC_SOURCES: dict[str, Source] = {  # they read a .rec whose .idx lists images only
    "transforms": loaders_baselines.gluon_transforms,
    "cv2": loaders_baselines.gluon_cv2,
    "iterator": loaders_baselines.record_iterator,
    "iterators": loaders_baselines.record_iterators,
    "dali": loader_limits.dali_decode,
}


def build(
    *,
    kind: str,
    records: str,
    image_rec: str,
    scratch: str,
    batch: int,
    batches: int,
    workers: int = 0,
    cold: bool = False,
) -> Work:
    """Build the work of a loader.

    Parameters
    ----------
    kind
        Key of SOURCES or IMAGE_REC_SOURCES.
    records, image_rec, scratch
        Folder of the record set, a .rec of it whose .idx lists images only, as the baselines need
        it, and a temporary folder.
    batch, batches
        Images per batch, batches per step.
    workers
        Number of DataLoader workers, of threads or of iterators.
    cold
        Drop the set's file from the page cache and restart the loader before each request.  The
        first step includes the start.
    """
    own = kind in SOURCES
    source = SOURCES[kind] if own else IMAGE_REC_SOURCES[kind]
    start = partial(source, Path(records if own else image_rec), scratch, batch, workers)
    if cold:
        return _cold(start, loaders_ours.opened(Path(records), scratch).files, batches)
    stream = start()
    # A loader that is not available raises LeftOut at its first batch.
    stream = chain([next(stream)], stream)
    prefetched = {"transforms": 2 * workers, "cv2": 2 * workers, "iterators": 6 * workers}
    return Work(
        step=lambda _: _take(stream, batches),
        state_bytes=0,
        parameters=0,
        versions=versions(),
        # Skip batches that were prefetched during the turns of others.
        begin=lambda: _take(stream, prefetched.get(kind, PREFETCHED_BATCHES)),
    )


def _cold(start: Callable[[], Iterator[Any]], files: tuple[Path, ...], batches: int) -> Work:
    """Return the work of a loader that restarts on uncached files with each request."""
    running: list[Any] = []
    mib_before = 0.0

    def begin() -> None:
        nonlocal mib_before
        for rec in files:
            page_cache.drop(rec)
        mib_before = page_cache.disk_mib()
        running.append(start())

    def end() -> dict[str, float]:
        mib = page_cache.disk_mib() - mib_before
        running.pop().close()
        gc.collect()  # unmap the file; the kernel keeps mapped pages in the page cache
        return {"disk_mib": mib}

    return Work(
        step=lambda _: _take(running[0], batches),
        state_bytes=0,
        parameters=0,
        versions=versions(),
        begin=begin,
        end=end,
    )


def _take(stream: Iterator[Any], count: int) -> float:
    """Take batches and wait until each is ready to read; return 0."""
    for image in islice(stream, count):
        if hasattr(image, "wait_to_read"):
            image.wait_to_read()
    return 0.0


def versions() -> dict[str, str]:
    """Return the versions of the libraries in a training run."""
    from launch.environment import provenance

    return {k: v for k, v in provenance.versions().items() if k != "python"}


def warm() -> None:
    """Import the libraries of a training run, in its order."""
    share_cores()
    keep_memory()
    import mxnet  # noqa: F401

    import ops
    import pipeline.decode.dali  # noqa: F401

    ops.use("auto")


if __name__ == "__main__":
    serve(build, warm)
