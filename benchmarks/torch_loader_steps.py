# SPDX-License-Identifier: Apache-2.0
"""PyTorch's DataLoader over the same records: the other end of benchmarks/loader_throughput.py."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, islice
from typing import Any

from benchmarks.worker import LeftOut, Work, serve

MEAN, STD = 127.5, 128.0


def build(pictures: str, batch: int, batches: int, workers: int) -> Work:
    """Build a DataLoader whose dataset decodes with OpenCV.

    Parameters
    ----------
    pictures
        A .rec whose .idx lists pictures alone.
    batch, batches
        Images of a batch, batches of a step.
    workers
        Worker processes.
    """
    import torch

    try:
        import cv2

        from benchmarks.record_dataset import RecordDataset
    except ImportError as error:
        raise LeftOut(f"the environment with PyTorch has no OpenCV: {error}") from None
    loader = torch.utils.data.DataLoader(
        RecordDataset(pictures, MEAN, STD),  # type: ignore[arg-type]
        batch,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        persistent_workers=workers > 0,
    )

    def epochs() -> Iterator[Any]:
        while True:
            yield loader

    stream = chain.from_iterable(epochs())

    def read(count: int) -> float:
        for image, _ in islice(stream, count):
            assert image.dtype == torch.float32
        return 0.0

    versions = {"torch": torch.__version__, "opencv of torch": cv2.__version__}

    def begin() -> None:
        read(2 * workers)  # which were made ahead while others had their turns

    return Work(lambda _: read(batches), 0, 0, versions, begin=begin)


def warm() -> None:
    """Load PyTorch."""
    import torch  # noqa: F401


if __name__ == "__main__":
    serve(build, warm)
