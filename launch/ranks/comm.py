# SPDX-License-Identifier: Apache-2.0
"""Ranks and what they tell each other: the only importer of horovod.

``connect()`` joins the other ranks when the process was started by horovodrun (or any launcher
that sets HOROVOD_RANK), and is a stand-in for one process otherwise, so that the rest of the
project never asks which of the two it is.  Nor does it ask how arrays of a GPU travel: by NCCL if
Horovod was built with it, else through the host's memory (``through_host``).
"""

from __future__ import annotations

import ctypes
import ipaddress
import itertools
import json
import os
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import mxnet as mx
import numpy as np

from launch.ranks.host_allreduce import Arrays, HostTrainer, in_host_memory

Named = Mapping[str, mx.nd.NDArray]
Statistic = Callable[[mx.nd.NDArray], mx.nd.NDArray]


@dataclass(frozen=True)
class Comm:
    """One process that trains alone."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1

    def sum(self, values: np.ndarray) -> np.ndarray:
        """Return the sum over the ranks, float64, same shape.  Waits for all ranks."""
        return np.asarray(values, dtype=np.float64)

    def gather(self, rows: np.ndarray) -> np.ndarray:
        """Return the rows of all ranks, rank 0 first; shapes (n, ...) may differ in n."""
        return rows

    def gather_json(self, value: Any) -> list[Any]:
        """Return every rank's value, by rank; anything that JSON can write."""
        return [value]

    def broadcast(self, parameters: Mapping[str, Any]) -> None:
        """Give every rank the parameters of rank 0, in place."""

    def average(self, arrays: Mapping[str, mx.nd.NDArray]) -> None:
        """Replace each array by its mean over the ranks, in place."""

    def reduce(self, rows: mx.nd.NDArray, by: Statistic) -> mx.nd.NDArray:
        """Return ``by`` of the rows of all ranks, rank 0 first; does not wait for them.

        Parameters
        ----------
        rows
            (n, ...) of real numbers, with the same n on every rank.
        """
        return by(rows)

    def trainer(self, parameters: Any, optimizer: mx.optimizer.Optimizer) -> mx.gluon.Trainer:
        """Return a trainer whose ``step`` averages the gradients over the ranks first."""
        return mx.gluon.Trainer(parameters, optimizer, kvstore=None)

    def require_link(self, ctx: mx.Context) -> None:
        """Raise NoLink if arrays of this device cannot travel for want of a link to the driver."""

    def notice(self, ctx: mx.Context) -> str:
        """Return what the user should know of the way arrays of this device travel, or ""."""
        return ""

    def close(self) -> None:
        """Leave the other ranks."""


