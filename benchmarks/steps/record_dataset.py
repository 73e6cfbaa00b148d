# SPDX-License-Identifier: Apache-2.0
"""A dataset over a .rec and its .idx that decodes with OpenCV: what people write for a DataLoader.

NumPy and OpenCV alone, so that it serves Gluon and PyTorch alike.
"""

from __future__ import annotations

import struct
from pathlib import Path

import cv2
import numpy as np

from atomic_write import atomic_write

LENGTH = (1 << 29) - 1  # the bits of it; those above say whether a record has several parts
_FRAME = struct.Struct("<II")  # magic number, length
_HEADER = struct.Struct("<IfQQ")  # flag, label, two ids
_LABEL = struct.Struct("<f")  # if flag is not 0, so many of them follow: the first one counts


class RecordDataset:
    """Item i: image (3, H, W) float32, RGB, mirrored by chance, and label.

    Parameters
    ----------
    rec
        The .rec; the .idx beside it lists images alone.
    mean, std
        x of 0 to 255 becomes (x - mean) / std.
    """

    def __init__(self, rec: str, mean: float, std: float):
        # An array: worker processes would copy the pages of a list when they count references.
        self._offsets = _offsets(Path(rec))
        self._data = np.memmap(rec, dtype=np.uint8, mode="r")
        self._mean, self._std = np.float32(mean), np.float32(std)
        cv2.setNumThreads(0)

    def __len__(self) -> int:
        return len(self._offsets)

    def pixels(self, i: int) -> tuple[np.ndarray, float]:
        """Return image i, uint8 (H, W, 3), RGB, and its label."""
        offset = int(self._offsets[i])
        _, length = _FRAME.unpack_from(self._data, offset)
        flag, label, _, _ = _HEADER.unpack_from(self._data, offset + _FRAME.size)
        begin = offset + _FRAME.size + _HEADER.size
        if flag:
            (label,) = _LABEL.unpack_from(self._data, begin)
        begin += _LABEL.size * flag
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


def ends_with_image(rec: Path, most: int) -> Path:
    """Return a .rec, with an .idx beside it, whose last record is an image.

    MXNet's ImageRecordIter takes a record for all bytes up to the next one of the .idx, or to the
    end: the identity records of InsightFace's sets stop it.  Where others follow the last image,
    the first images are copied to a file of their own.

    Parameters
    ----------
    rec
        The .rec; the .idx beside it lists images alone.
    most
        Images that are copied, at most.
    """
    offsets = np.sort(_offsets(rec))
    data = np.memmap(rec, dtype=np.uint8, mode="r")

    def end_of(offset: int) -> int:
        _, length = _FRAME.unpack_from(data, offset)
        return offset + _FRAME.size + ((length & LENGTH) + 3) // 4 * 4

    if end_of(int(offsets[-1])) >= len(data):
        return rec
    copy = rec.with_name("ends_with_image.rec")
    if not copy.exists():
        offsets = offsets[:most]
        lines = (f"{key}\t{offset - offsets[0]}\n" for key, offset in enumerate(offsets))
        copy.with_suffix(".idx").write_text("".join(lines))
        with atomic_write(copy) as file:
            data[offsets[0] : end_of(int(offsets[-1]))].tofile(file)
    return copy


def _offsets(rec: Path) -> np.ndarray:
    with open(rec.with_suffix(".idx")) as lines:
        return np.fromiter((int(line.split()[1]) for line in lines), np.int64)
