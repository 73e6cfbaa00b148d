# SPDX-License-Identifier: Apache-2.0
"""Collectives on arrays of a GPU by way of the host's memory, for a Horovod without NCCL.

Every copy is queued with MXNet's engine, which orders it after what writes the array and before
what reads it: nothing here waits for the device.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress

import mxnet as mx

Arrays = Sequence[mx.nd.NDArray]


class HostTwins:
    """Arrays of the same shapes and types in the host's memory.

    Parameters
    ----------
    arrays
        On a device; any shapes.
    pinned
        Whether the twins of arrays on a GPU lie in pinned memory, which the bus copies at its full
        rate.  For twins that are kept: the system takes long to give such memory and to take it
        back, and waits for the GPU then.
    """

    def __init__(self, arrays: Arrays, pinned: bool = False):
        self._arrays = list(arrays)
        self.twins = [_twin(a, pinned) for a in self._arrays]

    def fetch(self) -> None:
        """Copy the arrays to their twins."""
        for array, twin in zip(self._arrays, self.twins, strict=True):
            array.copyto(twin)

    def give_back(self) -> None:
        """Copy the twins to their arrays."""
        for array, twin in zip(self._arrays, self.twins, strict=True):
            twin.copyto(array)


def is_gpu(ctx: mx.Context) -> bool:
    """Return whether arrays of this device lie on a GPU."""
    return ctx.device_type == "gpu"


def _twin(array: mx.nd.NDArray, pinned: bool) -> mx.nd.NDArray:
    """Return a new array of the same shape and type in the host's memory."""
    ctx = array.context
    if pinned and is_gpu(ctx):
        with suppress(mx.base.MXNetError):  # the system may have no more of it to give
            # Of that very GPU: MXNet allocates it in a context, and would open one on GPU 0.
            return mx.nd.empty(array.shape, ctx=mx.cpu_pinned(ctx.device_id), dtype=array.dtype)
    return mx.nd.empty(array.shape, ctx=mx.cpu(), dtype=array.dtype)


@contextmanager
def in_host_memory(arrays: Mapping[str, mx.nd.NDArray]) -> Iterator[dict[str, mx.nd.NDArray]]:
    """Give twins of the arrays under the same names; copy them back at the end."""
    copies = HostTwins(list(arrays.values()))
    copies.fetch()
    yield dict(zip(arrays, copies.twins, strict=True))
    copies.give_back()


class HostTrainer(mx.gluon.Trainer):
    """A trainer that sums the gradients over the ranks in the host's memory.

    Parameters
    ----------
    parameters
        By name; initialised on one device.
    optimizer
        Updates them there.
    size
        Number of ranks: ``update`` divides by it too.
    sum_in_place
        Replaces each array of a list, all in the host's memory, by its sum over the ranks.
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
        self._copies: HostTwins | None = None

    def _allreduce_grads(self) -> None:
        if self._copies is None:  # the gradients keep their places, so the twins are made once
            trained = [p for p in self._params if p.grad_req != "null"]
            self._copies = HostTwins([p.list_grad()[0] for p in trained], pinned=True)
        self._copies.fetch()
        self._sum_in_place(self._copies.twins)
        self._copies.give_back()
