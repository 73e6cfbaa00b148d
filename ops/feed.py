# SPDX-License-Identifier: Apache-2.0
"""What a loader calls for whole batches: pixels to normalised planes, records out of a file.

Thin over ops/native/feed.cc.  Nothing here holds Python's lock while it works, so several threads
can work on parts of one batch.  ``ops.loader_kernels`` returns them if available.
"""

from __future__ import annotations

import ctypes

import numpy as np

from ops.jpeg_decoder import JpegDecoder

__all__ = ["LoaderKernels"]

_POINTER, _INT, _FLOAT = ctypes.c_void_p, ctypes.c_int64, ctypes.c_float
_SIGNATURES = {
    "face_find_images": (None, [_POINTER, _INT, _POINTER, _INT, _POINTER, _POINTER]),
    "face_find_turned": (None, [_POINTER, _POINTER, _INT, _POINTER]),
    "face_jpeg_cut_off": (_INT, [_POINTER, _INT]),
    "face_gather": (_INT, [_POINTER, _POINTER, _INT, _POINTER, _INT]),
    "face_window_order": (None, [_INT, _INT, _INT, _INT, _POINTER]),
    "face_read_ahead": (None, [_POINTER, _POINTER, _POINTER, _INT]),
    "face_pooled_array": (_POINTER, [_INT, _INT, _INT, _INT]),
    "face_normalise": (
        None,
        [_POINTER, _POINTER, _POINTER, _INT, _INT, _INT, _FLOAT, _FLOAT, _POINTER, _INT],
    ),
}


