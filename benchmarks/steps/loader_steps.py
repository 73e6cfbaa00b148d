# SPDX-License-Identifier: Apache-2.0
"""Run our loaders and MXNet's own loaders, for benchmarks/loader_throughput.py.

Each loader yields RGB images in random order, randomly mirrored and normalised as (x - 127.5) /
128.  A batch is a float32 MXNet array of shape (batch, 3, 112, 112) that is ready to read.
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

PREFETCHED_BATCHES = 16  # Loaders without worker processes prefetch at most this many batches.

Source = Callable[[Path, str, int, int], Iterator[Any]]
"""Function that starts a loader and returns its batches of images, which `_take` consumes.

Its arguments are the record set or .rec, a temporary folder, images per batch, number of workers.
"""

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
# These loaders need a .rec whose .idx lists only image records.
IMAGE_REC_SOURCES: dict[str, Source] = {
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
    """Return the `Work` that takes batches from a loader.

    Parameters
    ----------
    kind
        Kind of the loader, a key of SOURCES or IMAGE_REC_SOURCES.
    records
        Folder of the record set.
    image_rec
        Path of a .rec with the images of the set; its .idx lists only image records.
    scratch
        Temporary folder.
    batch, batches
        Number of images per batch, and of batches per step.
    workers
        Number of DataLoader workers, threads or iterators, depending on the kind.
    cold
        Whether to drop the set's files from the page cache and to restart the loader each time the
        benchmark requests a series of steps.  The time of the first step of a series then includes
        the start of the loader.
    """
    own = kind in SOURCES
    source = SOURCES[kind] if own else IMAGE_REC_SOURCES[kind]
    start = partial(source, Path(records if own else image_rec), scratch, batch, workers)
    if cold:
        return _cold(start, loaders_ours.opened(Path(records), scratch).files, batches)
    stream = start()
    # A loader whose package is not installed raises LeftOut here, at its first batch.
    stream = chain([next(stream)], stream)
    prefetched = {"transforms": 2 * workers, "cv2": 2 * workers, "iterators": 6 * workers}
    return Work(
        step=lambda _: _take(stream, batches),
        state_bytes=0,
        parameters=0,
        versions=versions(),
        # Skip batches that this loader prefetched while the other loaders were timed.
        begin=lambda: _take(stream, prefetched.get(kind, PREFETCHED_BATCHES)),
    )


def _cold(start: Callable[[], Iterator[Any]], files: tuple[Path, ...], batches: int) -> Work:
    """Return the `Work` of a loader that reads from disk, not from the page cache.

    At each request of the benchmark, the process drops the files from the page cache and starts the
    loader again.
    """
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
        # Free the closed loader, which unmaps its files: the kernel keeps mapped pages in the page
        # cache.
        gc.collect()
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
    """Take ``count`` batches, and wait until each batch is ready to read; return 0."""
    for image in islice(stream, count):
        if hasattr(image, "wait_to_read"):
            image.wait_to_read()
    return 0.0


def versions() -> dict[str, str]:
    """Return the versions of the libraries of a training run, by library name."""
    from launch.environment import provenance

    return {k: v for k, v in provenance.versions().items() if k != "python"}


def warm() -> None:
    """Import the libraries of a training run, in the order of run_train.py."""
    share_cores()
    keep_memory()
    import mxnet  # noqa: F401

    import ops
    import pipeline.decode.dali  # noqa: F401

    ops.use("auto")


if __name__ == "__main__":
    serve(build, warm)
