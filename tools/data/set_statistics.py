# SPDX-License-Identifier: Apache-2.0
"""Count the images and identities of a record set, and describe its JPEGs."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np

from image_headers import jpeg_frame, stored_size
from tools.data.jpeg_quality import chroma_sampling, estimate_quality
from tools.data.record_sets import read_images

if TYPE_CHECKING:
    from pipeline.records.record_set import RecordSet

QUANTILES = {
    "smallest": 0.0,
    "quarter": 0.25,
    "median": 0.5,
    "three quarters": 0.75,
    "largest": 1.0,
}
_PROGRESSIVE = 0xC2


def count_images(records: RecordSet) -> np.ndarray:
    """Return the number of images of each identity that has any, in label order, int64 (K,)."""
    return np.unique(records.labels, return_counts=True)[1]


def describe_set(records: RecordSet, sample: int) -> dict[str, Any]:
    """Return the statistics of a record set, as JSON types.

    Parameters
    ----------
    sample
        Number of images, spaced evenly over the set, whose headers are read.

    Raises
    ------
    RecordError
        If a record of the sample is damaged.
    """
    counts = count_images(records)
    rows = np.unique(np.linspace(0, len(records) - 1, min(sample, len(records))).astype(np.int64))
    return {
        "images": len(records),
        "identities": len(counts),
        "num_classes": records.num_classes,
        "height": records.image_size[0],
        "width": records.image_size[1],
        "images_per_identity": {**_quantiles(counts), "mean": round(float(counts.mean()), 2)},
        "identities_with_one_image": int((counts == 1).sum()),
        "bytes": sum(rec.stat().st_size for rec in records.files),
        "sample": _describe_sample(records, rows),
    }


def _describe_sample(records: RecordSet, rows: np.ndarray) -> dict[str, Any]:
    sizes: list[int] = []
    qualities: list[int] = []
    found = {name: Counter[str]() for name in ("formats", "chroma_sampling", "image_sizes")}
    for _, image in read_images(records, rows, rows, lambda *_: None):
        frame, size = jpeg_frame(image), stored_size(image)
        quality = estimate_quality(image)
        sizes.append(len(image))
        if quality is not None:
            qualities.append(quality)
        kind = "other"
        if frame is not None:
            kind = "progressive JPEG" if frame.code == _PROGRESSIVE else "JPEG"
        found["formats"][kind] += 1
        found["chroma_sampling"][chroma_sampling(image) or "no JPEG"] += 1
        found["image_sizes"]["unknown" if size is None else f"{size[0]}x{size[1]}"] += 1
    return {
        "images": len(rows),
        "bytes_per_image": _quantiles(np.array(sizes)),
        "jpeg_quality": _quantiles(np.array(qualities)) if qualities else {},
        **{name: dict(counter.most_common()) for name, counter in found.items()},
    }


def _quantiles(numbers: np.ndarray) -> dict[str, int]:
    points = np.quantile(numbers, list(QUANTILES.values()), method="lower")
    return dict(zip(QUANTILES, points.astype(int).tolist(), strict=True))
