# SPDX-License-Identifier: Apache-2.0
"""Decoded images to MXNet: every batch is a new NDArray.

So an array that some operator still reads cannot be overwritten, however long a batch is kept.
"""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any

import mxnet as mx
import numpy as np

from pipeline.decode.dali import MEAN, STD

if TYPE_CHECKING:
    from ops.feed import LoaderKernels

__all__ = ["Normalizer", "copy_to_ndarray", "labels_to_ndarray", "pooled_array"]


def copy_to_ndarray(
    tensor: Any, ctx: mx.Context, kernels: LoaderKernels | None = None
) -> mx.nd.NDArray:
    """Copy a dense DALI tensor (CPU or GPU) to a new NDArray of the same shape, float32.

    With ``kernels`` an array on the CPU lies in pooled memory, which is faster.
    """
    shape = tuple(tensor.shape())
    if kernels is not None and ctx.device_type == "cpu":
        array, address = pooled_array(kernels, shape, ctx)
        ctypes.memmove(address, tensor.data_ptr(), array.size * np.dtype(np.float32).itemsize)
        return array
    array = mx.nd.empty(shape, ctx=ctx)
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


def labels_to_ndarray(labels: np.ndarray, ctx: mx.Context) -> mx.nd.NDArray:
    """Return labels (B,) as a new float32 NDArray."""
    values = labels.astype(np.float32)
    if ctx.device_type != "cpu":
        return mx.nd.array(values, ctx=ctx, dtype="float32")
    # Nobody else knows of the array yet; through its engine MXNet takes ten times as long.
    array = mx.nd.empty(values.shape, ctx=ctx)
    ctypes.memmove(_address(array), values.ctypes.data, values.nbytes)
    return array


class Normalizer:
    """Converts pixels to NDArrays on the CPU: mirrored, normalised, as planes, in one pass.

    ``image_size`` is (H, W), ``ctx`` a device of the type "cpu"; ``threads`` share a batch.
    """

    def __init__(
        self, kernels: LoaderKernels, image_size: tuple[int, int], ctx: mx.Context, threads: int = 1
    ):
        self._kernels, self._image_size, self._ctx = kernels, image_size, ctx
        self._threads = threads

    def __call__(self, pixels: int, rows: np.ndarray, mirror: np.ndarray) -> mx.nd.NDArray:
        """Return images, float32 (B, 3, H, W): ``rows`` (B,) of uint8 (N, H, W, 3) at an address.

        ``mirror`` is bool (B,).
        """
        array, out = pooled_array(self._kernels, (len(rows), 3, *self._image_size), self._ctx)
        self._kernels.normalise(
            pixels,
            rows,
            mirror,
            self._image_size,
            mean=MEAN,
            std=STD,
            out=out,
            threads=self._threads,
        )
        return array


def pooled_array(
    kernels: LoaderKernels, shape: tuple[int, int, int, int], ctx: mx.Context
) -> tuple[mx.nd.NDArray, int]:
    """Return a new float32 array in pooled memory, and the address of its values.

    The memory returns to the pool when nobody refers to the array any more, which MXNet tells; a
    graph that waits for backward refers to it.
    """
    if ctx.device_id:  # which DLPack's arrays do not know for CPUs
        array = mx.nd.empty(shape, ctx=ctx)
        return array, _address(array)
    tensor = kernels.pooled_array(shape)
    handle = mx.base.NDArrayHandle()
    mx.base.check_call(
        mx.base._LIB.MXNDArrayFromDLPackEx(
            ctypes.c_void_p(tensor), ctypes.c_bool(False), ctypes.byref(handle)
        )
    )
    return mx.nd.NDArray(handle), int(ctypes.c_void_p.from_address(tensor).value or 0)


def _address(array: mx.nd.NDArray) -> int:
    pointer = ctypes.c_void_p()
    mx.base.check_call(mx.base._LIB.MXNDArrayGetData(array.handle, ctypes.byref(pointer)))
    return int(pointer.value or 0)
