# SPDX-License-Identifier: Apache-2.0
"""Decode the images of a record set, and list those that are damaged or unusual.

The compiled decoder of the project decodes the images.  OpenCV decodes the images that the compiled
decoder refuses or does not support.  A warning of libjpeg or libpng counts as damage.
"""

from __future__ import annotations

import os
import zlib
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from encoded_images import decode, has_end, has_turning_exif, may_turn, segments
from image_headers import is_size, stored_size
from ops.jpeg_decoder import CUT_OFF, Decoding, JpegDecoder
from pipeline.records.mapped import check_file
from pipeline.records.reader import BufferRing
from pipeline.records.record_set import ImageError, RecordSet
from tools.data.decoder_warnings import DecoderWarnings

if TYPE_CHECKING:
    from ops.feed import LoaderKernels
    from pipeline.records.reader import RecordReader
    from tools.data.findings import Findings

BATCH_IMAGES = 512
MAX_BATCH_BYTES = 1 << 26
"""Largest size of the decoded pixels of a batch in bytes."""
MAX_PIXELS = 1 << 24
"""Largest number of pixels of an image that is decoded."""
GREY_LEVELS = 4
"""An image is grey if the channels of every pixel differ by at most this number of levels."""
_SAMPLE_STEP = 16
_EXIF, _HEAD_BYTES = b"Exif\0\0", 1 << 12
_MAX_SHOWN_CHARACTERS = 200
_START_OF_SCAN = 0xDA
# Codes of the markers DHT, EOI, SOS, DQT, DRI and COM.
_SCAN_CODES = frozenset((0xC4, 0xD9, _START_OF_SCAN, 0xDB, 0xDD, 0xFE))


class Decoded(NamedTuple):
    """Decoded images of one batch."""

    rows: np.ndarray
    """Rows of the images in the record set, int64 (B,)."""
    sound: np.ndarray
    """Whether each image was decoded without an error and has the size of the set, bool (B,)."""
    pixels: np.ndarray
    """RGB pixels of the images, uint8 (B, H, W, 3); undefined where ``sound`` is False."""
    sizes: np.ndarray
    """Size of each encoded image in bytes, int64 (B,)."""
    checksums: np.ndarray
    """CRC-32 of each encoded image, int64 (B,)."""


