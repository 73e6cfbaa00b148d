# SPDX-License-Identifier: Apache-2.0
"""JPEG decoding on the CPU: the compiled decoder, with DALI for the formats it does not support.

Both decoders return the same pixels.  The compiled decoder (``ops.jpeg_decoder``) reads directly
from the mapped files.  The compiled decoder also refuses a JPEG whose data ends before its last
pixels.  DALI does not detect the missing data.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from ops.jpeg_decoder import CUT_OFF, Decoding
from pipeline.decode.dali import MEAN, STD, DecodeGraph
from pipeline.decode.faults import take_tensor
from pipeline.decode.to_mxnet import pooled_array
from pipeline.records.reader import CUT_OFF_IMAGE, BufferRing, RecordReader
from pipeline.sampling.augmentation import NO_AUGMENTATION

if TYPE_CHECKING:
    import mxnet as mx

    from ops.feed import LoaderKernels


class JpegFallbackDecoder:
    """Decodes images of a record set asynchronously with the compiled decoder and DALI.

    ``start_pixels`` and ``start_planes`` start the work and return a function.  That function waits
    for the result and returns the result.  It raises RecordError if an image cannot be decoded or
    does not have the image size of the record set.

    ``max_images`` is the maximum number of images per call.  ``kernels`` are the compiled
    functions; if they are None, DALI decodes all images.
    """

    def __init__(
        self, reader: RecordReader, *, max_images: int, threads: int, kernels: LoaderKernels | None
    ):
        self.reader, self._image_size = reader, reader.records.image_size
        self._max_images, self._threads, self._kernels = max_images, threads, kernels
        self._decoder = None if kernels is None else kernels.decoder(threads)
        self._graph: DecodeGraph | None = None
        self._buffers = BufferRing(1)

    def pixels_in(self, buffers: BufferRing, count: int) -> np.ndarray:
        """Return an uninitialised array for the pixels of ``count`` images, uint8 (count, H, W, 3).

        The array is the next buffer of the ring ``buffers``.
        """
        height, width = self._image_size
        return buffers.take(count, 3 * height * width).reshape(count, height, width, 3)

    def start_pixels(self, rows: np.ndarray, out: np.ndarray) -> Callable[[], np.ndarray]:
        """Start to decode the images of B rows; return a function that waits and returns ``out``.

        The pixels are written to ``out``, which is uint8 (B, H, W, 3) and contiguous.
        """
        decoding = None
        if self._decoder is not None:
            addresses, sizes = self.reader.find(rows)
            decoding = self._decoder.to_pixels(
                addresses, sizes, self._image_size, out, source=self.reader
            )

        def finish() -> np.ndarray:
            remaining = self._wait(rows, decoding)
            if len(remaining):
                out[remaining] = self._decode_with_dali(rows[remaining])
            # If a file was truncated, its missing bytes read as zeros.  Pixels decoded from these
            # zeros must not get into the cache.
            self.reader.check_files()
            return out

        return finish

    def start_planes(
        self, rows: np.ndarray, mirror: np.ndarray, ctx: mx.Context
    ) -> Callable[[], mx.nd.NDArray]:
        """Start to decode the images of B rows; return a function that waits and returns planes.

        The planes are normalised images in a new NDArray on the CPU, float32 (B, 3, H, W).
        ``mirror`` is bool (B,): True flips the image horizontally.  This method needs ``kernels``.
        """
        assert self._decoder is not None and self._kernels is not None
        planes, out = pooled_array(self._kernels, (len(rows), 3, *self._image_size), ctx)
        addresses, sizes = self.reader.find(rows)
        keep_alive = {"source": self.reader, "holder": planes}
        decoding = self._decoder.to_planes(
            addresses, sizes, self._image_size, mirror, mean=MEAN, std=STD, out=out, **keep_alive
        )

        def finish() -> mx.nd.NDArray:
            remaining = self._wait(rows, decoding)
            if len(remaining):
                self._fill_planes(rows, remaining, mirror, out)
            return planes

        return finish

    def close(self) -> None:
        """Stop the threads of the compiled decoder."""
        if self._decoder is not None:
            self._decoder.close()

    def _wait(self, rows: np.ndarray, decoding: Decoding | None) -> np.ndarray:
        """Wait for the compiled decoder; return the indices of the images that DALI must decode.

        The indices (n,) refer to ``rows``.  Raises RecordError if the data of an image is cut off.
        """
        if self._decoder is None or decoding is None:
            return np.arange(len(rows))
        remaining = self._decoder.wait(decoding)
        cut_off = remaining[decoding.outcomes[remaining] == CUT_OFF]
        if len(cut_off):
            raise self.reader.records.image_error(int(rows[cut_off[0]]), CUT_OFF_IMAGE)
        return remaining

    def _fill_planes(
        self, rows: np.ndarray, remaining: np.ndarray, mirror: np.ndarray, out: int
    ) -> None:
        """Decode the images of ``rows[remaining]`` with DALI, and write their planes.

        ``out`` is the memory address of the planes of the batch, float32 (B, 3, H, W).
        """
        assert self._kernels is not None
        pixels, size = self._decode_with_dali(rows[remaining]), self._image_size
        image_bytes = 3 * size[0] * size[1] * np.dtype(np.float32).itemsize
        # Make one call for each run of consecutive indices, whose planes are adjacent in memory.
        run_ends = np.flatnonzero(np.diff(remaining, append=-1) != 1) + 1
        for start, end in zip([0, *run_ends[:-1]], run_ends, strict=True):
            first = int(remaining[start])
            self._kernels.normalise(
                pixels.ctypes.data,
                np.arange(start, end),
                mirror[first : first + end - start],
                size,
                mean=MEAN,
                std=STD,
                out=out + first * image_bytes,
                threads=self._threads,
            )

    def _decode_with_dali(self, rows: np.ndarray) -> np.ndarray:
        """Decode the images of n rows with DALI; return their pixels, uint8 (n, H, W, 3)."""
        if self._graph is None:
            options: dict[str, Any] = {"augmentation": NO_AUGMENTATION, "finish": "bytes"}
            size, threads = self._max_images, self._threads
            self._graph = DecodeGraph(size, "cpu", threads, 1, device_id=None, **options)
        images = self.reader.gather(rows, self._buffers)
        # After an error DALI cannot use the graph any more.  So ``self._graph`` is None until the
        # call succeeds, and after an error the next call makes another graph.
        graph, self._graph = self._graph, None
        graph.feed(images, None)
        pixels = np.array(take_tensor(self.reader, graph, [rows]))
        graph.release()
        self._graph = graph
        return pixels
