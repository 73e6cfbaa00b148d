# SPDX-License-Identifier: Apache-2.0
"""Loaders that run on MXNet, ours and others, as the other end of benchmarks/loader_throughput.py.

All give the same: float32 (B, 3, 112, 112), x of 0 to 255 as (x - 127.5) / 128, RGB, mirrored by
chance, in random order, in an MXNet array that can be read.
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

PREFETCHED_BATCHES = 16  # at most, by loaders without workers

Source = Callable[[Path, str, int, int], Iterator[Any]]
"""(record set or .rec, scratch folder, images of a batch, workers) -> what `_wait_for` takes."""

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
IMAGE_REC_SOURCES: dict[str, Source] = {  # they read a .rec whose .idx lists images alone
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
    """Build a loader.

    Parameters
    ----------
    kind
        A name of SOURCES or IMAGE_REC_SOURCES.
    records, image_rec, scratch
        Folder of the record set, a .rec of it whose .idx lists images alone, which is all that
        others can read, and a folder to write to.
    batch, batches
        Images of a batch, batches of a step.
    workers
        Of a DataLoader, or threads, or iterators.
    cold
        Before each request drop the set's file from the page cache and start the loader again:
        its start is part of the request's first step.
    """
    own = kind in SOURCES
    source = SOURCES[kind] if own else IMAGE_REC_SOURCES[kind]
    start = partial(source, Path(records if own else image_rec), scratch, batch, workers)
    if cold:
        return _cold(start, loaders_ours.opened(Path(records), scratch).files, batches)
    stream = start()
    # Now: what cannot take part here says so with its first batch.
    stream = chain([next(stream)], stream)
    prefetched = {"transforms": 2 * workers, "cv2": 2 * workers, "iterators": 6 * workers}
    return Work(
        step=lambda _: _wait_for(stream, batches),
        state_bytes=0,
        parameters=0,
        versions=versions(),
        # What was prefetched while others had their turns.
        begin=lambda: _wait_for(stream, prefetched.get(kind, PREFETCHED_BATCHES)),
    )


def _cold(start: Callable[[], Iterator[Any]], files: tuple[Path, ...], batches: int) -> Work:
    """Return the work of a loader that starts, with each request, on files that are on disk."""
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
        gc.collect()  # no map of the file remains, or the next one cannot drop it
        return {"disk_mib": mib}

    return Work(
        step=lambda _: _wait_for(running[0], batches),
        state_bytes=0,
        parameters=0,
        versions=versions(),
        begin=begin,
        end=end,
    )


def _wait_for(stream: Iterator[Any], count: int) -> float:
    """Take batches, and wait until each can be read; return a number of the last one."""
    for image in islice(stream, count):
        if hasattr(image, "wait_to_read"):
            image.wait_to_read()
    return 0.0


def versions() -> dict[str, str]:
    """Return the versions of the libraries that a training run uses."""
    from launch.environment import provenance

    return {k: v for k, v in provenance.versions().items() if k != "python"}


def warm() -> None:
    """Load what a training run loads, as it does."""
    share_cores()
    keep_memory()
    import mxnet  # noqa: F401

    import ops
    import pipeline.decode.dali  # noqa: F401

    ops.use("auto")


if __name__ == "__main__":
    serve(build, warm)
