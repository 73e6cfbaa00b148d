# SPDX-License-Identifier: Apache-2.0
"""Make batches with a Gluon DataLoader in plain Python, as a baseline and a reference for tests.

The batches are equal to those of the DALI loader.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING, Any

import cv2
import mxnet as mx
import numpy as np
from mxnet import gluon

from encoded_images import decode, has_end
from normalization import MEAN, STD
from pipeline.gluon_workers import check_shared_memory, watch_workers
from pipeline.records.reader import RecordReader
from pipeline.records.record_set import ImageError
from pipeline.sampling.augmentation import CUT_OUT_VALUE, AugmentParams, color_matrices
from pipeline.sampling.bad_images import BadImages

if TYPE_CHECKING:
    from pipeline.records import RecordSet
    from pipeline.sampling.batches import BatchPlan


class FaceDataset(gluon.data.Dataset):
    """Dataset of a record set, indexed by pairs (row of the image, augmentation parameters).

    With ``marks_bad_images`` an item is a pair (image, flag).  If the image is bad, that is, cannot
    be read or decoded, the flag is 1 and all values of the image are 0.
    """

    def __init__(self, records: RecordSet, marks_bad_images: bool = False):
        self._records, self._reader = records, RecordReader(records)
        self._marks_bad_images = marks_bad_images

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, item: tuple[int, AugmentParams]) -> Any:
        """Return the augmented and normalised image, (3, H, W) float32.

        With ``marks_bad_images`` return the pair (image, flag).
        """
        if not self._marks_bad_images:
            return self.image(*item)
        try:
            return self.image(*item), 0.0
        except ImageError:
            return np.zeros((3, *self._records.image_size), np.float32), 1.0

    def image(self, row: int, params: AugmentParams) -> np.ndarray:
        """Return the augmented and normalised image of a row, (3, H, W) float32."""
        try:
            return self._image(row, params)
        finally:
            # If a file became shorter, its missing bytes read as zeros.  Report the shorter file,
            # not a wrong image or the decoding error that the zeros cause.
            self._reader.check_files()

    def _image(self, row: int, params: AugmentParams) -> np.ndarray:
        self._reader.check_sizes(np.array([row]))
        jpeg = self._reader.read(np.array([row]))[0]
        # Check first whether the JPEG is complete: OpenCV reports no error for a truncated JPEG.
        image = decode(jpeg) if has_end(jpeg) else None
        if image is None:
            raise self._records.image_error(row, "cannot be decoded")
        if image.shape[:2] != self._records.image_size:
            (height, width), found = self._records.image_size, image.shape
            what = f"is {found[0]}x{found[1]} pixels, not {height}x{width}"
            raise self._records.image_error(row, what)
        image = augment(image, params)[:, :, ::-1]  # BGR to RGB
        normalised: np.ndarray = image.transpose(2, 0, 1).astype(np.float32) - MEAN
        return normalised / STD


def augment(image: np.ndarray, params: AugmentParams) -> np.ndarray:
    """Augment a BGR image, uint8 (H, W, 3); return uint8, or float32 if the colours change."""
    if params.quality:
        quality = [cv2.IMWRITE_JPEG_QUALITY, int(params.quality)]
        image = cv2.imdecode(cv2.imencode(".jpg", image, quality)[1], cv2.IMREAD_COLOR)
    if (params.color != 1).any():
        ((pixel_matrix,), (mean_matrix,)) = color_matrices(params.color[None])
        pixels = image[:, :, ::-1].astype(np.float32)
        pixels = pixels @ pixel_matrix.T + mean_matrix @ pixels.mean((0, 1))
        image = pixels[:, :, ::-1]
    if params.shift.any():
        image = _shift(image, *params.shift)
    top, left, height, width = params.cut_out
    if height and width:
        image[top : top + height, left : left + width] = CUT_OUT_VALUE
    return image[:, ::-1] if params.mirror else image


def _shift(image: np.ndarray, down: int, right: int) -> np.ndarray:
    """Move the content of an image (H, W, 3) by ``down`` and ``right`` pixels.

    The uncovered border gets the grey value CUT_OUT_VALUE.
    """
    height, width = image.shape[:2]
    moved = np.full_like(image, CUT_OUT_VALUE)
    moved[max(0, down) : height + min(0, down), max(0, right) : width + min(0, right)] = image[
        max(0, -down) : height - max(0, down), max(0, -right) : width - max(0, right)
    ]
    return moved


class GluonDecoder:
    """Decoder that reads, decodes and augments images with a Gluon DataLoader.

    A call of the decoder forks the worker processes.  Call it before MXNet or DALI starts threads,
    because a fork copies the locks that these threads hold but not the threads.
    """

    def __init__(
        self,
        records: RecordSet,
        workers: int,
        ctx: mx.Context,
        batch_size: int,
        bad_images: BadImages | None = None,
    ):
        self.files: list[np.ndarray] = []  # no files to check: each worker checks its own files
        self._records, self._workers, self._ctx = records, workers, ctx
        height, width = records.image_size
        self._batch_bytes = batch_size * 3 * height * width * 4
        self._bad = bad_images or BadImages(records)

    def __call__(
        self, plans: Iterator[BatchPlan]
    ) -> Generator[tuple[mx.nd.NDArray, BatchPlan], None, None]:
        cv2.setNumThreads(0)  # each worker process uses one thread
        in_flight: deque[BatchPlan] = deque()

        def indices() -> Iterator[list[tuple[int, AugmentParams]]]:
            for plan in plans:
                in_flight.append(plan)
                yield list(zip(plan.rows.tolist(), plan.params.each(), strict=True))

        check_shared_memory(self._workers, self._batch_bytes)
        dataset = FaceDataset(self._records, marks_bad_images=self._bad.skips)
        loader = gluon.data.DataLoader(dataset, batch_sampler=indices(), num_workers=self._workers)
        watch = watch_workers(loader, self._batch_bytes) if self._workers else None
        items, ctx = iter(loader), self._ctx
        if watch:
            items = watch.batches(items)
        if self._bad.skips:
            pairs = (
                self._replace(dataset, image, flags, in_flight.popleft()) for image, flags in items
            )
            return ((image.as_in_context(ctx), plan) for image, plan in pairs)
        return ((image.as_in_context(ctx), in_flight.popleft()) for image in items)

    def _replace(
        self, dataset: FaceDataset, image: mx.nd.NDArray, flags: mx.nd.NDArray, plan: BatchPlan
    ) -> tuple[mx.nd.NDArray, BatchPlan]:
        """Replace the flagged images of a batch; return the images and the changed plan."""
        params = list(plan.params.each())
        places = np.flatnonzero(flags.asnumpy())
        for place in places:
            try:  # read the image again to get the error in this process
                dataset.image(int(plan.rows[place]), params[place])
            except ImageError as error:
                self._bad.add(error)
        if not len(places):
            return image, plan
        replaced, values = self._bad.replace(plan), image.asnumpy()
        params = list(replaced.params.each())
        for place in np.union1d(places, np.flatnonzero(replaced.rows != plan.rows)):
            values[place] = dataset.image(int(replaced.rows[place]), params[place])
        return mx.nd.array(values), replaced

    def close(self) -> None:
        """Do nothing: the DataLoader ends its worker processes when it is deleted."""
