# SPDX-License-Identifier: Apache-2.0
"""Record sets without files, for what needs their tables alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pipeline.records import RecordSet


def made_set(
    offsets: np.ndarray, file: np.ndarray | None = None, labels: np.ndarray | None = None
) -> RecordSet:
    """Return a set of one file, or of two if ``file`` says whose each image is."""
    count = len(offsets)
    return RecordSet(
        files=(Path("a.rec"),) if file is None else (Path("a.rec"), Path("b.rec")),
        file=np.zeros(count, np.int16) if file is None else file,
        keys=np.arange(1, count + 1),
        offsets=offsets,
        labels=np.zeros(count, np.int32) if labels is None else labels,
        num_classes=1 if labels is None else int(labels.max()) + 1,
        image_size=(112, 112),
    )


def people_set() -> RecordSet:
    """Return 30 people, sorted anyhow, with 1 to 9 images, and 3 labels that nobody has."""
    random = np.random.default_rng(1)
    labels = np.repeat(np.setdiff1d(np.arange(33), [0, 7, 32]), random.integers(1, 10, 30))
    return made_set(np.arange(len(labels)), labels=random.permutation(labels).astype(np.int32))
