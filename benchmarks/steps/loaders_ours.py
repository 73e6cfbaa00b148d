# SPDX-License-Identifier: Apache-2.0
"""Start the loaders of pipeline/ as in a training run, for benchmarks/steps/loader_steps.py."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.harness.inputs import MAX_IMAGES
from benchmarks.harness.process import CORES
from benchmarks.harness.worker import LeftOut

if TYPE_CHECKING:
    from pipeline.records import RecordSet

# The readers "window" and "blocks" shuffle images within a window.  WINDOW_IMAGES is the default
# size of the window (data.window).  On a small record set, the benchmark uses a smaller window:
# MAX_WINDOW_FRACTION of the set.
WINDOW_IMAGES, MAX_WINDOW_FRACTION = 16_384, 1 / 16
CACHE_MIB = 1 << 20  # Limit of the cache of decoded images: 1 TiB, more than any set needs.


@cache
def opened(path: Path, scratch: str) -> RecordSet:
    """Open a record set, with its cached index in the folder ``scratch``."""
    from pipeline.records import open_records

    return open_records(path, scratch)


def subset(records: RecordSet, count: int = MAX_IMAGES) -> RecordSet:
    """Return the record set, reduced to ``count`` evenly spaced images if it has more."""
    import numpy as np

    if len(records) <= count:
        return records
    rows = np.linspace(0, len(records) - 1, count).astype(np.int64)
    tables = {name: getattr(records, name)[rows] for name in ("file", "keys", "offsets", "labels")}
    return replace(records, **tables)


def ours(
    path: Path, scratch: str, batch: int, workers: int, *, reader: str, **options: Any
) -> Iterator[Any]:
    """Yield batches of the complete record set; ``reader`` is a value of data.reader."""
    records = opened(path, scratch)
    if reader != "random":
        options["window"] = min(WINDOW_IMAGES, max(1, int(len(records) * MAX_WINDOW_FRACTION)))
    return _batches(records, scratch, batch, reader=reader, **options)


def cached(path: Path, scratch: str, batch: int, workers: int) -> Iterator[Any]:
    """Yield batches of at most MAX_IMAGES images from the cache of decoded images."""
    from pipeline.decode.cache import CacheError, DecodedCache

    records = subset(opened(path, scratch))
    try:
        decoded = DecodedCache(records, CACHE_MIB)
    except CacheError as error:
        raise LeftOut(str(error)) from None
    batches = _batches(records, scratch, batch, reader="random", cache=decoded)
    # The first epoch fills the cache, before the timing starts.
    for image in islice(batches, len(records) // batch + 1):
        image.wait_to_read()
    yield from batches


def synthetic(path: Path, scratch: str, batch: int, workers: int) -> Iterator[Any]:
    """Yield one fixed batch repeatedly, without reading any image."""
    from pipeline import build_loader

    loader = build_loader("synthetic", opened(path, scratch), batch)
    return (item.image for item in loader)


def _batches(records: RecordSet, scratch: str, batch: int, **options: Any) -> Iterator[Any]:
    from pipeline import build_loader

    index = Path(scratch) / "index"
    loader = build_loader("dali", records, batch, threads=CORES, index_folder=index, **options)
    try:
        for item in loader:
            yield item.image
    finally:
        loader.close()