@dataclass(frozen=True)
class DecodeCheck:
    """Decoder of all images of a record set that consists of one .rec.

    Parameters
    ----------
    reader
        Reader of the record set.  The image size of the set has at most MAX_PIXELS pixels.
    kernels
        Compiled functions; None: OpenCV decodes all images.
    threads
        Number of decoder threads.
    findings
        List to which faults are added.
    """

    reader: RecordReader
    kernels: LoaderKernels | None
    threads: int
    findings: Findings

    def __call__(self, rows: np.ndarray) -> Iterator[Decoded]:
        """Decode the images of ``rows`` (n,), and yield them in batches.

        The pixels of a batch are valid until the next batch is requested.

        Raises
        ------
        RecordError
            If the .rec has become shorter since it was opened.
        """
        size = self._records.image_size
        count = max(1, min(BATCH_IMAGES, MAX_BATCH_BYTES // (3 * size[0] * size[1])))
        batches = [rows[start : start + count] for start in range(0, len(rows), count)]
        decoder = self.kernels.decoder(self.threads) if self.kernels else None
        # Two arrays: the caller uses the batch in one while the next is decoded into the other.
        buffers = BufferRing(kept=1)
        in_flight: deque[Callable[[], Decoded]] = deque()
        try:
            with ThreadPoolExecutor(self.threads) as pool:
                for batch in batches:
                    pixels = buffers.take(len(batch), 3 * size[0] * size[1])
                    in_flight.append(
                        self._start(batch, pixels.reshape(-1, *size, 3), decoder, pool)
                    )
                    if len(in_flight) > 1:
                        yield in_flight.popleft()()
                while in_flight:
                    yield in_flight.popleft()()
        finally:
            if decoder is not None:
                decoder.close()

    @property
    def _records(self) -> RecordSet:
        return self.reader.records

    def _start(
        self,
        rows: np.ndarray,
        pixels: np.ndarray,
        decoder: JpegDecoder | None,
        pool: ThreadPoolExecutor,
    ) -> Callable[[], Decoded]:
        """Start to decode one batch to ``pixels``; return a function that waits for the batch."""
        decoding: Decoding | None = None
        if decoder is not None:
            addresses, sizes = self.reader.find(rows)
            decoding = decoder.to_pixels(
                addresses, sizes, self._records.image_size, pixels, self.reader
            )
        images = self._read(rows)

        def finish() -> Decoded:
            sound = np.zeros(len(rows), dtype=bool)
            cut_off = np.zeros(len(rows), dtype=bool)
            if decoder is not None and decoding is not None:
                decoder.wait(decoding)
                sound = decoding.outcomes == 0
                cut_off = decoding.outcomes == CUT_OFF
            remaining = []
            for place in np.flatnonzero(~sound).tolist():
                image = images[place]
                if image is not None and self._passes(int(rows[place]), image, cut_off[place]):
                    remaining.append(place)
            self._decode_slowly(rows, images, remaining, pixels, sound, pool)
            check_file(self.reader.maps[0])
            self._find_turned(rows, images, sound)
            self._find_grey(rows, pixels, sound)
            lengths = [0 if image is None else len(image) for image in images]
            return Decoded(rows, sound, pixels, np.array(lengths), checksums)

        checksums = np.array([0 if i is None else zlib.crc32(i.data) for i in images], np.int64)
        return finish

    def _read(self, rows: np.ndarray) -> list[np.ndarray | None]:
        """Return the bytes of the images of ``rows``; None for a record that is damaged."""
        try:
            return [*self.reader.read(rows)]
        except ImageError:
            return [self._read_one(row) for row in rows]

    def _read_one(self, row: int) -> np.ndarray | None:
        try:
            return self.reader.read(np.array([row]))[0]
        except ImageError as error:
            problem = error.problem.partition(": ")[2]
            self._add("damaged", int(row), f"its record cannot be read: {problem}")
            return None

    def _add(self, kind: str, row: int, text: str) -> None:
        self.findings.add(kind, int(self._records.keys[row]), text)

    def _passes(self, row: int, image: np.ndarray, is_cut_off: bool) -> bool:
        """Check an image that the compiled decoder did not decode, before OpenCV decodes the image.

        Add a finding if the header states no size or a wrong size, or if the image lacks its end.
        Return True if there is no such finding.
        """
        data = image.tobytes()
        size, wanted = stored_size(data), self._records.image_size
        if size is None:
            self._add("damaged", row, f"its header states no size, got {data[:8]!r}")
        elif not is_size(size, wanted):
            text = "it is {}x{} pixels, not {}x{}".format(*size, *wanted)
            self._add("wrong_size", row, text)
        elif not has_end(image):
            self._add("cut_off", row, "it has no end-of-image marker")
        elif is_cut_off or (self.kernels is not None and self.kernels.is_cut_off(image)):
            self._add("cut_off", row, "its data end before its last pixels")
        else:
            return True
        return False

    def _decode_slowly(
        self,
        rows: np.ndarray,
        images: list[np.ndarray | None],
        places: list[int],
        pixels: np.ndarray,
        sound: np.ndarray,
        pool: ThreadPoolExecutor,
    ) -> None:
        """Decode images of a batch with OpenCV; update ``pixels`` and ``sound``.

        ``places`` are the indices of these images in the batch.
        """
        if not places:
            return
        encoded = [image for place in places if (image := images[place]) is not None]
        damage = [""] * len(places)
        with DecoderWarnings() as warnings:
            decoded = list(pool.map(decode, encoded))
            if warnings.read_damage():  # find the images that caused the warnings
                for number, image in enumerate(encoded):
                    warnings.clear()
                    decode(image)
                    damage[number] = warnings.read_damage()
        for place, image, found, reason in zip(places, encoded, decoded, damage, strict=True):
            row = int(rows[place])
            if found is None or reason:
                kind = "cut_off" if "premature" in reason and _ends_early(image) else "damaged"
                shown = f": {reason[:_MAX_SHOWN_CHARACTERS]}" if reason else ""
                self._add(kind, row, f"it cannot be decoded without an error{shown}")
                continue
            if found.shape != pixels.shape[1:]:
                text = "after the Exif rotation it is {}x{} pixels, but must be {}x{}"
                self._add("wrong_size", row, text.format(*found.shape[:2], *pixels.shape[1:3]))
                continue
            pixels[place], sound[place] = found[:, :, ::-1], True

    def _find_turned(
        self, rows: np.ndarray, images: list[np.ndarray | None], sound: np.ndarray
    ) -> None:
        for place in np.flatnonzero(sound).tolist():
            image = images[place]
            if image is None or _EXIF not in image[:_HEAD_BYTES].tobytes():
                continue
            if may_turn(image):
                self._add("turned", int(rows[place]), "its Exif orientation rotates or flips it")
            elif has_turning_exif(image.tobytes()):
                text = "its Exif orientation asks for a rotation or a flip, but the loader ignores "
                self._add("turned", int(rows[place]), text + "Exif after a JFIF segment")

    def _find_grey(self, rows: np.ndarray, pixels: np.ndarray, sound: np.ndarray) -> None:
        sample = _channel_range(pixels[:, ::_SAMPLE_STEP, ::_SAMPLE_STEP])
        for place in np.flatnonzero(sound & (sample <= GREY_LEVELS)).tolist():
            if _channel_range(pixels[place : place + 1])[0] <= GREY_LEVELS:
                self._add("grey", int(rows[place]), "it has no colours")


def _ends_early(image: np.ndarray) -> bool:
    """Return whether only markers of scans and tables follow the start of the first scan.

    Other markers among the data of the scans show that the JPEG is damaged, and not just cut off.
    """
    codes = [code for code, _ in segments(image.tobytes())]
    return _START_OF_SCAN in codes and _SCAN_CODES.issuperset(codes[codes.index(_START_OF_SCAN) :])


def _channel_range(pixels: np.ndarray) -> np.ndarray:
    """Return the largest difference between two channels of a pixel in each image, uint8 (B,)."""
    red, green, blue = pixels[..., 0], pixels[..., 1], pixels[..., 2]
    largest = np.maximum(np.maximum(red, green), blue)
    smallest = np.minimum(np.minimum(red, green), blue)
    return (largest - smallest).reshape(len(pixels), -1).max(axis=1)


def default_threads() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0))
