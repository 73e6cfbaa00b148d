# SPDX-License-Identifier: Apache-2.0
"""Start the loaders of MXNet and Gluon as baselines, for benchmarks/steps/loader_steps.py.

These loaders need a .rec whose .idx lists only image records.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.harness.inputs import MAX_IMAGES, MEAN, STD
from benchmarks.harness.worker import LeftOut


def gluon_transforms(rec: Path, scratch: str, batch: int, workers: int) -> Iterator[Any]:
    """Return batches from Gluon's record dataset and transforms, as in Gluon's tutorials."""
    from mxnet.gluon.data.vision import ImageRecordDataset, transforms

    # ToTensor() scales the pixels to values from 0 to 1.
    steps = [transforms.RandomFlipLeftRight(), transforms.ToTensor()]
    steps.append(transforms.Normalize(MEAN / 255, STD / 255))
    data = ImageRecordDataset(str(rec)).transform_first(transforms.Compose(steps))
    return (image for image, _ in _data_loader(data, batch, workers))


def gluon_cv2(rec: Path, scratch: str, batch: int, workers: int) -> Iterator[Any]:
    """Return batches from a Gluon DataLoader whose dataset uses OpenCV and NumPy."""
    return (image for image, _ in cv2_data_loader(rec, batch, workers))


def cv2_data_loader(rec: Path, batch: int, workers: int) -> Iterator[tuple[Any, Any]]:
    """Start a Gluon DataLoader that uses OpenCV; return an endless iterator of (images, labels)."""
    from benchmarks.steps.record_dataset import RecordDataset

    return _data_loader(RecordDataset(str(rec), MEAN, STD), batch, workers)


def _data_loader(data: Any, batch: int, workers: int) -> Iterator[tuple[Any, Any]]:
    from mxnet import gluon

    loader = gluon.data.DataLoader(
        data, batch, shuffle=True, last_batch="discard", num_workers=workers
    )

    def epochs() -> Iterator[tuple[Any, Any]]:
        while True:  # Each iteration is an epoch; the worker processes persist.
            yield from loader

    return epochs()


def record_iterator(rec: Path, scratch: str, batch: int, workers: int) -> Iterator[Any]:
    """Return batches of MXNet's ImageRecordIter with ``workers`` decoder threads."""
    return _image_record_iter(rec, batch, workers)


def record_iterators(rec: Path, scratch: str, batch: int, workers: int) -> Iterator[Any]:
    """Yield batches from several ImageRecordIters in turn; each one reads a part of the set.

    Each iterator has its own thread, so that together they use all cores.  A single iterator cannot
    do that: MXNet 1.9.1 limits ``preprocess_threads`` to ``max(cores / 2 - 1, 1)``.
    """
    from benchmarks.steps.record_dataset import RecordDataset

    images = len(RecordDataset(str(rec), MEAN, STD))
    if images // workers < batch:
        raise LeftOut(
            f"the set has {images} images, so each of its {workers} parts is smaller than a batch "
            f"({batch} images)"
        )
    parts = [
        _image_record_iter(rec, batch, 1, num_parts=workers, part_index=i) for i in range(workers)
    ]
    while True:
        for part in parts:
            yield next(part)


def _image_record_iter(rec: Path, batch: int, threads: int, **part: int) -> Iterator[Any]:
    import mxnet as mx

    from benchmarks.steps.record_dataset import RecordDataset, without_trailing_records

    rec = without_trailing_records(rec, MAX_IMAGES)
    height, width = RecordDataset(str(rec), MEAN, STD).pixels(0)[0].shape[:2]
    batches = mx.io.ImageRecordIter(
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
        for item in batches:
            yield item.data[0]
        batches.reset()
