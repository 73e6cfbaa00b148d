# SPDX-License-Identifier: Apache-2.0
"""Convert decoded images and labels to MXNet arrays.

Every batch gets a new NDArray, so nothing overwrites an array that an MXNet operator may still
read.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
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
    """Copy a dense float32 DALI tensor (CPU or GPU) to a new NDArray of the same shape.

    With ``kernels`` (the compiled functions) an array on the CPU uses pooled memory, which is
    faster.
    """
    shape = tuple(tensor.shape())
    if kernels is not None and ctx.device_type == "cpu":
        array, address = pooled_array(kernels, shape, ctx)
        ctypes.memmove(address, tensor.data_ptr(), array.size * np.dtype(np.float32).itemsize)
        return array
    array = mx.nd.empty(shape, ctx=ctx)
    # Only DALI's GPU tensors have this attribute.  The new array is on the tensor's GPU.
    if hasattr(type(tensor), "__cuda_array_interface__"):
        # Sync: the copy blocks, because MXNet does not know the CUDA stream that DALI copies on.
        tensor.copy_to_external(ctypes.c_void_p(_address(array)), non_blocking=False)
        return array
    source = ctypes.c_void_p(tensor.data_ptr())
    # Sync: the call returns when the copy is done.  ctypes releases the GIL during the call.
    mx.base.check_call(
        mx.base._LIB.MXNDArraySyncCopyFromCPU(array.handle, source, ctypes.c_size_t(array.size))
    )
    return array


def labels_to_ndarray(labels: np.ndarray, ctx: mx.Context) -> mx.nd.NDArray:
    """Copy the labels of a batch, (B,), to a new float32 NDArray on the device ``ctx``."""
    values = labels.astype(np.float32)
    if ctx.device_type != "cpu":
        return mx.nd.array(values, ctx=ctx, dtype="float32")
    # No operator uses the new array yet, so a direct write to its memory is safe.  A copy through
    # MXNet's engine would take ten times as long.
    array = mx.nd.empty(values.shape, ctx=ctx)
    ctypes.memmove(_address(array), values.ctypes.data, values.nbytes)
    return array


@dataclass(frozen=True)
class Normalizer:
    """Mirrors and normalises pixels on the CPU and writes them as CHW planes, in one pass."""

    kernels: LoaderKernels
    image_size: tuple[int, int]  # (H, W) in pixels
    ctx: mx.Context  # always a CPU
    threads: int = 1

    def __call__(self, pixels: int, rows: np.ndarray, mirror: np.ndarray) -> mx.nd.NDArray:
        """Return B normalised images as planes in a new NDArray, float32 (B, 3, H, W).

        ``pixels`` is the memory address of the pixels of N images, uint8 (N, H, W, 3).  ``rows``
        (B,) are the indices of the wanted images among these N images.  ``mirror`` is bool (B,):
        True flips the image horizontally.
        """
        size = self.image_size
        array, out = pooled_array(self.kernels, (len(rows), 3, *size), self.ctx)
        self.kernels.normalise(pixels, rows, mirror, size, MEAN, STD, out, self.threads)
        return array


def pooled_array(
    kernels: LoaderKernels, shape: tuple[int, int, int, int], ctx: mx.Context
) -> tuple[mx.nd.NDArray, int]:
    """Return a new float32 NDArray in pooled memory, and the memory address of its values.

    MXNet returns the memory to the pool when the last reference to the array is gone.  A graph that
    autograd has recorded holds a reference until its backward pass.
    """
    if ctx.device_id:  # DLPack supports only mx.cpu(0), so other CPU contexts use no pool
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
