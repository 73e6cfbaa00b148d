# SPDX-License-Identifier: Apache-2.0
"""Exchange of GPU arrays between ranks through host memory, for Horovod without NCCL.

MXNet's engine runs the copies asynchronously and in the right order with the other operations on
the same arrays, so nothing in this module waits for the device.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress

import mxnet as mx

Arrays = Sequence[mx.nd.NDArray]


class HostCopies:
    """Copies of device arrays in host memory.

    Parameters
    ----------
    arrays
        Arrays of any shapes, all on one device.
    pinned
        Whether the copies of GPU arrays are in pinned memory, which transfers at full bus
        bandwidth.  Use pinned memory only for copies that are reused, because allocating and
        freeing pinned memory is slow and synchronises with the GPU.
    """

    def __init__(self, arrays: Arrays, pinned: bool = False):
        self._arrays = list(arrays)
        self.copies = [_empty_copy(a, pinned) for a in self._arrays]

    def copy_from_device(self) -> None:
        """Copy the device arrays into the host copies."""
        for array, copy in zip(self._arrays, self.copies, strict=True):
            array.copyto(copy)

    def copy_to_device(self) -> None:
        """Copy the host copies into the device arrays."""
        for array, copy in zip(self._arrays, self.copies, strict=True):
            copy.copyto(array)


def is_gpu(ctx: mx.Context) -> bool:
    """Return whether the context is a GPU."""
    return ctx.device_type == "gpu"


def _empty_copy(array: mx.nd.NDArray, pinned: bool) -> mx.nd.NDArray:
    """Allocate an array in host memory with the shape and type of ``array``."""
    ctx = array.context
    if pinned and is_gpu(ctx):
        with suppress(mx.base.MXNetError):  # Pinned memory may be exhausted.
            # cpu_pinned(0) would create a CUDA context on GPU 0, so use the index of this GPU.
            return mx.nd.empty(array.shape, ctx=mx.cpu_pinned(ctx.device_id), dtype=array.dtype)
    return mx.nd.empty(array.shape, ctx=mx.cpu(), dtype=array.dtype)


@contextmanager
def in_host_memory(arrays: Mapping[str, mx.nd.NDArray]) -> Iterator[dict[str, mx.nd.NDArray]]:
    """Yield host copies of the arrays, by name; copy them back to the device at the end."""
    copies = HostCopies(list(arrays.values()))
    copies.copy_from_device()
    yield dict(zip(arrays, copies.copies, strict=True))
    copies.copy_to_device()


class HostTrainer(mx.gluon.Trainer):
    """Trainer that sums the gradients over the ranks in host memory.

    Parameters
    ----------
    parameters
        Parameters by name, initialised on one device.
    optimizer
        Optimizer, which runs on that device.
    size
        Number of ranks; ``update`` divides the gradients by this number and by the batch size.
    sum_in_place
        Function that replaces each array of a list in host memory by its sum over the ranks.
    """

    def __init__(
        self,
        parameters: Mapping[str, mx.gluon.Parameter],
        optimizer: mx.optimizer.Optimizer,
        size: int,
        sum_in_place: Callable[[Arrays], None],
    ):
        super().__init__(dict(parameters), optimizer, kvstore=None)
        self._scale /= size
        self._sum_in_place = sum_in_place
        self._gradients: HostCopies | None = None

    def _allreduce_grads(self) -> None:
        if self._gradients is None:  # allocate once: MXNet keeps the gradient arrays
            trained = [p for p in self._params if p.grad_req != "null"]
            self._gradients = HostCopies([p.list_grad()[0] for p in trained], pinned=True)
        self._gradients.copy_from_device()
        self._sum_in_place(self._gradients.copies)
        self._gradients.copy_to_device()
