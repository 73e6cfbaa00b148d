# SPDX-License-Identifier: Apache-2.0
"""Record sets for tests of samplers: without files, or with gaps in their files."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np

from pipeline.records import RecordSet, open_records


def made_set(
    offsets: np.ndarray, file: np.ndarray | None = None, labels: np.ndarray | None = None
) -> RecordSet:
    """Return a set of one file, or of two if ``file`` gives the file index of each image."""
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
    """Return an unsorted set: 30 people with 1 to 9 images, and 3 labels without images."""
    random = np.random.default_rng(1)
    labels = np.repeat(np.setdiff1d(np.arange(33), [0, 7, 32]), random.integers(1, 10, 30))
    return made_set(np.arange(len(labels)), labels=random.permutation(labels).astype(np.int32))


def sparse_set(whole: Path, folder: Path, gaps: Sequence[int]) -> RecordSet:
    """Copy a set into a folder, with gaps of these sizes in bytes after its first images."""
    shutil.copytree(whole, folder / "sparse")
    rec, idx = (folder / "sparse" / f"train.{end}" for end in ("rec", "idx"))
    begins = [int(line.split()[1]) for line in idx.read_text().splitlines()]
    data, lines = rec.read_bytes(), []
    with rec.open("wb") as file:
        for key, (begin, end) in enumerate(pairwise([*begins, len(data)])):
            lines.append(f"{key}\t{file.tell()}\n")
            file.write(data[begin:end])
            if key < len(gaps):
                file.seek(gaps[key], os.SEEK_CUR)  # a sparse file takes no disk space
        file.truncate()
    idx.write_text("".join(lines))
    return open_records(folder / "sparse", folder / "scan")
