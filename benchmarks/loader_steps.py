# SPDX-License-Identifier: Apache-2.0
"""Loaders that run on MXNet, ours and others, as the other end of benchmarks/loader_throughput.py.

All give the same: float32 (B, 3, 112, 112), x of 0 to 255 as (x - 127.5) / 128, RGB, mirrored by
chance, in random order, in an MXNet array that can be read.
"""

from __future__ import annotations

import ctypes
import gc
import mmap
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any

from benchmarks import rivals
from benchmarks.process import CORES
from benchmarks.worker import LeftOut, Work, serve
from launch.memory import keep_memory
from launch.threads import share_cores

MEAN, STD = 127.5, 128.0
AHEAD = 16  # batches that are made ahead at most, by loaders without workers
WINDOW_SHARE = 16  # of the set are in the window, as 16,384 are of 262,144: it is filled each epoch
MOST_IN_MEMORY = 0.02  # of a file that was dropped
CONVERTED = 4096  # decoded images that the conversion alone goes through


def build(
    kind: str,
    records: str,
    pictures: str,
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
        "random", "blocks", "window" or "cache" (ours), "transforms" or "cv2" (Gluon DataLoader),
        "iterator" (ImageRecordIter), "synthetic"; "raw", "dali", "convert" (ceilings).
    records, pictures, scratch
        Folder of the record set, a .rec of it whose .idx lists pictures alone, which is all that
        others can read, and a folder to write to.
    batch, batches
        Images of a batch, batches of a step.
    workers
        Of a DataLoader, or threads.
    cold
        Before each request drop what the system keeps of the set's file, and begin the loader anew.
    """
    source, at = SOURCES[kind], Path(pictures if kind in ALONE else records)
    if not cold:
        stream = chain.from_iterable(_endless(source, at, scratch, batch, workers))
        return Work(
            lambda _: _read(stream, batches),
            *(0, 0, versions()),
            begin=lambda: _drain(stream, kind, workers),
        )
    running: list[Iterator[Any]] = []

    def begin() -> None:
        running.append(_dropped_first(source, at, scratch, batch, workers))

    def end() -> dict[str, float]:
        running.pop().close()  # type: ignore[attr-defined]
        gc.collect()  # no map of the file is left, or the next one cannot drop it
        return {}

    read = partial(_read_of, running, batches)
    return Work(read, 0, 0, versions(), begin=begin, end=end)


def _read_of(running: list[Iterator[Any]], batches: int, mark: Callable[[], None]) -> float:
    return _read(running[0], batches)


def _read(stream: Iterator[Any], count: int) -> float:
    """Take batches, and wait until each can be read; return a number of the last one."""
    for image in islice(stream, count):
        if hasattr(image, "wait_to_read"):
            image.wait_to_read()
    return 0.0


def _drain(stream: Iterator[Any], kind: str, workers: int) -> None:
    """Take what was made ahead while others had their turns; a DataLoader's workers do two each."""
    _read(stream, 2 * workers if kind in ("transforms", "cv2") else AHEAD)


def _endless(source: Callable[..., Iterator[Any]], *arguments: Any) -> Iterator[Iterator[Any]]:
    while True:
        yield source(*arguments)


def _dropped_first(
    source: Callable[..., Iterator[Any]], records: Path, *rest: Any
) -> Iterator[Any]:
    for rec in records.glob("*.rec"):
        with open(rec, "rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        if (share := in_memory(rec)) > MOST_IN_MEMORY:
            raise RuntimeError(f"{share:.0%} of {rec.name} stay in memory: somebody maps it")
    yield from source(records, *rest)


def in_memory(path: Path) -> float:
    """Return the share of a file's pages that the system holds in memory."""
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, mmap.MAP_PRIVATE) as data:
        held = (ctypes.c_ubyte * -(-len(data) // mmap.PAGESIZE))()
        address = ctypes.addressof(begin := ctypes.c_char.from_buffer(data))
        failed = ctypes.CDLL(None, use_errno=True).mincore(
            ctypes.c_void_p(address), ctypes.c_size_t(len(data)), held
        )
        del begin  # or the map cannot be closed
        if failed:
            raise OSError(ctypes.get_errno(), "mincore")
        return sum(page & 1 for page in held) / len(held)


def _ours(records: Path, scratch: str, batch: int, **options: Any) -> Iterator[Any]:
    from pipeline import build_loader
    from pipeline.records import open_records

    opened = open_records(records, scratch)
    if "share" in options:
        options["window"] = max(1, len(opened) // options.pop("share"))
    if options.pop("cached", False):
        from pipeline.decoded_cache import DecodedCache

        options["cache"] = DecodedCache(opened, 1 << 20)
    loader = build_loader(
        *("dali", opened, batch), threads=CORES, index_folder=Path(scratch) / "index", **options
    )
    try:
        if "cache" in options:  # nobody is timed while it is filled
            _read((b.image for b in loader), len(opened) // batch + 1)
        for item in loader:
            yield item.image
    finally:
        loader.close()


def _random(records: Path, scratch: str, batch: int, workers: int) -> Iterator[Any]:
    return _ours(records, scratch, batch, reader="random")


def _window(records: Path, scratch: str, batch: int, workers: int) -> Iterator[Any]:
    return _ours(records, scratch, batch, reader="window", share=WINDOW_SHARE)


def _blocks(records: Path, scratch: str, batch: int, workers: int) -> Iterator[Any]:
    return _ours(records, scratch, batch, reader="blocks", share=WINDOW_SHARE)


def _cache(records: Path, scratch: str, batch: int, workers: int) -> Iterator[Any]:
    return _ours(records, scratch, batch, cached=True)


def _synthetic(records: Path, scratch: str, batch: int, workers: int) -> Iterator[Any]:
    from pipeline import build_loader
    from pipeline.records import open_records

    loader = build_loader("synthetic", open_records(records, scratch), batch)
    return (item.image for item in loader)


def _transforms(rec: Path, scratch: str, batch: int, workers: int) -> Iterator[Any]:
    """Yield epochs of Gluon's own classes, as its tutorials put them together."""
    from mxnet.gluon.data.vision import ImageRecordDataset, transforms

    steps = [transforms.RandomFlipLeftRight(), transforms.ToTensor()]  # 0 to 1
    steps.append(transforms.Normalize(MEAN / 255, STD / 255))
    data = ImageRecordDataset(str(rec))
    return _data_loader(data.transform_first(transforms.Compose(steps)), batch, workers)


def _cv2(rec: Path, scratch: str, batch: int, workers: int) -> Iterator[Any]:
    """Yield epochs of a Gluon DataLoader whose dataset decodes with OpenCV, in NumPy."""
    from benchmarks.record_dataset import RecordDataset

    return _data_loader(RecordDataset(str(rec), MEAN, STD), batch, workers)


def _data_loader(data: Any, batch: int, workers: int) -> Iterator[Any]:
    from mxnet import gluon

    loader = gluon.data.DataLoader(
        data, batch, shuffle=True, last_batch="discard", num_workers=workers
    )
    while True:  # the workers stay, as they do in a training script
        for image, _ in loader:
            yield image


def _iterator(rec: Path, scratch: str, batch: int, workers: int) -> Iterator[Any]:
    """Yield epochs of MXNet's iterator in C++."""
    import mxnet as mx

    found = mx.io.ImageRecordIter(
        path_imgrec=str(rec),
        path_imgidx=str(rec.with_suffix(".idx")),
        data_shape=(3, 112, 112),
        batch_size=batch,
        shuffle=True,
        rand_mirror=True,
        preprocess_threads=workers,
        **{f"mean_{colour}": MEAN for colour in "rgb"},
        **{f"std_{colour}": STD for colour in "rgb"},
    )
    while True:
        for item in found:
            yield item.data[0]
        found.reset()


def _raw(records: Path, scratch: str, batch: int, workers: int) -> Iterator[Any]:
    """Yield an epoch of nothing but libjpeg-turbo, on all cores: bytes that nobody converts."""
    import numpy as np

    rivals.use_folder()
    try:
        import simplejpeg
    except ImportError as error:
        raise LeftOut(f"no simplejpeg: {error}") from None

    from pipeline.record_reader import RecordReader
    from pipeline.records import open_records

    opened = open_records(records, scratch)
    jpegs = [jpeg.tobytes() for jpeg in RecordReader(opened).read(np.arange(len(opened)))]

    def decode(part: list[bytes]) -> None:
        for jpeg in part:
            simplejpeg.decode_jpeg(jpeg)  # without Python's lock

    many = _many(batch) * batch
    with ThreadPoolExecutor(CORES) as pool:
        while True:
            for start in range(0, len(jpegs) - many + 1, many):
                these = jpegs[start : start + many]
                list(pool.map(decode, [these[core::CORES] for core in range(CORES)]))
                yield from range(many // batch)


def _dali(rec: Path, scratch: str, batch: int, workers: int) -> Iterator[Any]:
    """Yield what DALI's reader and decoder alone can do: bytes in DALI's memory."""
    from pipeline.dali import decoded_alone

    many = _many(batch)
    for _ in decoded_alone(rec, rec.with_suffix(".idx"), many * batch, CORES):
        yield from range(many)


def _many(batch: int) -> int:
    """Return how many batches the ceilings do in one go: as many as ours."""
    from pipeline.decoding import together

    return together(batch)


def _convert(records: Path, scratch: str, batch: int, workers: int) -> Iterator[Any]:
    """Yield the conversion alone, on all cores: pictures in memory to arrays that are there."""
    import mxnet as mx
    import numpy as np

    import ops
    from pipeline.hand_over import Normaliser

    feed = ops.feed()
    if feed is None:
        raise LeftOut("the operators are not compiled")
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (CONVERTED, 112, 112, 3), dtype=np.uint8)
    normalise = Normaliser(feed, (112, 112), MEAN, STD, mx.cpu(), CORES)
    while True:
        rows, mirror = random.integers(0, CONVERTED, batch), random.random(batch) < 0.5
        yield normalise(pixels.ctypes.data, rows, mirror)


SOURCES: dict[str, Callable[[Path, str, int, int], Iterator[Any]]] = {
    "random": _random,
    "blocks": _blocks,
    "window": _window,
    "cache": _cache,
    "synthetic": _synthetic,
    "transforms": _transforms,
    "cv2": _cv2,
    "iterator": _iterator,
    "raw": _raw,
    "dali": _dali,
    "convert": _convert,
}
ALONE = ("transforms", "cv2", "iterator", "dali")


def versions() -> dict[str, str]:
    """Return the versions of the libraries that a training run uses."""
    from launch import provenance

    return {k: v for k, v in provenance.versions().items() if k != "python"}


def warm() -> None:
    """Load what a training run loads, as it does."""
    share_cores()
    keep_memory()
    import mxnet  # noqa: F401

    import ops
    import pipeline.dali  # noqa: F401

    ops.use("auto")


if __name__ == "__main__":
    serve(build, warm)
