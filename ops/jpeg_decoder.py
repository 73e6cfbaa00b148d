# SPDX-License-Identifier: Apache-2.0
"""Python interface of the compiled JPEG decoder, ops/native/jpeg/decoder.cc.

The decoder supports the JPEGs that face sets consist of: sequential, Huffman-coded, 8 bits (ITU-T
T.81), grey or YCbCr, with chroma subsampled by 1 or 2 in each direction.  Its pixels are identical
to those of libjpeg-turbo.  The decoder skips all other formats, images that Exif rotates, and
streams with any irregularity.  The caller decodes skipped images with another decoder.  The decoder
also reports streams that end before their last pixels.
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
"""Value in ``Decoding.outcomes`` for an image whose Huffman codes end before its last pixels."""

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
    """A job of the decoder: the B images of one call of ``to_pixels`` or ``to_planes``."""

    number: int
    outcomes: np.ndarray
    """Outcome of each image, uint8 (B,): 0 if the image is decoded, 1 if the decoder skipped the
    image, CUT_OFF if the data of the image is incomplete.  Valid after ``JpegDecoder.wait``."""


class JpegDecoder:
    """Decodes JPEGs in jobs, one after another; all threads work on one job together.

    Parameters
    ----------
    library
        The library of operators, loaded with ctypes.
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
        # Keeps the buffers of running jobs alive, even if the object that started the jobs has
        # already been garbage-collected.
        self._jobs: dict[int, list[Any]] = {}
        self._numbers = count()
        self._decoder = library.face_decoder(threads)
        if not self._decoder:
            raise OSError(
                f"data.threads: the system cannot create decoder threads, got 0 of {threads}; "
                "raise the limit on processes (ulimit -u)"
            )
        self._end = weakref.finalize(
            self, _end, library.face_decoder_end, self._decoder, self._jobs
        )
        # The owner must close the decoder before the process ends.  A finalizer at exit could free
        # the decoder while another thread waits for a job.
        self._end.atexit = False

    def to_pixels(
        self,
        addresses: np.ndarray,
        sizes: np.ndarray,
        image_size: tuple[int, int],
        out: np.ndarray,
        source: Any,
    ) -> Decoding:
        """Start to decode B images to pixels, and return the job.

        The pixels are written to ``out``, which is uint8 (B, H, W, 3) and contiguous.

        Parameters
        ----------
        addresses, sizes
            Memory addresses and sizes in bytes of the encoded images, both int64 (B,).  The decoder
            skips an image of 0 bytes.
        image_size
            (H, W) in pixels.  The decoder skips an image of another size.
        source
            Object that owns the memory of the encoded images; the decoder keeps a reference to it
            during the job.
        """
        if out.shape != (len(sizes), *image_size, 3) or out.dtype != np.uint8:
            raise ValueError(
                f"decoder: the array `out` does not fit the images, got {out.dtype} {out.shape}; "
                f"give uint8 {(len(sizes), *image_size, 3)}"
            )
        if not (out.flags.c_contiguous and out.flags.writeable):
            raise ValueError(
                "decoder: the array `out` must be contiguous and writeable, got strides "
                f"{out.strides} and writeable = {out.flags.writeable}; pass another array"
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
        """Start to decode, mirror and normalise B images to CHW planes, and return the job.

        A value x of a pixel becomes ``(x - mean) / std``.  ``to_pixels`` documents the other
        parameters.

        Parameters
        ----------
        mirror
            bool (B,): True to flip the image horizontally.
        out
            Memory address of the result, float32 (B, 3, H, W).  An address that is a multiple of 32
            makes the decoder faster.
        holder
            Object that owns the memory of the result; the decoder keeps a reference to it during
            the job.
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
                "parent process; create a new decoder"
            )
        return Decoding(number, outcomes)

    def wait(self, decoding: Decoding) -> np.ndarray:
        """Wait for a job; return the indices of the images that were not decoded, int64 (n,).

        Raises
        ------
        KeyError
            If ``wait`` was already called for this job, or if the decoder is closed.
        RuntimeError
            If another thread closes the decoder during the wait.
        """
        job = self._jobs.pop(decoding.number)
        if not self._wait(self._decoder, job[0]):
            self._jobs[decoding.number] = job
            raise RuntimeError(
                "decoder: closed while a job was still running; wait for all jobs before close()"
            )
        return np.flatnonzero(decoding.outcomes)

    def close(self) -> None:
        """Stop the decoder's threads and drop unfinished jobs."""
        # A call of the finalizer does nothing while the interpreter exits, so call the finalizer's
        # function directly.
        ending = self._end.detach()
        if ending:
            _, end, arguments, _ = ending
            end(*arguments)


def _check_length(name: str, array: np.ndarray, count: int) -> None:
    if len(array) != count:
        raise ValueError(
            f"decoder: {name} has the wrong number of values, got {len(array)}; give one value for "
            f"each of the {count} images"
        )


def _end(end: Callable[[int], None], decoder: int, jobs: dict[int, list[Any]]) -> None:
    end(decoder)
    jobs.clear()  # This frees the buffers, which no thread uses after end().