class LoaderKernels:
    """The functions of a compiled library of operators.

    Parameters
    ----------
    library
        The library, loaded.
    """

    def __init__(self, library: ctypes.CDLL):
        self._library = library
        for name, (result, arguments) in _SIGNATURES.items():
            function = getattr(library, name)
            function.restype, function.argtypes = result, arguments
            setattr(self, f"_{name.removeprefix('face_')}", function)

    def decoder(self, threads: int) -> JpegDecoder:
        """Return a decoder of JPEGs with threads of its own."""
        return JpegDecoder(self._library, threads)

    def find_images(self, data: np.ndarray, offsets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the addresses and the sizes in bytes of the images of some records.

        Parameters
        ----------
        data
            Bytes of a .rec, uint8 (n,), mapped.
        offsets
            Where the records begin, int64 (B,).

        Outputs
        -------
        int64 (B,) and (B,): a size of -1 where no whole record stands, -2 for a record in parts.
        """
        offsets = np.ascontiguousarray(offsets, dtype=np.int64)
        addresses, sizes = np.empty_like(offsets), np.empty_like(offsets)
        self._library.face_find_images(
            data.ctypes.data,
            data.size,
            offsets.ctypes.data,
            len(offsets),
            addresses.ctypes.data,
            sizes.ctypes.data,
        )
        return addresses, sizes

    def find_turned(self, addresses: np.ndarray, sizes: np.ndarray) -> np.ndarray:
        """Return which images have an Exif orientation of 2 to 8, bool (B,).

        The compiled twin of ``encoded_images.may_turn``.

        Parameters
        ----------
        addresses, sizes
            As ``find_images`` gives them, int64 (B,) and contiguous; no size is negative.
        """
        turned = np.empty(len(sizes), dtype=np.bool_)
        self._find_turned(addresses.ctypes.data, sizes.ctypes.data, len(sizes), turned.ctypes.data)
        return turned

    def is_cut_off(self, image: bytes | np.ndarray) -> bool:
        """Return whether the codes of a JPEG end before its last pixels, at an end-of-image marker.

        The codes are read, nothing is decoded.  Only images that the compiled decoder takes, or
        would take if Exif did not turn them, are judged; False for all others.

        Parameters
        ----------
        image
            The encoded image, bytes or uint8 (n,).
        """
        data = np.frombuffer(image, np.uint8) if isinstance(image, bytes) else image
        data = np.ascontiguousarray(data)
        return bool(self._jpeg_cut_off(data.ctypes.data, data.size))

    def gather(self, addresses: np.ndarray, sizes: np.ndarray, rows: np.ndarray) -> int:
        """Copy images to the rows of an array, and end each with a marker.

        Return how many are JPEGs that do not end with one themselves, zeros aside.

        Parameters
        ----------
        addresses, sizes
            As ``find_images`` gives them, int64 (B,) and contiguous; no size is negative.
        rows
            uint8 (B, S) with S above the largest size by two at least.
        """
        if rows.strides[1] != 1 or rows.shape[1] < sizes.max() + 2 or len(rows) != len(sizes):
            raise ValueError(f"feed.gather: {sizes.max() + 2} bytes a row, got {rows.shape}")
        unended = self._gather(
            addresses.ctypes.data, sizes.ctypes.data, len(sizes), rows.ctypes.data, rows.strides[0]
        )
        return int(unended)

    def window_order(self, count: int, taken: int, window: int, seed: int) -> np.ndarray:
        """Return the order in which ``fn.readers.mxnet`` of DALI reads a shard, int32 (taken,).

        Parameters
        ----------
        count, taken
            Records of the shard, and how many of them are wanted.
        window, seed
            The reader's ``initial_fill`` and ``seed``; a window of 1 is no shuffling.

        Outputs
        -------
        Places in the shard, each at most once.
        """
        if not 0 <= taken <= count < 1 << 31 or window < 1:
            raise ValueError(f"feed.window_order: got {taken} of {count}, window {window}")
        order = np.empty(count, dtype=np.int32)
        self._window_order(count, taken, window, seed, order.ctypes.data)
        return order[:taken]

    def read_ahead(self, data: np.ndarray, offsets: np.ndarray, sizes: np.ndarray) -> None:
        """Ask the system to fetch whole pages of a mapped file.

        Parameters
        ----------
        offsets, sizes
            Where pages begin, a multiple of their size, and how many bytes from there, int64 (n,).
        """
        offsets = np.ascontiguousarray(offsets, dtype=np.int64)
        sizes = np.ascontiguousarray(sizes, dtype=np.int64)
        self._read_ahead(data.ctypes.data, offsets.ctypes.data, sizes.ctypes.data, len(offsets))

    def pooled_array(self, shape: tuple[int, int, int, int]) -> int:
        """Return the address of a DLManagedTensor, float32, in pooled memory.

        It begins with the address of the values, which are not initialised.

        Raises
        ------
        MemoryError
            If there is none.
        """
        address = self._library.face_pooled_array(*shape)
        if not address:
            raise MemoryError(f"no memory for an array of {shape}")
        return int(address)

    def normalise(
        self,
        pixels: int,
        rows: np.ndarray,
        mirror: np.ndarray,
        image_size: tuple[int, int],
        mean: float,
        std: float,
        out: int,
        threads: int = 1,
    ) -> None:
        """Write (x - mean) / std of some images, as planes, mirrored where it says so.

        Parameters
        ----------
        pixels
            Address of images, uint8 (N, H, W, 3).
        rows
            Which of them, int64 (B,).
        mirror
            bool (B,).
        image_size
            (H, W) in pixels.
        out
            Address of the result, float32 (B, 3, H, W); faster where it
            is a multiple of 32.
        threads
            That share the images.
        """
        rows = np.ascontiguousarray(rows, dtype=np.int64)
        mirror = np.ascontiguousarray(mirror, dtype=np.uint8)
        if len(rows) != len(mirror):
            raise ValueError(f"feed.normalise: {len(rows)} rows, got {len(mirror)} mirrors")
        height, width = image_size
        self._normalise(
            pixels,
            rows.ctypes.data,
            mirror.ctypes.data,
            len(rows),
            height,
            width,
            1 / std,
            -mean / std,
            out,
            threads,
        )
