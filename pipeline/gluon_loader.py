# SPDX-License-Identifier: Apache-2.0
"""The same transform in plain Python over a Gluon DataLoader: the baseline and the test oracle."""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np
from mxnet import gluon

from encoded_images import decode, has_end
from pipeline.records.open import RecordSet
from pipeline.records.reader import RecordReader
from pipeline.sampling.augmentation import CUT_OUT_VALUE, Choices, color_matrices

LAST_BATCH_S = 30.0  # how long a worker may take over the last batch


class FaceDataset(gluon.data.Dataset):
    """Images of a record set; an item is (row, what is done to it)."""

    def __init__(self, records: RecordSet, mean: float, std: float):
        self._records = records
        self._reader = RecordReader(records)
        self._mean, self._std = mean, std

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, item: tuple[int, Choices]) -> tuple[np.ndarray, np.float32]:
        """Return image (3, H, W) float32 and label."""
        row, choices = item
        try:
            return self._image(row, choices), np.float32(self._records.labels[row])
        finally:
            self._reader.check_files()  # whatever came of zeros, an error too

    def _image(self, row: int, choices: Choices) -> np.ndarray:
        """Return the image (3, H, W) of a row, normalised."""
        jpeg = self._reader.read(np.array([row]))[0]
        # OpenCV decodes a picture that has lost its end alone.
        image = decode(jpeg) if has_end(jpeg) else None
        if image is None or image.shape[:2] != self._records.image_size:
            height, width = self._records.image_size
            what = (
                "cannot be decoded"
                if image is None
                else f"is {image.shape[0]}x{image.shape[1]} pixels, not {height}x{width}"
            )
            raise self._records.image_error(row, what)
        image = augment(image, choices)[:, :, ::-1]  # BGR to RGB
        normalised: np.ndarray = image.transpose(2, 0, 1).astype(np.float32) - self._mean
        return normalised / self._std


def augment(image: np.ndarray, choices: Choices) -> np.ndarray:
    """Carry out the choices for one image (H, W, 3), BGR; return uint8, float32 after a jitter."""
    if choices.quality:
        quality = [cv2.IMWRITE_JPEG_QUALITY, int(choices.quality)]
        image = cv2.imdecode(cv2.imencode(".jpg", image, quality)[1], cv2.IMREAD_COLOR)
    if (choices.color != 1).any():
        ((matrix,), (of_mean,)) = color_matrices(choices.color[None])
        pixels = image[:, :, ::-1].astype(np.float32)
        pixels = pixels @ matrix.T + of_mean @ pixels.mean((0, 1))
        image = pixels[:, :, ::-1]
    if choices.shift.any():
        image = _shifted(image, *choices.shift)
    top, left, height, width = choices.cut_out
    if height and width:
        image[top : top + height, left : left + width] = CUT_OUT_VALUE
    return image[:, ::-1] if choices.mirror else image


def _shifted(image: np.ndarray, down: int, right: int) -> np.ndarray:
    """Move an image (H, W, 3); what is left empty is grey."""
    height, width = image.shape[:2]
    moved = np.full_like(image, CUT_OUT_VALUE)
    moved[max(0, down) : height + min(0, down), max(0, right) : width + min(0, right)] = image[
        max(0, -down) : height - max(0, down), max(0, -right) : width - max(0, right)
    ]
    return moved


class RowSampler(gluon.data.Sampler):
    """Batches of dataset items without end, from an iterator over (rows, choices) of one rank."""

    def __init__(self, batches: Iterator[tuple[np.ndarray, Choices]]):
        self._batches = batches

    def __iter__(self) -> Iterator[list[tuple[int, Choices]]]:
        for rows, choices in self._batches:
            yield list(zip(rows.tolist(), choices.each(), strict=True))

    def __len__(self) -> int:
        raise TypeError("the batches of training have no end")


def reference_batches(
    records: RecordSet,
    batches: Iterator[tuple[np.ndarray, Choices]],
    workers: int,
    mean: float,
    std: float,
) -> Iterator[tuple]:
    """Yield (image (B, 3, H, W), label (B,)) NDArrays for (rows, choices) pairs.

    Workers are forked here, so call this before MXNet or DALI start threads.
    """
    cv2.setNumThreads(0)  # each worker is one thread
    loader = gluon.data.DataLoader(
        FaceDataset(records, mean, std), batch_sampler=RowSampler(batches), num_workers=workers
    )
    if workers:
        let_workers_finish(loader)
    return iter(loader)


def let_workers_finish(loader: gluon.data.DataLoader) -> None:
    """Have the worker processes of a Gluon DataLoader end by themselves when it goes.

    MXNet 1.9.1 kills them; one that is killed while it sends its batch keeps the lock of the queue,
    and the end of the pool waits for that lock for ever.
    """
    pool = loader._worker_pool

    def terminate() -> None:
        under_way = list(pool._cache.values())
        for result in under_way:
            result.wait(LAST_BATCH_S)
        if all(result.ready() for result in under_way):  # else somebody has killed a worker
            pool.close()
            pool.join()
        type(pool).terminate(pool)

    pool.terminate = terminate
