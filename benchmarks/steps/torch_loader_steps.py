# SPDX-License-Identifier: Apache-2.0
"""Run PyTorch's DataLoader and FFCV as baselines, for benchmarks/loader_throughput.py."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator
from importlib.metadata import version
from itertools import chain, islice
from pathlib import Path
from typing import Any

from benchmarks.harness.inputs import MAX_IMAGES, MEAN, STD
from benchmarks.harness.worker import LeftOut, Work, serve

JPEG_QUALITY = 95  # FFCV's file has the JPEG quality of the synthetic record set.


def build(*, kind: str, image_rec: str, batch: int, batches: int, workers: int) -> Work:
    """Return the `Work` that takes batches from a PyTorch loader.

    Parameters
    ----------
    kind
        "dataloader" (PyTorch's DataLoader with OpenCV) or "ffcv".
    image_rec
        Path of a .rec whose .idx lists only image records.
    batch, batches
        Number of images per batch, and of batches per step.
    workers
        Number of worker processes, or of threads for FFCV.
    """
    try:
        import cv2
        import torch

        from benchmarks.steps.record_dataset import RecordDataset
    except ImportError as error:
        raise LeftOut(
            f"the interpreter of --torch cannot import PyTorch or OpenCV: {error}"
        ) from None
    versions = {"torch": torch.__version__, "opencv of torch": cv2.__version__}
    data = RecordDataset(image_rec, MEAN, STD)
    loader = KINDS[kind](data, Path(image_rec), batch=batch, workers=workers)
    if kind == "ffcv":
        versions["ffcv"] = version("ffcv")

    def epochs() -> Iterator[Any]:
        while True:
            yield loader

    stream = chain.from_iterable(epochs())

    def read(count: int) -> float:
        for image, _ in islice(stream, count):
            assert image.dtype == torch.float32 and image.shape[1] == 3
        return 0.0

    def begin() -> None:
        read(4 * workers)  # Skip the batches prefetched while the other loaders were timed.

    return Work(lambda _: read(batches), 0, 0, versions, begin=begin)


def _data_loader(data: Any, image_rec: Path, *, batch: int, workers: int) -> Iterable[Any]:
    import torch

    return torch.utils.data.DataLoader(
        data,
        batch,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        persistent_workers=workers > 0,
    )


def _ffcv(data: Any, image_rec: Path, *, batch: int, workers: int) -> Iterable[Any]:
    """Return FFCV's loader of a dataset; first write FFCV's file of the images if it is missing.

    FFCV's file holds the decoded images, compressed again as JPEG.
    """
    try:
        import numpy as np
        from ffcv.fields import IntField, RGBImageField
        from ffcv.fields.decoders import IntDecoder, SimpleRGBImageDecoder
        from ffcv.loader import Loader, OrderOption
        from ffcv.transforms import NormalizeImage, RandomHorizontalFlip, ToTensor, ToTorchImage
        from ffcv.writer import DatasetWriter
    except ImportError as error:
        raise LeftOut(f"the interpreter of --torch cannot import FFCV: {error}") from None
    beton = image_rec.with_suffix(".beton")
    if not beton.exists():
        fields = {"image": RGBImageField("jpg", jpeg_quality=JPEG_QUALITY), "label": IntField()}
        # Discard stderr, because FFCV prints a progress bar there.
        with open(os.devnull, "w") as null, contextlib.redirect_stderr(null):
            DatasetWriter(str(beton), fields, num_workers=-1).from_indexed_dataset(
                _PixelDataset(data)
            )
    mean, std = np.full(3, MEAN), np.full(3, STD)
    pipelines = {
        "image": [
            SimpleRGBImageDecoder(),
            RandomHorizontalFlip(),
            NormalizeImage(mean, std, np.float32),
            ToTensor(),
            ToTorchImage(channels_last=False),
        ],
        "label": [IntDecoder(), ToTensor()],
    }
    return Loader(
        str(beton),
        batch,
        num_workers=workers,
        order=OrderOption.RANDOM,
        drop_last=True,
        os_cache=True,
        pipelines=pipelines,
    )


class _PixelDataset:
    """Dataset of at most MAX_IMAGES images, as uint8 (height, width, 3), for FFCV's writer.

    For all images of a large record set, FFCV's writer would need hours.
    """

    def __init__(self, data: Any):
        self._data = data

    def __len__(self) -> int:
        return min(MAX_IMAGES, len(self._data))

    def __getitem__(self, i: int) -> tuple[Any, int]:
        pixels, label = self._data.pixels(i)
        return pixels, int(label)


KINDS: dict[str, Callable[..., Iterable[Any]]] = {"dataloader": _data_loader, "ffcv": _ffcv}


def warm() -> None:
    """Import PyTorch, so that the import does not count as memory of a step."""
    import torch  # noqa: F401


if __name__ == "__main__":
    serve(build, warm)
