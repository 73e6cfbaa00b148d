# SPDX-License-Identifier: Apache-2.0
"""Prepare record sets for loader benchmarks, by default synthetic images of face-crop size."""

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

DATA_FOLDER = Path(__file__).resolve().parents[2] / "data"
SET_FOLDER = DATA_FOLDER / "loader_bench"
REPEATED_SET_FOLDER = DATA_FOLDER / "loader_bench_repeated"
NUM_IMAGES, IMAGES_PER_PERSON, SIDE_PIXELS, JPEG_QUALITY = 20_000, 20, 112, 95
NUM_COPIES = 4
MEAN_JPEG_BYTES = 8_200  # Mean in InsightFace's training sets (112x112, quality 95).


@contextmanager
def prepared_set(
    given: Path | None, batch: int, repeated: bool = False
) -> Iterator[tuple[Path, Path, int]]:
    """Prepare a record set; yield its folder, the path of a .rec for baselines, and the batch size.

    The .rec is a symbolic link to the records of the set.  The .idx beside it lists only image
    records, because baselines cannot read header and identity records.  The .rec and the .idx are
    in a temporary folder, which also holds the cached index of the set.

    Parameters
    ----------
    given
        Folder of the user's record set; None for the synthetic set, which is generated if missing.
    batch
        Requested images per batch; the yielded batch size is smaller if the set has fewer images.
    repeated
        Use `repeated_set`, which is several times larger, instead of the synthetic set.
    """
    # The path must be absolute, because the measured processes have another working directory.
    records = given.resolve() if given else synthetic_set()
    if repeated and not given:
        records = repeated_set(records)
    with tempfile.TemporaryDirectory() as scratch:
        image_rec = Path(scratch) / "images.rec"
        opened = open_records(records, scratch)
        write_image_index(opened, image_rec.with_suffix(".idx"))
        image_rec.symlink_to(opened.files[0].resolve())
        if batch > len(opened):
            print(f"batches have {len(opened)} images, not {batch}: the set has no more images")
        yield records, image_rec, min(batch, len(opened))


def synthetic_set(folder: Path = SET_FOLDER, images: int = NUM_IMAGES) -> Path:
    """Return the folder of the synthetic record set; generate the set if missing (about 10 s)."""
    classes = images // IMAGES_PER_PERSON
    if read_property(folder / "property")[0] != classes:
        jpegs = ((i // IMAGES_PER_PERSON, jpeg) for i, jpeg in enumerate(_cloud_jpegs(images)))
        # Write only image records: some of the compared loaders cannot read other records.
        write_record_set(folder, jpegs, classes, (SIDE_PIXELS, SIDE_PIXELS), header=False)
    return folder


def repeated_set(
    source: Path, folder: Path = REPEATED_SET_FOLDER, copies: int = NUM_COPIES
) -> Path:
    """Return the folder of a set with several copies of each record; write the set if missing.

    The copies are separate bytes on the disk (about 650 MB in all), so each copy must be read from
    the disk.

    Parameters
    ----------
    source
        Folder of the set to repeat, as `synthetic_set` writes it.
    """
    if (folder / "property").exists():
        return folder
    rec, idx = (source / name for name in ("train.rec", "train.idx"))
    keys, offsets = np.loadtxt(idx, dtype=np.int64, ndmin=2).T
    data, count = rec.read_bytes(), int(keys.max()) + 1
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "train.rec", "wb") as file, open(folder / "train.idx", "w") as lines:
        for copy in range(copies):
            file.write(data)
            shifted = zip(keys + copy * count, offsets + copy * len(data), strict=True)
            lines.writelines(f"{key}\t{offset}\n" for key, offset in shifted)
        file.flush()
        os.fsync(file.fileno())
    # The file "property" is written last: its presence shows that the set is complete.
    shutil.copy(source / "property", folder / "property")
    return folder


def _cloud_jpegs(count: int) -> Iterator[bytes]:
    """Yield ``count`` JPEGs of random clouds, with detail at every scale as in photographs."""
    random = np.random.default_rng(0)
    layers = [_noise_layer(random, side) for side in (4, 8, 16, 32, 64, 2 * SIDE_PIXELS)]
    detail = 1.0
    for _ in range(count):
        image = np.full((SIDE_PIXELS, SIDE_PIXELS, 3), 120, dtype=np.float32)
        for number, layer in enumerate(layers):
            top, left = random.integers(0, SIDE_PIXELS, 2)
            part = layer[top:, left:][:SIDE_PIXELS, :SIDE_PIXELS]
            image += 48 / 1.9**number * detail ** (number / 3) * part
        image = np.clip(image, 0, 255).astype(np.uint8)
        jpeg = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1].tobytes()
        detail *= (MEAN_JPEG_BYTES / len(jpeg)) ** 0.1
        yield jpeg


def _noise_layer(random: np.random.Generator, side: int) -> np.ndarray:
    """Return an image of noise, float32 of shape (2 * SIDE_PIXELS, 2 * SIDE_PIXELS, 3).

    The noise is drawn on a grid of ``side`` x ``side`` cells and then upsampled.
    """
    coarse = random.standard_normal((side, side, 3)).astype(np.float32)
    # As in photographs, brightness varies more than colour.
    coarse = 0.7 * coarse.mean(2, keepdims=True) + 0.3 * coarse
    size = (2 * SIDE_PIXELS, 2 * SIDE_PIXELS)
    return cv2.resize(coarse, size, interpolation=cv2.INTER_CUBIC)
