# SPDX-License-Identifier: Apache-2.0
"""Python interface of the compiled JPEG decoder, ops/native/jpeg/decoder.cc.

The decoder supports the JPEGs that face sets consist of: sequential, Huffman-coded, 8 bits (ITU-T
T.81), grey or YCbCr, with chroma subsampled by 1 or 2 in each direction.  Its pixels are identical
to those of libjpeg-turbo.  It skips other formats, images that Exif rotates and streams with any
irregularity; the caller decodes those with another decoder.  It also reports streams that end
before the last pixels.
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
"""Value in ``Decoding.outcomes``: the codes of the image end before its last pixels."""

_POINTER, _INT, _FLOAT = ctypes.c_void_p, ctypes.c_int64, ctypes.c_float
# fmt: off
_SIGNATURES = {
    "face_decoder": (_POINTER, [_INT]),
    "face_decoder_end": (None, [_POINTER]),
    "face_decoder_start": (
        _POINTER,
        [_POINTER, _POINTER, _POINTER, _POINTER, _INT, _INT, _INT, _FLOAT, _FLOAT, _POINTER,
         _POINTER, _POINTER],
    ),
    "face_decoder_wait": (_INT, [_POINTER, _POINTER]),
}
# fmt: on


class Decoding(NamedTuple):
    """A job of the decoder."""

    number: int
    outcomes: np.ndarray
    """uint8 (B,): 0 if the image is decoded, 1 if the decoder skipped it, CUT_OFF if its data is
    incomplete.  Valid after ``JpegDecoder.wait``."""


class JpegDecoder:
    """Decodes jobs of images in order; all threads share each job.

    Parameters
    ----------
    library
        The compiled library.
    threads
        Number of threads.

    Raises
    ------
    OSError
        If the system cannot create a thread.
    """

    def __init__(self, library: ctypes.CDLL, threads: int):
        for name, (result, arguments) in _SIGNATURES.items():
            function = getattr(library, name)
            function.restype, function.argtypes = result, arguments
        self._start, self._wait = library.face_decoder_start, library.face_decoder_wait
        # Keeps the buffers of running jobs alive; the caller may already have been
        # garbage-collected.
        self._jobs: dict[int, list[Any]] = {}
        self._numbers = count()
        self._decoder = library.face_decoder(threads)
        if not self._decoder:
            raise OSError(
                f"data.threads: the system cannot create decoder threads, got 0 of {threads}; "
                "raise its limit on processes"
            )
        self._end = weakref.finalize(
            self, _end, library.face_decoder_end, self._decoder, self._jobs
        )
        # The owner must close the decoder before the process ends.  A finalizer at exit could free
        # it while another thread waits in it.
        self._end.atexit = False

    def to_pixels(
        self,
        addresses: np.ndarray,
        sizes: np.ndarray,
        image_size: tuple[int, int],
        out: np.ndarray,
        source: Any,
    ) -> Decoding:
        """Start to decode images to ``out``, uint8 (B, H, W, 3), contiguous.

        Parameters
        ----------
        addresses, sizes
            Memory addresses and sizes in bytes of the encoded images, int64 (B,) and (B,).  The
            decoder skips an image of 0 bytes.
        image_size
            (H, W) in pixels.  The decoder skips an image of another size.
        source
            Object that owns the memory of the encoded images.
        """
        if out.shape != (len(sizes), *image_size, 3) or out.dtype != np.uint8:
            raise ValueError(
                f"decoder: out does not fit, got {out.dtype} {out.shape}; give uint8 "
                f"{(len(sizes), *image_size, 3)}"
            )
        if not (out.flags.c_contiguous and out.flags.writeable):
            raise ValueError(
                f"decoder: out cannot be written, got strides {out.strides}; give a contiguous and "
                "writeable array"
            )
        pixels = out.ctypes.data
        return self._start_job(addresses, sizes, image_size, pixels=pixels, buffers=(source, out))

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
        """Start to decode images, mirror them and normalise them to planes (x - mean) / std.

        ``to_pixels`` documents the other parameters.

        Parameters
        ----------
        mirror
            bool (B,): True to flip the image horizontally.
        out
            Address of the result, float32 (B, 3, H, W); multiples of 32 are faster.
        holder
            Object that owns the memory of the result.
        """
        mirror = np.ascontiguousarray(mirror, dtype=np.uint8)
        _check_length("mirror", mirror, len(sizes))
        return self._start_job(
            addresses,
            sizes,
            image_size,
            mirror=mirror,
            factor=1 / std,
            offset=-mean / std,
            planes=out,
            buffers=(source, holder),
        )

    def _start_job(
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
        buffers: Any,
    ) -> Decoding:
        _check_length("addresses", addresses, len(sizes))
        addresses = np.ascontiguousarray(addresses, dtype=np.int64)
        sizes = np.ascontiguousarray(sizes, dtype=np.int64)
        outcomes = np.empty(len(sizes), dtype=np.uint8)
        number = next(self._numbers)
        job = self._jobs[number] = [0, addresses, sizes, mirror, outcomes, buffers]
        if self._end.alive:
            job[0] = self._start(
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
                outcomes.ctypes.data,
            )
        if not job[0]:
            raise RuntimeError(
                "decoder: cannot start a job, got a decoder that is closed or belongs to the "
                "parent process; create a new one"
            )
        return Decoding(number, outcomes)

    def wait(self, decoding: Decoding) -> np.ndarray:
        """Wait for a job; return the indices of the images that are not decoded, int64 (n,).

        Raises
        ------
        KeyError
            If this is the second call for the job, or the decoder is closed.
        RuntimeError
            If another thread closes the decoder meanwhile.
        """
        job = self._jobs.pop(decoding.number)
        if not self._wait(self._decoder, job[0]):
            self._jobs[decoding.number] = job
            raise RuntimeError(
                "decoder: a job is incomplete, got a decoder that was closed meanwhile; wait for "
                "all jobs before close()"
            )
        return np.flatnonzero(decoding.outcomes)

    def close(self) -> None:
        """Stop the threads and drop unfinished jobs."""
        # Calling the finalizer does nothing during interpreter exit, so call its function directly.
        ending = self._end.detach()
        if ending:
            _, end, arguments, _ = ending
            end(*arguments)


def _check_length(name: str, array: np.ndarray, count: int) -> None:
    if len(array) != count:
        raise ValueError(
            f"decoder: {name} has the wrong length, got {len(array)}; give one value for each of "
            f"the {count} images"
        )


def _end(end: Callable[[int], None], decoder: int, jobs: dict[int, list[Any]]) -> None:
    end(decoder)
    jobs.clear()  # after end(): no thread reads or writes the buffers now
