# SPDX-License-Identifier: Apache-2.0
"""Images of a record set by row, decoded on the CPU: by our decoder, by DALI where ours cannot.

The compiled decoder (``ops.jpeg_decoder``) takes what face sets are made of, straight from the
mapped files; DALI decodes the rest.  Both give the same pixels.  A JPEG that is cut off in front of
its end-of-image marker is refused, which DALI does not notice.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from ops.jpeg_decoder import CUT_OFF, Decoding
from pipeline.decode.dali import MEAN, STD, DecodeGraph
from pipeline.decode.faults import take_dense
from pipeline.decode.to_mxnet import pooled_array
from pipeline.records.reader import CUT_OFF_IMAGE, BufferRing, RecordReader
from pipeline.sampling.augmentation import NO_AUGMENTATION

if TYPE_CHECKING:
    import mxnet as mx

    from ops.feed import LoaderKernels


class JpegFallbackDecoder:
    """Decodes rows of a record set; what is started returns a function that waits for the result.

    That function raises RecordError if an image cannot be decoded or has another size.

    ``max_images`` is the limit of one call; without ``kernels``, the compiled functions, DALI
    decodes everything.
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
        """Return an array for the pixels of some images, uint8 (count, H, W, 3)."""
        height, width = self._image_size
        return buffers.take(count, 3 * height * width).reshape(count, height, width, 3)

    def start_pixels(self, rows: np.ndarray, out: np.ndarray) -> Callable[[], np.ndarray]:
        """Start to decode the images of rows to ``out``, uint8 (B, H, W, 3), contiguous."""
        decoding = None
        if self._decoder is not None:
            addresses, sizes = self.reader.find(rows)
            decoding = self._decoder.to_pixels(
                addresses, sizes, self._image_size, out, source=self.reader
            )

        def finish() -> np.ndarray:
            remaining = self._remaining(rows, decoding)
            if len(remaining):
                out[remaining] = self._by_dali(rows[remaining])
            self.reader.check_files()  # or a cache would keep zeros
            return out

        return finish

    def start_planes(
        self, rows: np.ndarray, mirror: np.ndarray, ctx: mx.Context
    ) -> Callable[[], mx.nd.NDArray]:
        """Start to decode the images of rows to a new NDArray, float32 (B, 3, H, W), normalised.

        With the compiled functions only; ``mirror`` is bool (B,), ``ctx`` of the type "cpu".
        """
        assert self._decoder is not None and self._kernels is not None
        planes, out = pooled_array(self._kernels, (len(rows), 3, *self._image_size), ctx)
        addresses, sizes = self.reader.find(rows)
        decoding = self._decoder.to_planes(
            addresses,
            sizes,
            self._image_size,
            mirror,
            mean=MEAN,
            std=STD,
            out=out,
            source=self.reader,
            holder=planes,
        )

        def finish() -> mx.nd.NDArray:
            remaining = self._remaining(rows, decoding)
            if len(remaining):
                self._fill_planes(rows, remaining, mirror, out)
            return planes

        return finish

    def close(self) -> None:
        """End the threads."""
        if self._decoder is not None:
            self._decoder.close()

    def _remaining(self, rows: np.ndarray, decoding: Decoding | None) -> np.ndarray:
        """Wait for images; return the places of those that DALI is to decode."""
        if self._decoder is None or decoding is None:
            return np.arange(len(rows))
        remaining = self._decoder.wait(decoding)
        if len(remaining):
            cut_off = remaining[decoding.left[remaining] == CUT_OFF]
            if len(cut_off):
                raise self.reader.records.image_error(int(rows[cut_off[0]]), CUT_OFF_IMAGE)
        return remaining

    def _fill_planes(
        self, rows: np.ndarray, remaining: np.ndarray, mirror: np.ndarray, out: int
    ) -> None:
        """Write the images at some places of a batch, decoded by DALI, to its planes."""
        assert self._kernels is not None
        pixels, size = self._by_dali(rows[remaining]), self._image_size
        image_bytes = 3 * size[0] * size[1] * np.dtype(np.float32).itemsize
        run_ends = np.flatnonzero(np.diff(remaining, append=-1) != 1) + 1
        for start, end in zip([0, *run_ends[:-1]], run_ends, strict=True):
            place = int(remaining[start])
            self._kernels.normalise(
                pixels.ctypes.data,
                np.arange(start, end),
                mirror[place : place + end - start],
                size,
                mean=MEAN,
                std=STD,
                out=out + place * image_bytes,
                threads=self._threads,
            )

    def _by_dali(self, rows: np.ndarray) -> np.ndarray:
        """Return the pixels of rows, uint8 (n, H, W, 3)."""
        if self._graph is None:
            self._graph = DecodeGraph(
                batch_size=self._max_images,
                decode="cpu",
                threads=self._threads,
                depth=1,
                device_id=None,
                augmentation=NO_AUGMENTATION,
                finish="bytes",
            )
        self._graph.feed(self.reader.gather(rows, self._buffers), None)
        tensor = take_dense(self.reader, self._graph, [rows])
        pixels = np.array(tensor)
        self._graph.release()
        return pixels
