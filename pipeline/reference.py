# SPDX-License-Identifier: Apache-2.0
"""The same transform in plain Python over a Gluon DataLoader: the baseline and the test oracle."""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np
from mxnet import gluon

from pipeline.records import RecordError, RecordReader, RecordSet


class FaceDataset(gluon.data.Dataset):
    """Images of a record set; the item ``2 * row + mirror`` is one image, mirrored or not."""

    def __init__(self, records: RecordSet, mean: float, std: float):
        self._records = records
        self._reader = RecordReader(records)
        self._mean, self._std = mean, std

    def __len__(self) -> int:
        return 2 * len(self._records)

    def __getitem__(self, item: int) -> tuple[np.ndarray, np.float32]:
        """Return image (3, H, W) float32 and label."""
        row, mirror = divmod(int(item), 2)
        jpeg = self._reader.read(np.array([row]))[0]
        image = cv2.imdecode(jpeg, cv2.IMREAD_COLOR)
        if image is None or image.shape[:2] != self._records.image_size:
            height, width = self._records.image_size
            what = (
                "cannot be decoded"
                if image is None
                else f"is {image.shape[0]}x{image.shape[1]} pixels, not {height}x{width}"
            )
            raise RecordError(
                f"{self._records.rec}: the picture of key {self._records.keys[row]} {what}; mend "
                "the record or leave its key out of the .idx"
            )
        image = image[:, ::-1, ::-1] if mirror else image[:, :, ::-1]  # BGR to RGB
        normalised = (image.transpose(2, 0, 1).astype(np.float32) - self._mean) / self._std
        return normalised, np.float32(self._records.labels[row])


class RowSampler(gluon.data.Sampler):
    """Batches of dataset items without end, from an iterator over (rows, mirror) of one rank."""

    def __init__(self, batches: Iterator[tuple[np.ndarray, np.ndarray]]):
        self._batches = batches

    def __iter__(self) -> Iterator[list[int]]:
        for rows, mirror in self._batches:
            yield (2 * rows + mirror).tolist()

    def __len__(self) -> int:
        raise TypeError("the batches of training have no end")


def reference_batches(
    records: RecordSet,
    batches: Iterator[tuple[np.ndarray, np.ndarray]],
    workers: int,
    mean: float,
    std: float,
) -> Iterator[tuple]:
    """Yield (image (B, 3, H, W), label (B,)) NDArrays for (rows, mirror) pairs.

    Workers are forked here, so call this before MXNet or DALI start threads.
    """
    cv2.setNumThreads(0)  # each worker is one thread
    loader = gluon.data.DataLoader(
        FaceDataset(records, mean, std), batch_sampler=RowSampler(batches), num_workers=workers
    )
    return iter(loader)
