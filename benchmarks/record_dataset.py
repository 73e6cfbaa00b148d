# SPDX-License-Identifier: Apache-2.0
"""A dataset over a .rec and its .idx that decodes with OpenCV: what people write for a DataLoader.

NumPy and OpenCV alone, so that it serves Gluon and PyTorch alike.
"""

from __future__ import annotations

import struct

import cv2
import numpy as np

_FRAME = struct.Struct("<II")  # magic number, length
_HEADER = struct.Struct("<IfQQ")  # flag, label, two ids


class RecordDataset:
    """Item i: image (3, H, W) float32, RGB, mirrored by chance, and label.

    Parameters
    ----------
    rec
        The .rec; the .idx beside it lists pictures alone.
    mean, std
        x of 0 to 255 becomes (x - mean) / std.
    """

    def __init__(self, rec: str, mean: float, std: float):
        with open(rec.removesuffix("rec") + "idx") as lines:
            self._offsets = [int(line.split()[1]) for line in lines]
        self._data = np.memmap(rec, dtype=np.uint8, mode="r")
        self._mean, self._std = np.float32(mean), np.float32(std)
        cv2.setNumThreads(0)

    def __len__(self) -> int:
        return len(self._offsets)

    def pixels(self, i: int) -> tuple[np.ndarray, float]:
        """Return picture i, uint8 (H, W, 3), RGB, and its label."""
        offset = self._offsets[i]
        _, length = _FRAME.unpack_from(self._data, offset)
        flag, label, _, _ = _HEADER.unpack_from(self._data, offset + _FRAME.size)
        begin = offset + _FRAME.size + _HEADER.size + 4 * flag
        jpeg = self._data[begin : offset + _FRAME.size + length]
        return cv2.imdecode(jpeg, cv2.IMREAD_COLOR)[:, :, ::-1], label

    def __getitem__(self, i: int) -> tuple[np.ndarray, np.float32]:
        """Return image and label."""
        image, label = self.pixels(i)
        if np.random.rand() < 0.5:
            image = image[:, ::-1]
        planes = image.transpose(2, 0, 1).astype(np.float32)
        planes -= self._mean
        planes /= self._std
        return planes, np.float32(label)
