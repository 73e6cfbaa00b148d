# SPDX-License-Identifier: Apache-2.0
"""The same images in plain Python over a Gluon DataLoader: the baseline and the test oracle."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING

import cv2
import mxnet as mx
import numpy as np
from mxnet import gluon

from encoded_images import decode, has_end
from pipeline.decode.dali import MEAN, STD
from pipeline.records.reader import RecordReader
from pipeline.sampling.augmentation import CUT_OUT_VALUE, AugmentParams, color_matrices

if TYPE_CHECKING:
    from pipeline.records import RecordSet
    from pipeline.sampling.batches import BatchPlan

LAST_BATCH_TIMEOUT_S = 30.0


class FaceDataset(gluon.data.Dataset):
    """Images of a record set; an item is (row, augmentation parameters)."""

    def __init__(self, records: RecordSet):
        self._records, self._reader = records, RecordReader(records)

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, item: tuple[int, AugmentParams]) -> np.ndarray:
        """Return an image (3, H, W) float32."""
        row, params = item
        try:
            return self._image(row, params)
        finally:
            self._reader.check_files()  # whatever came of zeros, an error too

    def _image(self, row: int, params: AugmentParams) -> np.ndarray:
        """Return the image (3, H, W) of a row, normalised."""
        jpeg = self._reader.read(np.array([row]))[0]
        # OpenCV alone decodes an image that has lost its end.
        image = decode(jpeg) if has_end(jpeg) else None
        if image is None or image.shape[:2] != self._records.image_size:
            height, width = self._records.image_size
            what = (
                "cannot be decoded"
                if image is None
                else f"is {image.shape[0]}x{image.shape[1]} pixels, not {height}x{width}"
            )
            raise self._records.image_error(row, what)
        image = augment(image, params)[:, :, ::-1]  # BGR to RGB
        normalised: np.ndarray = image.transpose(2, 0, 1).astype(np.float32) - MEAN
        return normalised / STD


def augment(image: np.ndarray, params: AugmentParams) -> np.ndarray:
    """Augment one image (H, W, 3), BGR; return uint8, or float32 after a colour jitter."""
    if params.quality:
        quality = [cv2.IMWRITE_JPEG_QUALITY, int(params.quality)]
        image = cv2.imdecode(cv2.imencode(".jpg", image, quality)[1], cv2.IMREAD_COLOR)
    if (params.color != 1).any():
        ((matrix,), (of_mean,)) = color_matrices(params.color[None])
        pixels = image[:, :, ::-1].astype(np.float32)
        pixels = pixels @ matrix.T + of_mean @ pixels.mean((0, 1))
        image = pixels[:, :, ::-1]
    if params.shift.any():
        image = _shifted(image, *params.shift)
    top, left, height, width = params.cut_out
    if height and width:
        image[top : top + height, left : left + width] = CUT_OUT_VALUE
    return image[:, ::-1] if params.mirror else image


def _shifted(image: np.ndarray, down: int, right: int) -> np.ndarray:
    """Move an image (H, W, 3); what is left empty is grey."""
    height, width = image.shape[:2]
    moved = np.full_like(image, CUT_OUT_VALUE)
    moved[max(0, down) : height + min(0, down), max(0, right) : width + min(0, right)] = image[
        max(0, -down) : height - max(0, down), max(0, -right) : width - max(0, right)
    ]
    return moved


class RowSampler(gluon.data.Sampler):
    """Batches of dataset items without end, from batch plans of one rank."""

    def __init__(self, plans: Iterator[BatchPlan]):
        self._plans = plans

    def __iter__(self) -> Iterator[list[tuple[int, AugmentParams]]]:
        for plan in self._plans:
            yield list(zip(plan.rows.tolist(), plan.params.each(), strict=True))

    def __len__(self) -> int:
        raise TypeError("the batches of training have no end")


class GluonDecoder:
    """Decodes batch plans with a Gluon DataLoader.

    Workers are forked when it is called: call it before MXNet or DALI start threads.
    """

    def __init__(self, records: RecordSet, workers: int, ctx: mx.Context):
        self.files: list[np.ndarray] = []  # each worker checks those that it reads
        self._records, self._workers, self._ctx = records, workers, ctx

    def __call__(
        self, plans: Iterator[BatchPlan]
    ) -> Generator[tuple[mx.nd.NDArray, BatchPlan], None, None]:
        """Yield an array, float32 (B, 3, H, W), for each plan."""
        cv2.setNumThreads(0)  # each worker is one thread
        in_flight: deque[BatchPlan] = deque()

        def noted() -> Iterator[BatchPlan]:
            for plan in plans:
                in_flight.append(plan)
                yield plan

        dataset, sampler = FaceDataset(self._records), RowSampler(noted())
        loader = gluon.data.DataLoader(dataset, batch_sampler=sampler, num_workers=self._workers)
        if self._workers:
            let_workers_finish(loader)
        images, ctx = iter(loader), self._ctx
        return ((image.as_in_context(ctx), in_flight.popleft()) for image in images)

    def close(self) -> None:
        """Leave the workers to the end of the DataLoader."""


def let_workers_finish(loader: gluon.data.DataLoader) -> None:
    """Make the worker processes of a Gluon DataLoader end on their own when it is deleted.

    MXNet 1.9.1 kills them; one that is killed while it sends its batch keeps the lock of the queue,
    and the end of the pool waits for that lock for ever.
    """
    pool = loader._worker_pool

    def terminate() -> None:
        in_flight = list(pool._cache.values())
        for result in in_flight:
            result.wait(LAST_BATCH_TIMEOUT_S)
        if all(result.ready() for result in in_flight):  # else somebody has killed a worker
            pool.close()
            pool.join()
        type(pool).terminate(pool)

    pool.terminate = terminate