@dataclass(frozen=True)
class HorovodComm(Comm):
    """One rank of several, over Horovod."""

    _reductions: Iterator[int] = field(default_factory=itertools.count, compare=False)

    def sum(self, values: np.ndarray) -> np.ndarray:
        # Horovod: as bytes through allgather, since MXNet arrays carry float64 but step counts
        # and flags must come back exactly.
        values = np.ascontiguousarray(values, dtype=np.float64)
        return self.gather(values[None]).sum(axis=0)

    def gather(self, rows: np.ndarray) -> np.ndarray:
        import horovod.mxnet as hvd

        rows = np.ascontiguousarray(rows)
        flat = rows.view(np.uint8).reshape(-1)
        counts = hvd.allgather(
            mx.nd.array([rows.shape[0]], dtype="int64"), name="gather.rows"
        ).asnumpy()
        if not counts.any():
            return rows
        # Sync: allgather returns only when every rank has sent.  An empty share cannot be sent.
        padded = flat if flat.size else np.zeros(1, dtype=np.uint8)
        sent = hvd.allgather(mx.nd.array(padded, dtype="uint8"), name="gather.bytes").asnumpy()
        row_bytes = int(np.prod(rows.shape[1:], dtype=np.int64)) * rows.itemsize
        parts, start = [], 0
        for count in counts.tolist():
            size = int(count) * row_bytes
            parts.append(sent[start : start + size])
            start += max(size, 1)
        whole = np.concatenate(parts)
        return whole.view(rows.dtype).reshape(-1, *rows.shape[1:])

    def gather_json(self, value: Any) -> list[Any]:
        text = json.dumps(value).encode()
        lengths = self.gather(np.array([len(text)], dtype=np.int64))
        sent = self.gather(np.frombuffer(text, dtype=np.uint8)).tobytes()
        ends = np.cumsum(lengths)
        return [json.loads(sent[end - n : end]) for end, n in zip(ends, lengths, strict=True)]

    def broadcast(self, parameters: Mapping[str, Any]) -> None:
        import horovod.mxnet as hvd

        # Horovod: nothing is initialised lazily here, so every parameter really travels.
        arrays = {
            n: p.data() if isinstance(p, mx.gluon.Parameter) else p for n, p in parameters.items()
        }
        with _within_reach(arrays) as reached:
            hvd.broadcast_parameters(dict(reached), root_rank=0)

    def average(self, arrays: Named) -> None:
        import horovod.mxnet as hvd

        with _within_reach(arrays) as reached:
            for name in sorted(reached):
                hvd.allreduce_(reached[name], average=True, name=f"average.{name}")

    def reduce(self, rows: mx.nd.NDArray, by: Statistic) -> mx.nd.NDArray:
        import horovod.mxnet as hvd

        # Horovod: not allgather, which waits for every rank; here all shapes are known.
        every = mx.nd.zeros((self.size, *rows.shape), rows.context, rows.dtype)
        every[self.rank] = rows
        # A name must not be under way twice, and the host is up to two steps ahead.
        name = f"reduce.{next(self._reductions) % 8}"
        with _within_reach({name: every}) as reached:
            hvd.allreduce_(reached[name], average=False, name=name)
        return by(every.reshape((-1, *rows.shape[1:])))

    def trainer(self, parameters: Any, optimizer: mx.optimizer.Optimizer) -> mx.gluon.Trainer:
        import horovod.mxnet as hvd

        if through_host(next(iter(parameters.values())).list_ctx()[0]):

            def sum_in_place(arrays: Arrays) -> None:
                hvd.grouped_allreduce_(arrays, average=False, name="gradients")

            return HostTrainer(parameters, optimizer, self.size, sum_in_place)
        trainer = hvd.DistributedTrainer(parameters, optimizer)
        if not trainer._average_in_framework:
            # Horovod: with NCCL from 2.10 on it would average while it sums.  Clipping counts on
            # sums that ``update`` divides (training/step.py), as they come in every other case.
            trainer._average_in_framework, trainer._postscale_factor = True, 1.0
            trainer._scale /= self.size
        return trainer

    def require_link(self, ctx: mx.Context) -> None:
        if ctx.device_type == "gpu" and nccl_release():
            require_driver_link()

    def notice(self, ctx: mx.Context) -> str:
        if not through_host(ctx):
            return ""
        return (
            "gradients travel through the host's memory, since Horovod was built without NCCL; "
            "docs/gpu.md says how to build it with NCCL"
        )

    def close(self) -> None:
        import horovod.mxnet as hvd

        hvd.shutdown()


def nccl_release() -> str:
    """Return the release of NCCL that Horovod was built with, such as "2.21.5", "" without one."""
    import horovod.mxnet as hvd

    code = int(hvd.nccl_built())  # 2.9 and later: major * 10000 + minor * 100 + patch
    return f"{code // 10000}.{code // 100 % 100}.{code % 100}" if code else ""


class NoLink(ValueError):
    """The driver lacks the name that Horovod asks for."""


def require_driver_link() -> None:
    """Raise NoLink if the driver has no library ``libcuda.so``.

    With NCCL Horovod 0.28 loads the driver by that name (horovod/mxnet/cuda_util.cc), not as
    libcuda.so.1.  Where it is missing Horovod's thread ends at the first exchange of arrays, and
    all ranks are told no more than that Horovod has been shut down.
    """
    try:
        ctypes.CDLL(DRIVER_LINK)
    except OSError as error:
        raise NoLink(
            f"launch: Horovod with NCCL loads the NVIDIA driver as {DRIVER_LINK}, got {error}; "
            "make a link of that name to libcuda.so.1 beside it (ldconfig -p | grep libcuda.so.1 "
            "says where) and call ldconfig"
        ) from None


