# SPDX-License-Identifier: Apache-2.0
"""Watch the worker processes of a Gluon DataLoader, so that no wait for a batch is endless.

MXNet 1.9.1 uses a multiprocessing.Pool.  If a worker is killed, the pool starts another one, but
the batch of the killed worker never arrives, and the lock of a queue may stay locked forever.
"""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Iterator
from multiprocessing.connection import wait
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess

    from mxnet import gluon

SHARED_MEMORY = Path("/dev/shm")
"""File system in which the workers store their batches."""
BATCH_TIMEOUT_S = 120.0
"""Maximum time to wait for one batch."""
LAST_BATCH_TIMEOUT_S = 30.0
"""Maximum time for which ``Watch.terminate`` waits for unfinished batches."""
EXIT_TIMEOUT_S = 1.0
"""Maximum time to wait for the exit status of a worker that no longer answers."""
POLL_S = 0.1
MIB = 2**20


class WorkerError(ValueError):
    """Error for a worker process that was killed, or that delivers no batch."""


def check_shared_memory(workers: int, batch_bytes: int) -> None:
    """Check that the batches which the workers prepare in advance fit into shared memory.

    Raises
    ------
    WorkerError
        If fewer than two batches per worker fit.
    """
    if not (workers and SHARED_MEMORY.is_dir()):
        return
    needed, free = 2 * workers * batch_bytes, shutil.disk_usage(SHARED_MEMORY).free
    if free < needed:
        raise WorkerError(
            f"data.workers: {workers} worker processes need {-(-needed // MIB)} MiB in "
            f"{SHARED_MEMORY} for their batches, got {free // MIB} MiB free; {_ADVICE}"
        )


def watch_workers(loader: gluon.data.DataLoader, batch_bytes: int) -> Watch:
    """Make a Gluon DataLoader raise WorkerError if a worker process ends or delivers no batch.

    When a watched DataLoader is deleted, it waits for the workers that are sending a batch.  MXNet
    would kill these workers.  But a worker that is killed while it sends a batch never releases the
    lock of the queue, and the pool waits for that lock forever.

    Parameters
    ----------
    loader
        DataLoader with worker processes, before its first batch.
    batch_bytes
        Size of a batch in shared memory.
    """
    return Watch(loader._worker_pool, batch_bytes)


class _Placeholder:
    """Stand-in for a worker that a pool must not restart."""

    exitcode = None


class Watch:
    """Replacement for ``apply_async`` and ``terminate`` of the pool of a Gluon DataLoader."""

    def __init__(self, pool: Any, batch_bytes: int):
        self._pool, self._batch_bytes = pool, batch_bytes
        # A thread of the pool restarts the workers in ``pool._pool`` that have ended.  A restart
        # would fork this process while threads hold locks of MXNet, and the new worker would wait
        # for these locks forever.  So placeholders, which never end, replace the workers in this
        # list.  The thread may read the list at any time, so its length must not change.
        self._workers: list[BaseProcess] = pool._pool[:]
        pool._pool[:] = [_Placeholder()] * len(self._workers)
        self._submit = pool.apply_async
        pool.apply_async, pool.terminate = self.apply_async, self.terminate

    def apply_async(self, *arguments: Any) -> Result:
        """Submit a task; return at once a `Result`, whose method ``get`` waits for the value."""
        return Result(self._submit(*arguments), self)

    def batches(self, iterator: Iterator[Any]) -> Iterator[Any]:
        """Yield the batches of the DataLoader's iterator.

        Raises
        ------
        WorkerError
            If a worker has ended.
        """
        while True:
            try:
                batch = next(iterator)
            except StopIteration:
                return
            except (OSError, EOFError):
                # A worker sends only the name of a batch's shared memory.  This process then asks
                # the worker for the memory.  A worker that was killed meanwhile does not answer.
                wait([worker.sentinel for worker in self._workers], EXIT_TIMEOUT_S)
                self.check()
                raise
            yield batch

    def check(self) -> None:
        """Raise WorkerError if a worker process has ended."""
        codes = [worker.exitcode for worker in self._workers if worker.exitcode is not None]
        if codes:
            # Report another exit code rather than SIGKILL: a worker may be killed because another
            # worker has ended, and the exit code of that worker says more about the cause.
            codes.sort(key=lambda code: code == -signal.SIGKILL)
            raise WorkerError(self._describe(codes[0]))

    def terminate(self) -> None:
        """End the worker processes; wait for those that are sending a batch."""
        pool = self._pool
        deadline = time.monotonic() + LAST_BATCH_TIMEOUT_S
        for result in list(pool._cache.values()):
            while not result.ready() and self._are_alive() and time.monotonic() < deadline:
                result.wait(POLL_S)
        if self._are_alive() and all(result.ready() for result in list(pool._cache.values())):
            pool._pool[:] = self._workers
            self._workers = []
            pool.close()
            pool.join()
            type(pool).terminate(pool)
            return
        # A killed worker may have left a queue locked, so the pool's own methods could block.
        pool._terminate.cancel()
        pool._state = pool._worker_handler._state = "TERMINATE"
        for worker in self._workers:
            if worker.exitcode is None and worker.pid:
                os.kill(worker.pid, signal.SIGKILL)
            worker.join()

    def _are_alive(self) -> bool:
        return all(worker.exitcode is None for worker in self._workers)

    def _describe(self, code: int) -> str:
        if code >= 0:
            return f"data.workers: a worker process has ended, got exit code {code}; {_ADVICE}"
        if -code == signal.SIGBUS:
            free = shutil.disk_usage(SHARED_MEMORY).free if SHARED_MEMORY.is_dir() else 0
            return (
                f"data.workers: a worker process had no memory for a batch of "
                f"{-(-self._batch_bytes // MIB)} MiB, got signal {-code} (SIGBUS) and "
                f"{free // MIB} MiB free in {SHARED_MEMORY}; {_ADVICE}"
            )
        names = {each.value: f" ({each.name})" for each in signal.Signals}
        return (
            f"data.workers: a worker process was killed, got signal {-code}{names.get(-code, '')}; "
            "if memory ran out (see dmesg), use fewer data.workers or a smaller data.batch_size"
        )


class Result:
    """Result of a task of a pool, with a bounded wait."""

    def __init__(self, result: Any, watch: Watch):
        self._result, self._watch = result, watch

    def get(self, timeout: float | None = None) -> Any:
        """Return the value of the task.

        Raises
        ------
        WorkerError
            If a worker has ended or if the value does not arrive within BATCH_TIMEOUT_S.
        """
        deadline = time.monotonic() + BATCH_TIMEOUT_S
        while not self._result.ready():
            self._watch.check()
            if time.monotonic() > deadline:
                raise WorkerError(
                    f"data.workers: no batch arrived from the worker processes for "
                    f"{BATCH_TIMEOUT_S:g} s; check the disk of data.records"
                )
            self._result.wait(POLL_S)
        return self._result.get()


_ADVICE = (
    "enlarge /dev/shm (docker run --shm-size=8g), use fewer data.workers or a smaller "
    "data.batch_size, or use data.workers=0"
)
