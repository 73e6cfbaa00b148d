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
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.harness import baselines
from benchmarks.harness.process import CORES
from benchmarks.harness.worker import LeftOut, Work, serve
from launch.ranks.malloc import keep_memory
from launch.ranks.threads import share_cores

if TYPE_CHECKING:
    from pipeline.records.open import RecordSet

MEAN, STD = 127.5, 128.0
AHEAD = 16  # batches that are made ahead at most, by loaders without workers
# Images that are mixed: as many as data.window says, or a sixteenth of the set, as 16,384 are of
# 262,144: the window reader fills its window each epoch.
WINDOW, WINDOW_SHARE = 16_384, 16
KEPT = 20_000  # images at most of what is held in memory: JPEGs, decoded pictures
MOST_IN_MEMORY = 0.02  # of a file that was dropped
DROPS, DROP_S = 10, 0.1  # times at most, seconds between them
MIB = 1 << 20


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
        "random", "random-dali" (DALI decodes), "blocks", "window" or "cache" (ours), "transforms"
        or "cv2" (Gluon DataLoader), "iterator" (ImageRecordIter), "iterators" (several of them,
        each with a part of the set), "synthetic"; "raw", "dali", "native", "convert" (ceilings).
    records, pictures, scratch
        Folder of the record set, a .rec of it whose .idx lists pictures alone, which is all that
        others can read, and a folder to write to.
    batch, batches
        Images of a batch, batches of a step.
    workers
        Of a DataLoader, or threads, or iterators.
    cold
        Before each request drop what the system keeps of the set's file, and begin the loader anew:
        its start is part of the request's first step.
    """
    source, at = SOURCES[kind], Path(pictures if kind in ALONE else records)
    if cold:
        return _from_disk(source, at, scratch, batch, batches, workers)
    stream = source(at, scratch, batch, workers)
    # Now: what cannot take part here says so with its first batch.
    stream = chain([next(stream)], stream)
    return Work(
        lambda _: _read(stream, batches),
        *(0, 0, versions()),
        begin=lambda: _drain(stream, kind, workers),
    )


def _from_disk(
    source: Callable[..., Iterator[Any]],
    at: Path,
    scratch: str,
    batch: int,
    batches: int,
    workers: int,
) -> Work:
    running: list[Iterator[Any]] = []
    files = _opened(at, scratch).files  # once and now: reading index and labels reads the file, too
    before = 0.0

    def begin() -> None:
        nonlocal before
        for rec in files:
            _drop(rec)
        before = from_disk_mib()
        running.append(source(at, scratch, batch, workers))

    def end() -> dict[str, float]:
        found = from_disk_mib() - before
        running.pop().close()  # type: ignore[attr-defined]
        gc.collect()  # no map of the file is left, or the next one cannot drop it
        return {"disk_mib": found}

    return Work(lambda _: _read(running[0], batches), 0, 0, versions(), begin=begin, end=end)


def _read(stream: Iterator[Any], count: int) -> float:
    """Take batches, and wait until each can be read; return a number of the last one."""
    for image in islice(stream, count):
        if hasattr(image, "wait_to_read"):
            image.wait_to_read()
    return 0.0


def _drain(stream: Iterator[Any], kind: str, workers: int) -> None:
    """Take what was made ahead while others had their turns; a DataLoader's workers do two each."""
    ahead = {"transforms": 2 * workers, "cv2": 2 * workers, "iterators": 6 * workers}
    _read(stream, ahead.get(kind, AHEAD))


