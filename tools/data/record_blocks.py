# SPDX-License-Identifier: Apache-2.0
"""Frame many images as one block of records, whose keys and labels are filled in later.

``pipeline.records.writer`` frames one record at a time.  The functions of this module give the same
bytes in a fifth of the time.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np

from pipeline.records.recordio import MAGIC, MAX_LENGTH
from pipeline.records.writer import frame, payload_bytes

_WORD = np.dtype("<u4")
# A record with one frame starts with _HEAD_WORDS words of 32 bits: magic number, length, flag,
# label, key (2 words) and second key (2 words).  The other constants are indices of these words.
_LENGTH, _LABEL, _KEY, _HEAD_WORDS = 1, 3, 4, 8
_HEAD = bytes(_HEAD_WORDS * _WORD.itemsize)
_FRAME_BYTES = 2 * _WORD.itemsize  # size of magic number and length; the length does not count them
_PADDING = (b"", bytes(3), bytes(2), bytes(1))


class RecordBlock(NamedTuple):
    """Records of n images, one after the other."""

    data: np.ndarray
    """Bytes of the records, uint8 (bytes,)."""
    sizes: np.ndarray
    """Size of each record in bytes, int64 (n,)."""

    def starts(self) -> np.ndarray:
        """Return the offset of each record in ``data`` in bytes, int64 (n,)."""
        return np.cumsum(self.sizes) - self.sizes


def record_bytes(key: int, label: float | list[float], jpeg: bytes = b"") -> bytes:
    """Return the bytes of one record."""
    return b"".join(frame(payload_bytes(key, label, jpeg)))


def frame_images(jpegs: Sequence[bytes]) -> RecordBlock:
    """Frame images as records with key 0 and label 0.

    Raises
    ------
    ValueError
        If an image is too long for a record.
    """
    lengths = np.fromiter(map(len, jpegs), np.int64, len(jpegs))
    parts = chain.from_iterable((_HEAD, jpeg, _PADDING[len(jpeg) % 4]) for jpeg in jpegs)
    data = np.frombuffer(bytearray().join(parts), np.uint8)
    words = data.view(_WORD)
    # An image that contains the magic number at a multiple of 4 bytes needs several frames.
    if (words == MAGIC).any() or (lengths + len(_HEAD) > MAX_LENGTH).any():
        records = [record_bytes(0, 0.0, jpeg) for jpeg in jpegs]
        sizes = np.fromiter(map(len, records), np.int64, len(records))
        return RecordBlock(np.frombuffer(bytearray().join(records), np.uint8), sizes)
    block = RecordBlock(data, len(_HEAD) + lengths + -lengths % 4)
    heads = block.starts() // _WORD.itemsize
    words[heads] = MAGIC
    words[heads + _LENGTH] = len(_HEAD) - _FRAME_BYTES + lengths
    return block


def number_records(block: RecordBlock, first_key: int, labels: np.ndarray) -> None:
    """Fill in the keys ``first_key``, ``first_key`` + 1, ... and the labels of a block.

    ``labels`` are int64 (n,).  Keys and labels are below 2**24.
    """
    words = block.data.view(_WORD)
    heads = block.starts() // _WORD.itemsize
    words[heads + _LABEL] = labels.astype("<f4").view(_WORD)
    words[heads + _KEY] = np.arange(first_key, first_key + len(heads))
