# SPDX-License-Identifier: Apache-2.0
"""JPEGs to pixels or normalised planes, in threads of its own: over ops/native/jpeg/decoder.cc.

It takes what face sets are made of, sequential Huffman-coded JPEGs of 8 bits (ITU-T T.81), grey or
YCbCr with luma sampled once or twice each way, and gives the pixels of libjpeg-turbo to the last
bit.  Whatever else there is, what Exif turns, and every stream with something odd in it, it leaves
to others.  Of a stream that ends before the last pixels it says so.
"""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Callable
from itertools import count
from typing import Any, NamedTuple

import numpy as np

__all__ = ["CUT_OFF", "Decoding", "JpegDecoder"]

CUT_OFF = 2
"""In ``Decoding.left``: the codes of the image end before its last pixels."""

_POINTER, _INT, _FLOAT = ctypes.c_void_p, ctypes.c_int64, ctypes.c_float
_SIGNATURES = {
    "face_decoder": (_POINTER, [_INT]),
    "face_decoder_end": (None, [_POINTER]),
    "face_decoder_start": (
        _POINTER,
        [
            _POINTER,
            _POINTER,
            _POINTER,
            _POINTER,
            _INT,
            _INT,
            _INT,
            _FLOAT,
            _FLOAT,
            _POINTER,
            _POINTER,
            _POINTER,
        ],
    ),
    "face_decoder_wait": (_INT, [_POINTER, _POINTER]),
}


class Decoding(NamedTuple):
    """Pictures that are being decoded."""

    number: int
    left: np.ndarray
    """(B,) uint8, 1 for those that are left to others, CUT_OFF for those that nobody can decode in
    full; not before they are waited for."""


class JpegDecoder:
    """Decodes jobs of pictures, one after the other, each with all its threads.

    Parameters
    ----------
    library
        The compiled library.
    threads
        How many.

    Raises
    ------
    OSError
        If the system has no thread for it.
    """

    def __init__(self, library: ctypes.CDLL, threads: int):
        for name, (result, arguments) in _SIGNATURES.items():
            function = getattr(library, name)
            function.restype, function.argtypes = result, arguments
        self._start, self._wait = library.face_decoder_start, library.face_decoder_wait
        # Jobs by number, with what the threads read and write: whoever has started one may be gone.
        self._jobs: dict[int, list[Any]] = {}
        self._numbers = count()
        self._decoder = library.face_decoder(threads)
        if not self._decoder:
            raise OSError(
                f"data.threads: the system gives no thread to decode with, got 0 of {threads}; "
                "raise its limit on processes"
            )
        self._end = weakref.finalize(
            self, _end, library.face_decoder_end, self._decoder, self._jobs
        )
        # At the end of the process whoever has it closes it: a thread may be waiting for it.
        self._end.atexit = False

    def to_pixels(
        self,
        addresses: np.ndarray,
        sizes: np.ndarray,
        image_size: tuple[int, int],
        out: np.ndarray,
        source: Any,
    ) -> Decoding:
        """Start to decode pictures to ``out``, uint8 (B, H, W, 3), contiguous.

        Parameters
        ----------
        addresses, sizes
            Of pictures in memory, int64 (B,) and (B,); one without bytes is left to others.
        image_size
            (H, W) in pixels; a picture of another size is left to others.
        source
            What holds the pictures' memory.
        """
        if out.shape != (len(sizes), *image_size, 3) or out.dtype != np.uint8:
            raise ValueError(f"decoder: wants uint8 (B, H, W, 3), got {out.dtype} {out.shape}")
        if not (out.flags.c_contiguous and out.flags.writeable):
            raise ValueError("decoder: wants an array that is contiguous and may be written")
        pixels = out.ctypes.data
        return self._started(addresses, sizes, image_size, pixels=pixels, held=(source, out))

    def to_planes(
        self,
        addresses: np.ndarray,
        sizes: np.ndarray,
        image_size: tuple[int, int],
        mirror: np.ndarray,
        *,
        mean: float,
        std: float,
        out: int,
        source: Any,
        holder: Any,
    ) -> Decoding:
        """Start to decode pictures to (x - mean) / std, as planes, mirrored where it says so.

        Parameters
        ----------
        addresses, sizes, image_size, source
            As above.
        mirror
            bool (B,).
        out
            Address of the result, float32 (B, 3, H, W); faster where it is a multiple of 32.
        holder
            What holds the result's memory.
        """
        mirror = np.ascontiguousarray(mirror, dtype=np.uint8)
        if len(mirror) != len(sizes):
            raise ValueError(f"decoder: {len(sizes)} pictures, got {len(mirror)} mirrors")
        return self._started(
            addresses,
            sizes,
            image_size,
            mirror=mirror,
            factor=1 / std,
            offset=-mean / std,
            planes=out,
            held=(source, holder),
        )

    def _started(
        self,
        addresses: np.ndarray,
        sizes: np.ndarray,
        image_size: tuple[int, int],
        *,
        mirror: np.ndarray | None = None,
        factor: float = 0.0,
        offset: float = 0.0,
        planes: int | None = None,
        pixels: int | None = None,
        held: Any,
    ) -> Decoding:
        if len(addresses) != len(sizes):
            raise ValueError(f"decoder: {len(sizes)} pictures, got {len(addresses)} addresses")
        addresses = np.ascontiguousarray(addresses, dtype=np.int64)
        sizes = np.ascontiguousarray(sizes, dtype=np.int64)
        left = np.empty(len(sizes), dtype=np.uint8)
        number = next(self._numbers)
        entry = self._jobs[number] = [0, addresses, sizes, mirror, left, held]
        if self._end.alive:
            entry[0] = self._start(
                self._decoder,
                addresses.ctypes.data,
                sizes.ctypes.data,
                None if mirror is None else mirror.ctypes.data,
                len(sizes),
                *image_size,
                factor,
                offset,
                planes,
                pixels,
                left.ctypes.data,
            )
        if not entry[0]:
            raise RuntimeError("decoder: is closed, or was made before this process was forked")
        return Decoding(number, left)

    def wait(self, decoding: Decoding) -> np.ndarray:
        """Wait for pictures; return the places of those that are not decoded, int64 (n,).

        Raises
        ------
        KeyError
            If they were waited for before, or the decoder is closed.
        RuntimeError
            If it is closed meanwhile.
        """
        job = self._jobs.pop(decoding.number)
        if not self._wait(self._decoder, job[0]):
            self._jobs[decoding.number] = job
            raise RuntimeError("decoder: was closed before the pictures were decoded")
        return np.flatnonzero(decoding.left)

    def close(self) -> None:
        """End the threads; jobs that were not waited for are dropped."""
        ending = self._end.detach()  # a call does nothing once the process has begun to end
        if ending:
            _, end, arguments, _ = ending
            end(*arguments)


def _end(end: Callable[[int], None], decoder: int, jobs: dict[int, list[Any]]) -> None:
    end(decoder)
    jobs.clear()  # now that nobody reads or writes what they hold