def through_host(ctx: mx.Context) -> bool:
    """Return whether arrays of this device reach the other ranks through the host's memory."""
    return ctx.device_type == "gpu" and not nccl_release()


def _within_reach(arrays: Named) -> AbstractContextManager[Named]:
    """Give the arrays, all of one device, where Horovod can take them and put results back."""
    ctx = next(iter(arrays.values())).context if arrays else mx.cpu()
    return in_host_memory(arrays) if through_host(ctx) else nullcontext(arrays)


DRIVER_LINK = "libcuda.so"

CYCLE_MS = "5"
"""Milliseconds of Horovod's cycle over Gloo, unless HOROVOD_CYCLE_TIME says otherwise."""


class NoConnection(ValueError):
    """Ranks that cannot be joined: the one fault that they cannot agree on."""


def connect() -> Comm:
    """Join the ranks that a launcher started, or stand alone.

    Raises
    ------
    NoConnection
        If the name of this host leads nowhere, or nowhere that other hosts reach: Gloo would end
        in a crash.
    """
    if int(os.environ.get("HOROVOD_SIZE", "1")) == 1:
        return Comm()
    _check_name(socket.gethostname(), _hosts_are_several())
    hvd = _load_horovod()
    if not nccl_release():
        # Horovod: in every cycle (of 1 ms by default) the ranks exchange what is ready, and wait
        # for that without sleeping: on cores that compute it takes a fifth of the step.
        os.environ.setdefault("HOROVOD_CYCLE_TIME", CYCLE_MS)
    hvd.init()
    return HorovodComm(hvd.rank(), hvd.size(), hvd.local_rank(), hvd.local_size())


def _load_horovod() -> Any:
    """Import Horovod for MXNet without showing its libraries to the whole process.

    Horovod asks for RTLD_GLOBAL, which plugins of MPI need and Gloo does not.  With it libmxnet is
    seen by every library that is loaded later, and its copies of libjpeg, zlib and of templates
    of the standard library, of another ABI, are taken in the place of their own.
    """
    asked = ctypes.RTLD_GLOBAL
    ctypes.RTLD_GLOBAL = ctypes.RTLD_LOCAL
    try:
        import horovod.mxnet as hvd
    finally:
        ctypes.RTLD_GLOBAL = asked
    return hvd


def _hosts_are_several() -> bool:
    """Whether ranks of other hosts have to reach this one."""
    size = os.environ.get("HOROVOD_SIZE", "1")
    local_size = os.environ.get("HOROVOD_LOCAL_SIZE", size)
    # A launcher that all ranks find at a loopback address is on the same host as they are.
    server = os.environ.get("HOROVOD_GLOO_RENDEZVOUS_ADDR", "")
    return int(size) > int(local_size) and not server.startswith("127.")


def _check_name(name: str, several_hosts: bool) -> None:
    # Horovod: 0.28 gives the interface to its first Gloo device alone; those of its process sets,
    # also of the one with all ranks, bind to the address that the name of the host stands for.
    try:
        found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except OSError as error:
        address = "ADDRESS (the one that the other hosts reach)" if several_hosts else "127.0.1.1"
        raise NoConnection(
            f"launch: the name of this host cannot be looked up, got {name!r} ({error.strerror}); "
            f"add the line '{address} {name}' to /etc/hosts"
        ) from None
    address = str(found[0][4][0])
    if several_hosts and ipaddress.ip_address(address.partition("%")[0]).is_loopback:
        raise NoConnection(
            f"launch: the name of this host must stand for an address that the other hosts reach, "
            f"got {address} for {name!r}; put that address in front of {name} in its /etc/hosts"
        )
