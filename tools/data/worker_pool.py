# SPDX-License-Identifier: Apache-2.0
"""Process numbered pieces of work in several processes, and return the results in order."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
from collections import deque
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any

import numpy as np

from launch.ranks.lifeline import end_with_parent

_PIECES_PER_WORKER = 2  # number of pieces that a worker has at a time, so that it never waits


class WorkerError(ValueError):
    """Error for a process that ended early."""


class WorkerPool:
    """Forked processes that call one function with the numbers of pieces.

    Piece number k goes to process k modulo ``processes``.  The processes end when the pool is
    closed, and also when this process is killed.

    Parameters
    ----------
    processes
        Number of processes, at least 1.
    make_worker
        Function that each process calls once after the fork.  It returns the function that turns
        the number of a piece into a result.
    """

    def __init__(self, processes: int, make_worker: Callable[[], Callable[[int], Any]]):
        context = multiprocessing.get_context("fork")
        parent = os.getpid()
        self._connections: list[Connection] = []
        self._processes = []
        for _ in range(processes):
            ours, theirs = context.Pipe()
            process = context.Process(
                target=_serve, args=(theirs, [*self._connections, ours], make_worker, parent)
            )
            process.daemon = True
            process.start()
            theirs.close()
            self._connections.append(ours)
            self._processes.append(process)

    def __enter__(self) -> WorkerPool:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for connection in self._connections:
            connection.close()
        for process in self._processes:
            if kind is not None:
                process.kill()
            process.join()

    def map(self, pieces: range) -> Iterator[Any]:
        """Yield the results of the pieces in order.

        Raises
        ------
        WorkerError
            If a process ends early, for example because the system has too little memory.
        """
        count = len(self._connections)
        waiting: deque[int] = deque()
        upcoming = iter(pieces)
        for _ in range(_PIECES_PER_WORKER * count):
            self._send_next(upcoming, waiting)
        while waiting:
            number = waiting.popleft()
            result = self._receive(number)
            self._send_next(upcoming, waiting)
            if isinstance(result, Exception):
                raise result
            yield result

    def _send_next(self, upcoming: Iterator[int], waiting: deque[int]) -> None:
        number = next(upcoming, None)
        if number is not None:
            waiting.append(number)
            try:
                self._connections[number % len(self._connections)].send(number)
            except OSError:
                raise self._ended(number) from None

    def _receive(self, number: int) -> Any:
        try:
            return receive_result(self._connections[number % len(self._connections)])
        except (EOFError, OSError):
            raise self._ended(number) from None

    def _ended(self, number: int) -> WorkerError:
        process = self._processes[number % len(self._processes)]
        process.join(1)
        return WorkerError(
            f"--processes: a worker process ended early, got exit code {process.exitcode}; free "
            "memory or lower --processes, and run the command again"
        )


def _serve(
    connection: Connection,
    others: list[Connection],
    make_worker: Callable[[], Callable[[int], Any]],
    parent: int,
) -> None:
    """Answer the numbers from a connection until the other end is closed."""
    end_with_parent(signal.SIGKILL, parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends this process after Ctrl-C
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    for other in others:
        other.close()
    work = make_worker()
    while True:
        try:
            number = connection.recv()
        except EOFError:
            return
        try:
            result = work(number)
        except Exception as error:
            result = error
        try:
            send_result(connection, result)
        except BrokenPipeError:
            return


def send_result(connection: Connection, result: Any) -> None:
    """Send an object; the elements of NumPy arrays are not copied into the pickle."""
    buffers: list[pickle.PickleBuffer] = []
    data = pickle.dumps(result, protocol=5, buffer_callback=buffers.append)
    views = [buffer.raw() for buffer in buffers]
    connection.send((data, [view.nbytes for view in views]))
    for view in views:
        while view:
            view = view[os.write(connection.fileno(), view) :]


def receive_result(connection: Connection) -> Any:
    """Receive an object that ``send_result`` sends.

    Raises
    ------
    EOFError
        If the other end is closed.
    """
    data, sizes = connection.recv()
    arrays = [np.empty(size, np.uint8) for size in sizes]
    for array in arrays:
        view = array.data
        while view:
            count = os.readv(connection.fileno(), [view])
            if not count:
                raise EOFError
            view = view[count:]
    return pickle.loads(data, buffers=arrays)
