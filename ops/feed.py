# SPDX-License-Identifier: Apache-2.0
"""Python interface of the compiled functions for data loaders.

Most of the functions are in ops/native/feed.cc.  A loader calls most of them once per batch.
ctypes releases the GIL during each call, so other Python threads continue.  ``ops.compiled``
returns a ``LoaderKernels``; the function compiles the library if necessary.
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
    "face_find_other_sizes": (None, [_POINTER, _POINTER, _INT, _INT, _INT, _POINTER]),
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
    """Compiled functions for data loaders, called through ctypes.

    Parameters
    ----------
    library
        The library of operators, loaded with ctypes.
    """

    def __init__(self, library: ctypes.CDLL):
        self._library = library
        for name, (result, arguments) in _SIGNATURES.items():
            function = getattr(library, name)
            function.restype, function.argtypes = result, arguments

    def decoder(self, threads: int) -> JpegDecoder:
        """Return a new JPEG decoder with its own threads."""
        return JpegDecoder(self._library, threads)

    def find_images(self, data: np.ndarray, offsets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Find the encoded images of B records; return their memory addresses and sizes in bytes.

        Parameters
        ----------
        data
            Mapped bytes of a .rec file, uint8 (n,).
        offsets
            Offsets of the records in the file, in bytes, int64 (B,).

        Outputs
        -------
        Addresses, int64 (B,), and sizes, int64 (B,).  A size is -1 if no complete record begins at
        the offset, and -2 if the record is split into parts.
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
        """Return which of B images have an Exif orientation of 2 to 8, as bool (B,).

        The results are the same as those of ``encoded_images.may_turn``.

        Parameters
        ----------
        addresses, sizes
            Results of ``find_images``, int64 (B,) and contiguous; no size may be negative.
        """
        turned = np.empty(len(sizes), dtype=np.bool_)
        self._library.face_find_turned(
            addresses.ctypes.data, sizes.ctypes.data, len(sizes), turned.ctypes.data
        )
        return turned

    def find_other_sizes(
        self, addresses: np.ndarray, sizes: np.ndarray, image_size: tuple[int, int]
    ) -> np.ndarray:
        """Return which of B images are not JPEGs of the size ``image_size``, as bool (B,).

        The size of a JPEG is the size that its header states.

        Parameters
        ----------
        addresses, sizes
            Results of ``find_images``, int64 (B,) and contiguous; no size may be negative.
        image_size
            (height, width) in pixels.
        """
        others = np.empty(len(sizes), dtype=np.bool_)
        self._library.face_find_other_sizes(
            addresses.ctypes.data, sizes.ctypes.data, len(sizes), *image_size, others.ctypes.data
        )
        return others

    def is_cut_off(self, image: bytes | np.ndarray) -> bool:
        """Return whether the Huffman codes of a JPEG end before its last pixels.

        The function reads the codes up to an end-of-image marker and decodes no pixels.  JPEGs that
        Exif rotates are checked too.  The result is False for formats that the compiled decoder
        does not support.

        Parameters
        ----------
        image
            Encoded image, bytes or uint8 (n,).
        """
        data = np.frombuffer(image, np.uint8) if isinstance(image, bytes) else image
        data = np.ascontiguousarray(data)
        return bool(self._library.face_jpeg_cut_off(data.ctypes.data, data.size))

    def gather(self, addresses: np.ndarray, sizes: np.ndarray, rows: np.ndarray) -> int:
        """Copy B encoded images to the rows of an array, and append an end-of-image marker to each.

        Returns the number of JPEGs that had no such marker before.  A JPEG that ends in a marker
        and zeros counts as one with a marker.

        Parameters
        ----------
        addresses, sizes
            Results of ``find_images``, int64 (B,) and contiguous; no size may be negative.
        rows
            Destination, uint8 (B, S).  S is at least the largest size plus 2 for the marker.
        """
        row_bytes = sizes.max() + 2
        if rows.strides[1] != 1 or rows.shape[1] < row_bytes or len(rows) != len(sizes):
            raise ValueError(
                f"feed.gather: the array `rows` cannot hold the images, got shape {rows.shape}; "
                f"give {len(sizes)} contiguous rows of {row_bytes} bytes or more"
            )
        return self._library.face_gather(
            addresses.ctypes.data, sizes.ctypes.data, len(sizes), rows.ctypes.data, rows.strides[0]
        )

    def window_order(self, count: int, length: int, window: int, seed: int) -> np.ndarray:
        """Return the order in which DALI's ``fn.readers.mxnet`` delivers the records of a shard.

        Parameters
        ----------
        count
            Number of records in the shard.
        length
            Number of records to return, from the beginning of the order; at most ``count``.
        window, seed
            The arguments ``initial_fill`` and ``seed`` of DALI's reader.  A window of 1 means no
            shuffling.

        Outputs
        -------
        Record numbers within the shard, int32 (length,), without duplicates.
        """
        if not 0 <= length <= count < 1 << 31 or window < 1:
            raise ValueError(
                f"feed.window_order: cannot order a shard, got length={length}, count={count} and "
                f"window={window}; give 0 <= length <= count < 2**31 and window >= 1"
            )
        order = np.empty(count, dtype=np.int32)
        self._library.face_window_order(count, length, window, seed, order.ctypes.data)
        return order[:length]

    def read_ahead(self, data: np.ndarray, offsets: np.ndarray, sizes: np.ndarray) -> None:
        """Ask the Linux kernel to read ranges of a mapped file into memory before their use.

        Parameters
        ----------
        data
            Mapped bytes of the file, uint8, one-dimensional.
        offsets
            Offsets of the n ranges in bytes, multiples of the page size, int64 (n,).
        sizes
            Sizes of the ranges in bytes, int64 (n,).
        """
        offsets = np.ascontiguousarray(offsets, dtype=np.int64)
        sizes = np.ascontiguousarray(sizes, dtype=np.int64)
        self._library.face_read_ahead(
            data.ctypes.data, offsets.ctypes.data, sizes.ctypes.data, len(offsets)
        )

    def pooled_array(self, shape: tuple[int, int, int, int]) -> int:
        """Allocate a float32 array in pooled memory; return the address of its DLManagedTensor.

        The values are not initialised.  The first field of the DLManagedTensor is the address of
        the values.

        Raises
        ------
        MemoryError
            If the allocation fails.
        """
        address = self._library.face_pooled_array(*shape)
        if not address:
            raise MemoryError(
                "feed.pooled_array: allocation failed, got no memory for a float32 array of shape "
                f"{shape}; lower data.batch_size"
            )
        return address

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
        """Convert B of N images to CHW planes: mirror them if asked, and compute (x - mean) / std.

        Parameters
        ----------
        pixels
            Memory address of the pixels of N images, uint8 (N, H, W, 3).
        rows
            Indices of the B images to convert, int64 (B,).
        mirror
            bool (B,): True to flip the image horizontally.
        image_size
            (H, W) in pixels.
        out
            Memory address of the result, float32 (B, 3, H, W).  An address that is a multiple of 32
            makes the function faster.
        threads
            Number of threads.
        """
        rows = np.ascontiguousarray(rows, dtype=np.int64)
        mirror = np.ascontiguousarray(mirror, dtype=np.uint8)
        if len(rows) != len(mirror):
            raise ValueError(
                "feed.normalise: rows and mirror must have the same number of values, got "
                f"{len(rows)} and {len(mirror)}; give one mirror value per row"
            )
        height, width = image_size
        self._library.face_normalise(
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
