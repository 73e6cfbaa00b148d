# SPDX-License-Identifier: Apache-2.0
"""Folders of MegaFace features: one file ``<path of the image><suffix>`` for each image."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from evaluation.opencv_matrices import read_feature, write_feature
from evaluation.row_sources import RowError


class FeatureFolder:
    """Rows of embeddings, each in a file of its own; a `evaluation.row_sources.RowSource`.

    Parameters
    ----------
    folder
        Folder of the features, for example ``feature_out/megaface``.
    images
        Path of each image, relative to the folder.
    suffix
        End of the file names, for example ``_r100.bin``.
    """

    def __init__(self, folder: str | os.PathLike[str], images: Sequence[str], suffix: str) -> None:
        self._folder, self._images, self._suffix = Path(folder), images, suffix

    def __len__(self) -> int:
        return len(self._images)

    @cached_property
    def dimensions(self) -> int:
        """Number of values of a feature, from the first file."""
        return len(read_feature(self.name(0)))

    def read(self, start: int, stop: int) -> np.ndarray:
        """Return the features start to stop - 1 as float32 (stop - start, E)."""
        stop = min(stop, len(self))
        rows = np.empty((max(stop - start, 0), self.dimensions), np.float32)
        for row in range(start, stop):
            feature = read_feature(self.name(row))
            if len(feature) != self.dimensions:
                raise RowError(
                    f"{self.name(row)}: must have {self.dimensions} values as {self.name(0)} has, "
                    f"got {len(feature)}; write all features with one model"
                )
            rows[row - start] = feature
        return rows

    def name(self, row: int) -> str:
        """Return the path of the file of a row."""
        return str(self._folder / f"{self._images[row]}{self._suffix}")


def write_feature_folder(
    folder: str | os.PathLike[str], images: Sequence[str], features: np.ndarray, suffix: str
) -> None:
    """Write features (N, E) as files that the MegaFace development kit reads.

    Parameters
    ----------
    folder
        Folder of the files; missing folders and subfolders are created.
    images
        Relative path of each of the N images.
    suffix
        End of the file names, for example ``_r100.bin``.
    """
    for image, feature in zip(images, features, strict=True):
        path = Path(folder) / f"{image}{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_feature(path, feature)
