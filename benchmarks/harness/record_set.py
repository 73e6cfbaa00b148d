# SPDX-License-Identifier: Apache-2.0
"""The record set that loaders are timed on: images of the size and weight of faces."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np

from pipeline.records import open_records
from pipeline.records.index_cache import write_image_index
from pipeline.records.property_file import read_property
from pipeline.records.writer import write_record_set

DATA = Path(__file__).resolve().parents[2] / "data"
FOLDER, REPEATED = DATA / "loader_bench", DATA / "loader_bench_repeated"
IMAGES, PER_PERSON, SIDE, QUALITY = 20_000, 20, 112, 95
TIMES = 4  # each image of the set that is read from disk
BYTES = 8_200  # of a 112x112 face at quality 95, as measured on InsightFace's sets


@contextmanager
def prepared(
    given: Path | None, batch: int, repeated: bool = False
) -> Iterator[tuple[Path, Path, int]]:
    """Yield a record set, a .rec of it whose .idx lists images alone, and the size of a batch.

    The .rec lies in a scratch folder, which keeps the parsed index, too.

    Parameters
    ----------
    given
        The set; without one that of data/loader_bench, which is made if it is missing.
    batch
        Images of a batch that are asked for; fewer if the set has no more.
    repeated
        Take a set with each image several times if none is given.
    """
    # Candidates run in another folder.
    records = given.resolve() if given else made_set()
    if repeated and not given:
        records = repeated_set(records)
    with tempfile.TemporaryDirectory() as scratch:
        image_rec = Path(scratch) / "images.rec"
        opened = open_records(records, scratch)
        write_image_index(opened, image_rec.with_suffix(".idx"))
        image_rec.symlink_to(opened.files[0].resolve())
        if batch > len(opened):
            print(f"batches of {len(opened)}, not {batch}: the set has no more images")
        yield records, image_rec, min(batch, len(opened))


def made_set(folder: Path = FOLDER, images: int = IMAGES) -> Path:
    """Return the folder of the set; make it if there is none (some ten seconds)."""
    classes = images // PER_PERSON
    if read_property(folder / "property")[0] != classes:
        jpegs = ((i // PER_PERSON, jpeg) for i, jpeg in enumerate(_clouds(images)))
        # Without header and identity records, which not every candidate can read.
        write_record_set(folder, jpegs, classes, (SIDE, SIDE), header=False)
    return folder


def repeated_set(of: Path, folder: Path = REPEATED, times: int = TIMES) -> Path:
    """Return the folder of a set with all records of another several times; make it if needed.

    On disk they are different ones: as many bytes as of so many images (some 650 MB).

    Parameters
    ----------
    of
        Folder of the other set, as `made_set` makes it.
    """
    if (folder / "property").exists():
        return folder
    rec, idx = (of / name for name in ("train.rec", "train.idx"))
    keys, offsets = np.loadtxt(idx, dtype=np.int64, ndmin=2).T
    data, count = rec.read_bytes(), int(keys.max()) + 1
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "train.rec", "wb") as file, open(folder / "train.idx", "w") as lines:
        for time in range(times):
            file.write(data)
            again = zip(keys + time * count, offsets + time * len(data), strict=True)
            lines.writelines(f"{key}\t{offset}\n" for key, offset in again)
        file.flush()
        os.fsync(file.fileno())
    shutil.copy(of / "property", folder / "property")  # last: it says that the others are complete
    return folder


def _clouds(count: int) -> Iterator[bytes]:
    """Yield JPEGs of clouds, random at every scale as photographs are; no two are alike."""
    random = np.random.default_rng(0)
    layers = [_layer(random, side) for side in (4, 8, 16, 32, 64, 2 * SIDE)]
    detail = 1.0
    for _ in range(count):
        image = np.full((SIDE, SIDE, 3), 120, dtype=np.float32)
        for number, layer in enumerate(layers):
            top, left = random.integers(0, SIDE, 2)
            image += 48 / 1.9**number * detail ** (number / 3) * layer[top:, left:][:SIDE, :SIDE]
        image = np.clip(image, 0, 255).astype(np.uint8)
        jpeg = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1].tobytes()
        detail *= (BYTES / len(jpeg)) ** 0.1  # towards the weight of a face
        yield jpeg


def _layer(random: np.random.Generator, side: int) -> np.ndarray:
    """Return (2 SIDE, 2 SIDE, 3) float32 of noise without detail below SIDE * 2 / side pixels."""
    coarse = random.standard_normal((side, side, 3)).astype(np.float32)
    coarse = 0.7 * coarse.mean(2, keepdims=True) + 0.3 * coarse  # mostly brightness
    return cv2.resize(coarse, (2 * SIDE, 2 * SIDE), interpolation=cv2.INTER_CUBIC)