def _drop(rec: Path) -> None:
    """Drop what the system keeps of a file in memory.

    Raises
    ------
    RuntimeError
        If it keeps it nevertheless.
    """
    for _ in range(DROPS):
        with open(rec, "rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        if (share := in_memory(rec)) <= MOST_IN_MEMORY:
            return
        time.sleep(DROP_S)  # what is just being read ahead stays until it is there
    raise RuntimeError(f"{share:.0%} of {rec.name} stay in memory: somebody maps it")


def from_disk_mib() -> float:
    """Return the MiB that this process had fetched from disks so far."""
    with open("/proc/self/io") as lines:
        (fetched,) = (int(line.split()[1]) for line in lines if line.startswith("read_bytes:"))
    return fetched / MIB


@cache
def _opened(path: Path, scratch: str) -> RecordSet:
    """Open a set; its parsed index is kept in the folder, which the parent may have done before."""
    from pipeline.records.open import open_records

    return open_records(path, scratch)


def few_of(records: RecordSet, most: int = KEPT) -> RecordSet:
    """Return the set, or so many pictures from all over it."""
    import numpy as np

    if len(records) <= most:
        return records
    rows = np.linspace(0, len(records) - 1, most).astype(np.int64)
    tables = {name: getattr(records, name)[rows] for name in ("file", "keys", "offsets", "labels")}
    return replace(records, **tables)


_IN_MEMORY = bytes(page & 1 for page in range(256))  # mincore's other bits mean nothing


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
        return bytes(held).translate(_IN_MEMORY).count(1) / len(held)


def _ours(records: Path, scratch: str, batch: int, **options: Any) -> Iterator[Any]:
    from pipeline import build_loader
    from pipeline.decode.cache import CacheError, DecodedCache

    opened = _opened(records, scratch)
    if options["reader"] != "random":
        options["window"] = min(WINDOW, max(1, len(opened) // WINDOW_SHARE))
    if options.pop("cached", False):
        opened = few_of(opened)
        try:
            options["cache"] = DecodedCache(opened, 1 << 20)
        except CacheError as error:
            raise LeftOut(str(error)) from None
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


def _random_dali(records: Path, scratch: str, batch: int, workers: int) -> Iterator[Any]:
    return _ours(records, scratch, batch, reader="random", decode="cpu")


def _window(records: Path, scratch: str, batch: int, workers: int) -> Iterator[Any]:
    return _ours(records, scratch, batch, reader="window")


def _blocks(records: Path, scratch: str, batch: int, workers: int) -> Iterator[Any]:
    return _ours(records, scratch, batch, reader="blocks")


def _cache(records: Path, scratch: str, batch: int, workers: int) -> Iterator[Any]:
    """Yield batches out of the decoded cache: of KEPT pictures, where the set has more."""
    return _ours(records, scratch, batch, reader="random", cached=True)


def _synthetic(records: Path, scratch: str, batch: int, workers: int) -> Iterator[Any]:
    from pipeline import build_loader

    loader = build_loader("synthetic", _opened(records, scratch), batch)
    return (item.image for item in loader)


def _transforms(rec: Path, scratch: str, batch: int, workers: int) -> Iterator[Any]:
    """Yield epochs of Gluon's own classes, as its tutorials put them together."""
    from mxnet.gluon.data.vision import ImageRecordDataset, transforms

    steps = [transforms.RandomFlipLeftRight(), transforms.ToTensor()]  # 0 to 1
    steps.append(transforms.Normalize(MEAN / 255, STD / 255))
    data = ImageRecordDataset(str(rec)).transform_first(transforms.Compose(steps))
    return (image for image, _ in _data_loader(data, batch, workers))


def _cv2(rec: Path, scratch: str, batch: int, workers: int) -> Iterator[Any]:
    """Yield epochs of a Gluon DataLoader whose dataset decodes with OpenCV, in NumPy."""
    return (image for image, _ in cv2_data_loader(rec, batch, workers))


def cv2_data_loader(rec: Path, batch: int, workers: int) -> Iterator[tuple[Any, Any]]:
    """Return (image, label) of `_cv2` without end; the workers are forked now."""
    from benchmarks.steps.record_dataset import RecordDataset

    return _data_loader(RecordDataset(str(rec), MEAN, STD), batch, workers)


def _data_loader(data: Any, batch: int, workers: int) -> Iterator[tuple[Any, Any]]:
    from mxnet import gluon

    loader = gluon.data.DataLoader(
        data, batch, shuffle=True, last_batch="discard", num_workers=workers
    )

    def epochs() -> Iterator[tuple[Any, Any]]:
        while True:  # the workers stay, as they do in a training script
            yield from loader

    return epochs()


def _iterator(rec: Path, scratch: str, batch: int, workers: int) -> Iterator[Any]:
    """Yield epochs of MXNet's iterator in C++."""
    return _record_iter(rec, batch, workers)


def _iterators(rec: Path, scratch: str, batch: int, workers: int) -> Iterator[Any]:
    """Yield batches of several of MXNet's iterators in turns, each with a part of the set.

    Each has a thread of its own, so that they use the cores that ``preprocess_threads`` does not:
    MXNet 1.9.1 takes it for max(cores / 2 - 1, 1) where it is more.
    """
    from benchmarks.steps.record_dataset import RecordDataset

    images = len(RecordDataset(str(rec), MEAN, STD))
    if images // workers < batch:
        raise LeftOut(f"{images} images in {workers} parts are no batch of {batch} each")
    parts = [_record_iter(rec, batch, 1, num_parts=workers, part_index=i) for i in range(workers)]
    while True:
        for part in parts:
            yield next(part)


def _record_iter(rec: Path, batch: int, threads: int, **part: int) -> Iterator[Any]:
    import mxnet as mx

    from benchmarks.steps.record_dataset import RecordDataset, ends_with_picture

    rec = ends_with_picture(rec, KEPT)
    height, width = RecordDataset(str(rec), MEAN, STD).pixels(0)[0].shape[:2]
    found = mx.io.ImageRecordIter(
        path_imgrec=str(rec),
        path_imgidx=str(rec.with_suffix(".idx")),
        data_shape=(3, height, width),
        batch_size=batch,
        shuffle=True,
        rand_mirror=True,
        preprocess_threads=threads,
        **part,
        **{f"mean_{colour}": MEAN for colour in "rgb"},
        **{f"std_{colour}": STD for colour in "rgb"},
    )
    while True:
        for item in found:
            yield item.data[0]
        found.reset()


def _jpegs(few: RecordSet, least: int) -> list[bytes]:
    """Return the pictures of a set, in memory; a small set so often that there are enough."""
    import numpy as np

    from pipeline.records.reader import RecordReader

    jpegs = [jpeg.tobytes() for jpeg in RecordReader(few).read(np.arange(len(few)))]
    return jpegs * -(-least // len(jpegs))


def _raw(records: Path, scratch: str, batch: int, workers: int) -> Iterator[Any]:
    """Yield what libjpeg-turbo alone can do on all cores, bytes that nobody converts.

    It goes through the JPEGs of KEPT pictures, which are in memory.
    """
    baselines.use_folder()
    try:
        import simplejpeg
    except ImportError as error:
        raise LeftOut(f"no simplejpeg: {error}") from None

    many = _many(batch) * batch
    jpegs = _jpegs(few_of(_opened(records, scratch)), many)

    def decode(part: list[bytes]) -> None:
        for jpeg in part:
            simplejpeg.decode_jpeg(jpeg)  # without Python's lock

    with ThreadPoolExecutor(CORES) as pool:
        while True:
            for start in range(0, len(jpegs) - many + 1, many):
                these = jpegs[start : start + many]
                list(pool.map(decode, [these[core::CORES] for core in range(CORES)]))
                yield from range(many // batch)


def _dali(rec: Path, scratch: str, batch: int, workers: int) -> Iterator[Any]:
    """Yield what DALI's reader and decoder alone can do: bytes in DALI's memory."""
    from pipeline.decode.dali import decoded_alone

    many = _many(batch)
    for _ in decoded_alone(rec, rec.with_suffix(".idx"), many * batch, CORES):
        yield from range(many)


def _native(records: Path, scratch: str, batch: int, workers: int) -> Iterator[Any]:
    """Yield what our decoder alone can do: normalised planes, of the JPEGs of KEPT pictures."""
    import numpy as np

    import ops

    feed = ops.feed()
    if feed is None:
        raise LeftOut("the operators are not compiled")
    few, many = few_of(_opened(records, scratch)), _many(batch) * batch
    held = [np.frombuffer(jpeg, np.uint8) for jpeg in _jpegs(few, many)]
    addresses = np.array([jpeg.ctypes.data for jpeg in held])
    sizes = np.array([jpeg.size for jpeg in held])
    out = np.empty((many, 3, *few.image_size), np.float32)
    mirror = np.random.default_rng(0).random(many) < 0.5
    decoder = feed.decoder(CORES)
    while True:
        for start in range(0, len(held) - many + 1, many):
            part, planes = slice(start, start + many), out.ctypes.data
            started = decoder.to_planes(
                *(
                    addresses[part],
                    sizes[part],
                    few.image_size,
                    mirror,
                    MEAN,
                    STD,
                    planes,
                    held,
                    out,
                )
            )
            if len(decoder.wait(started)):
                raise LeftOut("there are pictures that it leaves to DALI")
            yield from range(many // batch)


def _many(batch: int) -> int:
    """Return how many batches the ceilings do in one go: as many as ours."""
    from pipeline.decode.decoders import together

    return together(batch)


def _convert(records: Path, scratch: str, batch: int, workers: int) -> Iterator[Any]:
    """Yield the conversion alone, on all cores: as many pictures in memory as the cache holds."""
    import mxnet as mx
    import numpy as np

    import ops
    from pipeline.decode.to_mxnet import Normaliser

    feed = ops.feed()
    if feed is None:
        raise LeftOut("the operators are not compiled")
    random, few = np.random.default_rng(0), few_of(_opened(records, scratch))
    pixels = random.integers(0, 256, (len(few), *few.image_size, 3), dtype=np.uint8)
    normalise = Normaliser(feed, few.image_size, MEAN, STD, mx.cpu(), CORES)
    while True:
        rows, mirror = random.integers(0, len(few), batch), random.random(batch) < 0.5
        yield normalise(pixels.ctypes.data, rows, mirror)


SOURCES: dict[str, Callable[[Path, str, int, int], Iterator[Any]]] = {
    "random": _random,
    "random-dali": _random_dali,
    "blocks": _blocks,
    "window": _window,
    "cache": _cache,
    "synthetic": _synthetic,
    "transforms": _transforms,
    "cv2": _cv2,
    "iterator": _iterator,
    "iterators": _iterators,
    "raw": _raw,
    "dali": _dali,
    "native": _native,
    "convert": _convert,
}
ALONE = ("transforms", "cv2", "iterator", "iterators", "dali")  # read a .rec of pictures alone


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
