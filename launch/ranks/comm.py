# SPDX-License-Identifier: Apache-2.0
"""Communication between ranks; only this module imports horovod.mxnet.

`connect` returns a `HorovodComm` if horovodrun or another launcher started this process as one of
several ranks, otherwise a `Comm` for one process.  Both have the same methods, so callers need no
case distinction.  Arrays on GPUs are exchanged through NCCL if Horovod was built with it, otherwise
through host memory (`through_host`).
"""

from __future__ import annotations

import ctypes
import itertools
import json
import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, field
from typing import Any

import mxnet as mx
import numpy as np

from launch.ranks.host_allreduce import Arrays, HostTrainer, in_host_memory
from launch.ranks.host_name import NoConnection, require_host_address
from launch.ranks.roll_call import make_roll_call

__all__ = ["Comm", "HorovodComm", "NoConnection", "NoLink", "connect", "through_host"]

NamedArrays = Mapping[str, mx.nd.NDArray]
Statistic = Callable[[mx.nd.NDArray], mx.nd.NDArray]


@dataclass(frozen=True)
class Comm:
    """Communication of a run with one rank, in which no collective exchanges data."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1

    def sum(self, values: np.ndarray) -> np.ndarray:
        """Return the sum of the arrays of all ranks, element by element, as float64.

        All arrays must have the same shape.  The call waits for all ranks.
        """
        return np.asarray(values, dtype=np.float64)

    def gather(self, rows: np.ndarray) -> np.ndarray:
        """Concatenate the arrays of all ranks along the first axis, rank 0 first.

        The number of rows may differ between ranks; the other dimensions must be equal.
        """
        return rows

    def gather_json(self, value: Any) -> list[Any]:
        """Return the values of all ranks in rank order; all values must be serializable as JSON."""
        return [value]

    def broadcast(self, parameters: Mapping[str, Any]) -> None:
        """Overwrite the parameters of every rank with those of rank 0."""

    def average(self, arrays: Mapping[str, mx.nd.NDArray]) -> None:
        """Replace each array by its mean over the ranks, in place."""

    def reduce(self, rows: mx.nd.NDArray, by: Statistic) -> mx.nd.NDArray:
        """Apply ``by`` to the concatenated rows of all ranks, rank 0 first, without blocking.

        Parameters
        ----------
        rows
            Floating-point array of shape (n, ...).  All ranks pass arrays of equal shape.
        by
            Function of the concatenated rows, an array of shape (n * number of ranks, ...).
        """
        return by(rows)

    def gather_rows(self, rows: mx.nd.NDArray, key: str) -> mx.nd.NDArray:
        """Concatenate the rows of all ranks, rank 0 first, without blocking.

        Parameters
        ----------
        rows
            Array of shape (n, ...).  All ranks pass arrays of equal shape.
        key
            Name of the exchange, equal on all ranks.  Two exchanges of a step need different names.
        """
        return rows

    def sum_rows(self, rows: mx.nd.NDArray, key: str) -> mx.nd.NDArray:
        """Return the sum of the arrays of all ranks without blocking; ``rows`` may be overwritten.

        Parameters
        ----------
        rows
            Array of any shape.  All ranks pass arrays of equal shape.
        key
            Name of the exchange, as for `gather_rows`.
        """
        return rows

    def trainer(self, parameters: Any, optimizer: mx.optimizer.Optimizer) -> mx.gluon.Trainer:
        """Return a trainer that averages the gradients over the ranks before each update."""
        return mx.gluon.Trainer(parameters, optimizer, kvstore=None)

    def require_link(self, ctx: mx.Context) -> None:
        """Raise NoLink if this device is a GPU whose NVIDIA driver Horovod cannot load."""

    def notice(self, ctx: mx.Context) -> str:
        """Return a notice if ranks exchange arrays on this device through host memory; else ""."""
        return ""

    def has_lost(self, error: Exception) -> bool:
        """Return whether an exception reports a lost connection to another rank."""
        return False

    def name_lost_ranks(self, write: Callable[[str], None]) -> None:
        """After a lost connection, pass ``write`` a message that names the missing ranks.

        Only one of the remaining ranks calls ``write``; the others wait until it has returned.
        """

    def close(self) -> None:
        """Disconnect from the other ranks."""


@dataclass(frozen=True)
class HorovodComm(Comm):
    """Communication of this rank with the other ranks over Horovod."""

    _exchanges: Mapping[str, Iterator[int]] = field(
        default_factory=lambda: defaultdict(itertools.count), compare=False
    )

    def sum(self, values: np.ndarray) -> np.ndarray:
        # Horovod: allgather and a float64 sum on the host keep counts and flags exact, in contrast
        # to allreduce.
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
        # Sync: allgather waits for every rank.  allgather cannot send an empty array, so an empty
        # array is sent as one byte.
        padded = flat if flat.size else np.zeros(1, dtype=np.uint8)
        gathered = hvd.allgather(mx.nd.array(padded, dtype="uint8"), name="gather.bytes").asnumpy()
        row_bytes = int(np.prod(rows.shape[1:], dtype=np.int64)) * rows.itemsize
        parts, start = [], 0
        for count in counts.tolist():
            size = int(count) * row_bytes
            parts.append(gathered[start : start + size])
            start += max(size, 1)
        joined = np.concatenate(parts)
        return joined.view(rows.dtype).reshape(-1, *rows.shape[1:])

    def gather_json(self, value: Any) -> list[Any]:
        text = json.dumps(value).encode()
        lengths = self.gather(np.array([len(text)], dtype=np.int64))
        gathered = self.gather(np.frombuffer(text, dtype=np.uint8)).tobytes()
        ends = np.cumsum(lengths)
        return [json.loads(gathered[end - n : end]) for end, n in zip(ends, lengths, strict=True)]

    def broadcast(self, parameters: Mapping[str, Any]) -> None:
        import horovod.mxnet as hvd

        # Horovod: no parameter has deferred initialisation, so this call broadcasts all parameters.
        arrays = {
            n: p.data() if isinstance(p, mx.gluon.Parameter) else p for n, p in parameters.items()
        }
        with _exchangeable(arrays) as exchanged:
            hvd.broadcast_parameters(dict(exchanged), root_rank=0)

    def average(self, arrays: NamedArrays) -> None:
        import horovod.mxnet as hvd

        with _exchangeable(arrays) as exchanged:
            for name in sorted(exchanged):
                hvd.allreduce_(exchanged[name], average=True, name=f"average.{name}")

    def reduce(self, rows: mx.nd.NDArray, by: Statistic) -> mx.nd.NDArray:
        return by(self.gather_rows(rows, "reduce"))

    def gather_rows(self, rows: mx.nd.NDArray, key: str) -> mx.nd.NDArray:
        # Horovod: allgather would block to exchange the shapes, which are equal on all ranks here.
        # Each rank therefore fills its part of a zero array, and allreduce sums the arrays.
        all_rows = mx.nd.zeros((self.size, *rows.shape), rows.context, rows.dtype)
        all_rows[self.rank] = rows
        return self.sum_rows(all_rows, key).reshape((-1, *rows.shape[1:]))

    def sum_rows(self, rows: mx.nd.NDArray, key: str) -> mx.nd.NDArray:
        import horovod.mxnet as hvd

        # Operations in flight must have different names.  Each step has one operation per key, and
        # the host may submit two more steps before the device has finished the current step.  So
        # at most three operations per key are in flight, and eight names in turn are enough.
        name = f"{key}.{next(self._exchanges[key]) % 8}"
        with _exchangeable({name: rows}) as exchanged:
            hvd.allreduce_(exchanged[name], average=False, name=name)
        return rows

    def trainer(self, parameters: Any, optimizer: mx.optimizer.Optimizer) -> mx.gluon.Trainer:
        import horovod.mxnet as hvd

        if through_host(next(iter(parameters.values())).list_ctx()[0]):

            def sum_in_place(arrays: Arrays) -> None:
                hvd.grouped_allreduce_(arrays, average=False, name="gradients")

            return HostTrainer(parameters, optimizer, self.size, sum_in_place)
        trainer = hvd.DistributedTrainer(parameters, optimizer)
        if not trainer._average_in_framework:
            # Horovod: with NCCL 2.10 and newer, DistributedTrainer would let NCCL average the
            # gradients.  Gradient clipping (training/step.py) requires sums, which ``update``
            # divides by the number of ranks.
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
            "the ranks exchange gradients through host memory, because Horovod was built without "
            "NCCL; docs/gpu.md explains how to build it with NCCL"
        )

    def has_lost(self, error: Exception) -> bool:
        # MXNet passes on the text of Horovod's or Gloo's error, or only its end, but not its type.
        text = str(error).lower()
        known = ("horovod", "gloo", "reset by peer", "closed by peer")
        return isinstance(error, RuntimeError) and any(words in text for words in known)

    def name_lost_ranks(self, write: Callable[[str], None]) -> None:
        roll_call = make_roll_call(self.rank, self.size)
        if roll_call is None:
            write("launch: the connection to another rank is lost; see the messages of that rank")
        else:
            states, is_speaker = roll_call.find_missing()
            message = roll_call.error_message(states) if is_speaker else ""
            roll_call.speak(is_speaker, lambda: write(message))
        # MXNet would raise the same error again when the interpreter exits.
        with suppress(mx.base.MXNetError):
            mx.nd.waitall()

    def close(self) -> None:
        import horovod.mxnet as hvd

        hvd.shutdown()


def nccl_release() -> str:
    """Return the NCCL version that Horovod was built with, such as "2.21.5"; "" without NCCL."""
    import horovod.mxnet as hvd

    code = int(hvd.nccl_built())  # since NCCL 2.9: major * 10000 + minor * 100 + patch
    return f"{code // 10000}.{code // 100 % 100}.{code % 100}" if code else ""


class NoLink(ValueError):
    """Error for a missing ``libcuda.so``, the name under which Horovod loads the NVIDIA driver."""


def require_driver_link() -> None:
    """Raise NoLink if ``libcuda.so`` cannot be loaded.

    With NCCL, Horovod 0.28 loads the driver under this name (horovod/mxnet/cuda_util.cc) instead of
    libcuda.so.1.  If the file is missing, Horovod's thread ends at the first collective, and the
    ranks only report that Horovod has been shut down.
    """
    try:
        ctypes.CDLL(DRIVER_LINK)
    except OSError as error:
        raise NoLink(
            f"launch: Horovod with NCCL loads the NVIDIA driver as {DRIVER_LINK}, got {error}; "
            "create a symbolic link of that name in the folder of libcuda.so.1 (ldconfig -p | grep "
            "libcuda.so.1) and run ldconfig"
        ) from None


def through_host(ctx: mx.Context) -> bool:
    """Return whether the ranks exchange arrays on this device through host memory."""
    return ctx.device_type == "gpu" and not nccl_release()


def _exchangeable(arrays: NamedArrays) -> AbstractContextManager[NamedArrays]:
    """Return a context manager that yields arrays which Horovod can exchange.

    These are the arrays themselves, or copies in host memory that are copied back at the end.
    """
    ctx = next(iter(arrays.values())).context if arrays else mx.cpu()
    return in_host_memory(arrays) if through_host(ctx) else nullcontext(arrays)


DRIVER_LINK = "libcuda.so"

CYCLE_MS = "5"
"""Cycle time of Horovod with Gloo in milliseconds, unless HOROVOD_CYCLE_TIME is set."""


def connect() -> Comm:
    """Connect to the other ranks, if any; return the object that communicates with them.

    Raises
    ------
    NoConnection
        If the name of this host has no address, or no address that other hosts can reach.  Gloo
        would then abort the process.
    """
    if int(os.environ.get("HOROVOD_SIZE", "1")) == 1:
        return Comm()
    require_host_address()
    hvd = _load_horovod()
    if not nccl_release():
        # Horovod: in each cycle (1 ms by default) the ranks negotiate the ready tensors in a busy
        # loop, which takes a fifth of a step on cores that also compute.  Longer cycles take less.
        os.environ.setdefault("HOROVOD_CYCLE_TIME", CYCLE_MS)
    hvd.init()
    if roll_call := make_roll_call(hvd.rank(), hvd.size()):
        roll_call.join()
    return HorovodComm(hvd.rank(), hvd.size(), hvd.local_rank(), hvd.local_size())


def _load_horovod() -> Any:
    """Import Horovod for MXNet with RTLD_LOCAL in place of RTLD_GLOBAL.

    Horovod uses RTLD_GLOBAL for MPI plugins; Gloo does not need it.  With RTLD_GLOBAL, libraries
    that are loaded later would bind to libmxnet's copies of libjpeg, zlib and the C++ standard
    library, which have another ABI.
    """
    original = ctypes.RTLD_GLOBAL
    ctypes.RTLD_GLOBAL = ctypes.RTLD_LOCAL
    try:
        import horovod.mxnet as hvd
    finally:
        ctypes.RTLD_GLOBAL = original
    return hvd
