# SPDX-License-Identifier: Apache-2.0
"""Dataset for a DataLoader: reads images from a .rec with its .idx, and decodes with OpenCV.

The dataset is what a user would write.  It needs only NumPy and OpenCV, so the DataLoaders of Gluon
and PyTorch can use it.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from atomic_write import atomic_write

# A record is a frame (magic number, length), a header (flag, label, two ids), `flag` more labels,
# and a JPEG.  The three highest bits of the length only mark records that consist of several parts.
LENGTH_MASK = (1 << 29) - 1
_FRAME = struct.Struct("<II")
_HEADER = struct.Struct("<IfQQ")
_LABEL = struct.Struct("<f")


class RecordDataset:
    """Dataset of pairs (image, label); an image is RGB, randomly mirrored, float32 (3, H, W).

    Parameters
    ----------
    rec
        Path of the .rec; the .idx beside it lists only image records.
    mean, std
        Constants of the normalisation: a pixel x from 0 to 255 becomes (x - mean) / std.
    """

    def __init__(self, rec: str, mean: float, std: float):
        # The offsets are an array.  Reading the elements of a list would change their reference
        # counts, so that each worker process would copy the memory pages of the list.
        self._offsets = _offsets(Path(rec))
        self._data: Any = np.memmap(rec, dtype=np.uint8, mode="r")
        self._mean, self._std = np.float32(mean), np.float32(std)
        cv2.setNumThreads(0)

    def __len__(self) -> int:
        return len(self._offsets)

    def pixels(self, i: int) -> tuple[np.ndarray, float]:
        """Decode image ``i``; return its RGB pixels (height, width, 3) as uint8, and its label."""
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
        """Return image ``i``, randomly mirrored and normalised, and its label."""
        image, label = self.pixels(i)
        if np.random.rand() < 0.5:
            image = image[:, ::-1]
        planes = image.transpose(2, 0, 1).astype(np.float32)
        planes -= self._mean
        planes /= self._std
        return planes, np.float32(label)


def without_trailing_records(rec: Path, max_images: int) -> Path:
    """Return the path of a .rec whose last record is an image, with its .idx beside it.

    MXNet's ImageRecordIter reads all bytes up to the next offset in the .idx, or to the end of the
    file, as one record.  So it fails at the identity records that follow the last image of a .rec
    by InsightFace.  If records follow the last image, this function copies the first images to a
    new file.

    Parameters
    ----------
    rec
        Path of the .rec; the .idx beside it lists only image records.
    max_images
        Largest number of images to copy.
    """
    offsets = np.sort(_offsets(rec))
    data: Any = np.memmap(rec, dtype=np.uint8, mode="r")

    def end_of(offset: int) -> int:
        _, length = _FRAME.unpack_from(data, offset)
        return offset + _FRAME.size + ((length & LENGTH_MASK) + 3) // 4 * 4

    if end_of(int(offsets[-1])) >= len(data):
        return rec
    copy = rec.with_name("without_trailing_records.rec")
    if not copy.exists():
        offsets = offsets[:max_images]
        lines = (f"{key}\t{offset - offsets[0]}\n" for key, offset in enumerate(offsets))
        copy.with_suffix(".idx").write_text("".join(lines))
        with atomic_write(copy) as file:
            data[offsets[0] : end_of(int(offsets[-1]))].tofile(file)
    return copy


def _offsets(rec: Path) -> np.ndarray:
    with open(rec.with_suffix(".idx")) as lines:
        return np.fromiter((int(line.split()[1]) for line in lines), np.int64)
