# SPDX-License-Identifier: Apache-2.0
"""Process numbered pieces of work in several processes, and return the results in order."""

from __future__ import annotations

import gc
import multiprocessing
import os
import pickle
import signal
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any

import cv2
import numpy as np

from launch.ranks.lifeline import end_with_parent

MAX_PROCESSES = 256
_PIECES_PER_WORKER = 2  # one in progress and one queued, so that a worker never waits


class WorkerError(ValueError):
    """Error for a process that ended early."""


def choose_processes(count: int | None) -> int:
    """Return the value of ``--processes``, or one process for each core if the value is None.

    Raises
    ------
    ValueError
        If the value is out of range.
    """
    if count is None:
        return min(len(os.sched_getaffinity(0)), MAX_PROCESSES)
    if not 1 <= count <= MAX_PROCESSES:
        raise ValueError(
            f"--processes: must be in 1 .. {MAX_PROCESSES}, got {count}; one per core is usual"
        )
    return count


class WorkerPool:
    """Forked processes that call one function with the numbers of pieces.

    Piece number k goes to process k modulo ``processes``.  The processes end when the pool is
    closed, and also when the process that made the pool is killed.

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
        with _one_opencv_thread(), _no_collection():
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


@contextmanager
def _one_opencv_thread() -> Iterator[None]:
    """Run OpenCV with one thread inside a ``with`` block, and in processes forked there.

    The threads of OpenCV do not exist in a forked process.  If OpenCV had threads before the fork,
    the forked process would wait forever as soon as OpenCV uses them or changes their number.
    """
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(threads)


@contextmanager
def _no_collection() -> Iterator[None]:
    """Switch the garbage collector off inside a ``with`` block, and in processes forked there."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _serve(
    connection: Connection,
    others: list[Connection],
    make_worker: Callable[[], Callable[[int], Any]],
    parent: int,
) -> None:
    """Receive numbers of pieces and send the results, until the other end of the pipe closes."""
    # Never collect garbage of the parent: its finalizers may wait for threads of the parent, which
    # do not exist here.
    gc.freeze()
    gc.enable()
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
