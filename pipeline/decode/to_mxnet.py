# SPDX-License-Identifier: Apache-2.0
"""From decoded pictures to MXNet: every batch is a new NDArray.

An array that some operator still reads can therefore not be overwritten, however long a batch is
kept.
"""

from __future__ import annotations

import ctypes
from typing import Any

import mxnet as mx
import numpy as np

from ops.feed import LoaderKernels

__all__ = ["Normaliser", "hand_over", "labels_to", "lend"]


def hand_over(tensor: Any, ctx: mx.Context) -> mx.nd.NDArray:
    """Copy a dense DALI tensor (CPU or GPU) to a new NDArray of the same shape, float32."""
    array = mx.nd.empty(tuple(tensor.shape()), ctx=ctx)
    # Only DALI's tensors of GPUs have it; this one is in the memory of the same GPU.
    if hasattr(type(tensor), "__cuda_array_interface__"):
        # Blocking: MXNet does not know the stream that DALI would copy on.
        tensor.copy_to_external(ctypes.c_void_p(_address(array)), non_blocking=False)
        return array
    source = ctypes.c_void_p(tensor.data_ptr())
    # Sync: returns when the copy is done; Python's lock is released meanwhile.
    mx.base.check_call(
        mx.base._LIB.MXNDArraySyncCopyFromCPU(array.handle, source, ctypes.c_size_t(array.size))
    )
    return array


def labels_to(labels: np.ndarray, ctx: mx.Context) -> mx.nd.NDArray:
    """Return labels (B,) as a new float32 NDArray."""
    values = labels.astype(np.float32)
    if ctx.device_type != "cpu":
        return mx.nd.array(values, ctx=ctx, dtype="float32")
    # Nobody else knows of the array yet; through its engine MXNet takes ten times as long.
    array = mx.nd.empty(values.shape, ctx=ctx)
    ctypes.memmove(_address(array), values.ctypes.data, values.nbytes)
    return array


class Normaliser:
    """Pictures as bytes to NDArrays on the CPU: mirrored, normalised, as planes, in one pass.

    Parameters
    ----------
    feed
        The compiled functions.
    image_size
        (H, W) in pixels.
    mean, std
        Pixels x of 0 to 255 become (x - mean) / std.
    ctx
        A device of the type "cpu".
    threads
        Threads that share a batch.
    """

    def __init__(
        self,
        feed: LoaderKernels,
        image_size: tuple[int, int],
        mean: float,
        std: float,
        ctx: mx.Context,
        threads: int = 1,
    ):
        self._feed, self._image_size, self._ctx = feed, image_size, ctx
        self._mean, self._std, self._threads = mean, std, threads

    def __call__(self, pixels: int, rows: np.ndarray, mirror: np.ndarray) -> mx.nd.NDArray:
        """Return the pictures at some rows, float32 (B, 3, H, W).

        Parameters
        ----------
        pixels
            Address of pictures, uint8 (N, H, W, 3).
        rows
            int64 (B,).
        mirror
            bool (B,).
        """
        height, width = self._image_size
        array, out = lend(self._feed, (len(rows), 3, height, width), self._ctx)
        self._feed.normalise(
            *(pixels, rows, mirror, self._image_size, self._mean, self._std, out, self._threads)
        )
        return array


def lend(
    feed: LoaderKernels, shape: tuple[int, int, int, int], ctx: mx.Context
) -> tuple[mx.nd.NDArray, int]:
    """Return a new float32 array and the address of its values, in memory that is used again.

    MXNet tells when nobody refers to the array any more, a graph that waits for backward included.
    """
    if ctx.device_id:  # which DLPack's arrays do not know for CPUs
        array = mx.nd.empty(shape, ctx=ctx)
        return array, _address(array)
    lent = feed.pooled_array(shape)
    handle = mx.base.NDArrayHandle()
    mx.base.check_call(
        mx.base._LIB.MXNDArrayFromDLPackEx(
            ctypes.c_void_p(lent), ctypes.c_bool(False), ctypes.byref(handle)
        )
    )
    return mx.nd.NDArray(handle), int(ctypes.c_void_p.from_address(lent).value or 0)


def _address(array: mx.nd.NDArray) -> int:
    pointer = ctypes.c_void_p()
    mx.base.check_call(mx.base._LIB.MXNDArrayGetData(array.handle, ctypes.byref(pointer)))
    return int(pointer.value or 0)
