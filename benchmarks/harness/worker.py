# SPDX-License-Identifier: Apache-2.0
"""Run and time the steps of one implementation when benchmarks/harness/process.py requests them.

A step is the unit of work that a benchmark times, such as a training step.  Each implementation has
its own process, so that memory peaks and thread pools are separate.  Requests come on stdin and
answers go to stdout, as lines of JSON.  This module needs only the standard library, so any Python
interpreter can run it.
"""

from __future__ import annotations

import ctypes
import json
import math
import os
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TextIO

MIB = 1024.0 * 1024.0
SOCKET_VARIABLE, RANK_VARIABLE = "BENCHMARK_SOCKET", "BENCHMARK_RANK"
SIZE_VARIABLE = "BENCHMARK_RANKS"
"""Environment variables of a rank that `benchmarks.harness.ranks` starts: path of the Unix socket
for requests and answers, number of this rank, number of ranks.  horovodrun sets its own variable
for the number of the rank."""


class LeftOut(Exception):
    """Error for an implementation that cannot run on this machine; the message says why."""


@dataclass
class Work:
    """Work that a process runs on request: the function to time, and facts about that function.

    Parameters
    ----------
    step
        Function that runs one step, waits for its end, and returns a value, such as the loss.  The
        argument of ``step`` is a function that records the time.  To measure the time without the
        update of the weights, ``step`` calls that function before the update.
    state_bytes
        Bytes of weights, gradients and momentum, which ``extra_mib`` excludes.
    parameters
        Number of trained values.
    versions
        Versions of the libraries that compute the step, by library name.
    begin
        Function to call before the steps of each request; the call is not timed.
    profile
        Function that runs a given number of steps and returns the milliseconds per step of each
        operator.
    end
        Function to call after the steps of each request; the call is not timed.  The entries of the
        dictionary that ``end`` returns become part of the answer.
    """

    step: Callable[[Callable[[], None]], float]
    state_bytes: int
    parameters: int
    versions: dict[str, str]
    begin: Callable[[], object] = lambda: None
    profile: Callable[[int], dict[str, float]] | None = None
    end: Callable[[], dict[str, float]] = dict


def serve(build: Callable[..., Work], warm: Callable[[], None]) -> None:
    """Build the `Work`, then run its steps on request until there are no more requests.

    Requests come from stdin and answers go to stdout.  A rank of `benchmarks.harness.ranks` uses a
    Unix socket instead.

    Parameters
    ----------
    build
        Function that returns the `Work`; its keyword arguments are the JSON in ``sys.argv[1]``.
    warm
        Function that runs a small computation before ``build``, so that the library's own code and
        threads do not count as memory of a step.
    """
    requests, answers = _connect()
    warm()
    base = read_mib("VmRSS")
    try:
        work = build(**json.loads(sys.argv[1]))
    except LeftOut as reason:
        _send(answers, left_out=str(reason))
        return
    before = read_mib("VmHWM")
    # Return freed memory to the system, so that it does not count as memory of a step.
    ctypes.CDLL(None).malloc_trim(0)
    reset_peak()
    _send(answers, parameters=work.parameters, versions=work.versions)
    for line in requests:
        request = json.loads(line)
        if "profile" in request:
            _send(answers, profile=work.profile(request["profile"]) if work.profile else {})
            continue
        work.begin()
        interval = request.get("interval", 0.0)
        # The untimed steps warm the CPU caches, which other processes have used in the meantime.
        repeat(work, request.get("untimed", 0), interval)
        start = time.perf_counter()
        times = repeat(work, request["steps"], interval, request.get("most_s", math.inf))
        elapsed = time.perf_counter() - start
        more = work.end()
        peak = read_mib("VmHWM")
        _send(
            answers,
            seconds=[total for total, _, _ in times],
            seconds_without_update=[part for _, part, _ in times if part is not None],
            elapsed=elapsed,
            value=times[-1][2],
            peak_mib=max(peak, before),
            extra_mib=peak - base - work.state_bytes / MIB,
            **more,
        )


def repeat(
    work: Work, count: int, interval: float = 0.0, most_s: float = math.inf
) -> list[tuple[float, float | None, float]]:
    """Run ``count`` steps; return the results of `timed` for each step.

    Parameters
    ----------
    interval
        Seconds to sleep after each step, to simulate the computation of a device.
    most_s
        Total seconds of the steps, without the sleeps, after which no further step starts.
    """
    times: list[tuple[float, float | None, float]] = []
    total_s = 0.0
    while len(times) < count and total_s <= most_s:
        times.append(timed(work))
        total_s += times[-1][0]
        if interval and total_s <= most_s:
            time.sleep(interval)
    return times


def timed(work: Work) -> tuple[float, float | None, float]:
    """Run a step; return the triple (seconds, seconds before the update, value of the step).

    The second entry is None if the step does not mark the start of the update.
    """
    marks: list[float] = []
    start = time.perf_counter()
    value = work.step(lambda: marks.append(time.perf_counter()))
    end = time.perf_counter()
    return end - start, marks[0] - start if marks else None, value


def read_mib(key: str) -> float:
    """Return the entry ``key`` of /proc/self/status, such as VmRSS (resident memory), in MiB."""
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) / 1024 for line in status if line.startswith(key + ":"))


def reset_peak() -> None:
    """Reset the peak memory VmHWM to the current resident memory, if the kernel allows that."""
    try:
        with open("/proc/self/clear_refs", "w") as references:
            references.write("5")
    except OSError:
        pass


def _connect() -> tuple[TextIO, TextIO]:
    """Return the streams of requests and answers."""
    if path := os.environ.get(SOCKET_VARIABLE):
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(path)
        answers = connection.makefile("w")
        _send(answers, rank=own_rank())
        return connection.makefile("r"), answers
    # Libraries print to stdout.  Redirect that output to stderr, and keep stdout for the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return sys.stdin, answers


def own_rank() -> int:
    """Return the number of this rank."""
    return int(os.environ.get(RANK_VARIABLE, os.environ.get("HOROVOD_RANK", "0")))


def _send(answers: TextIO, **answer: Any) -> None:
    answers.write(json.dumps(answer) + "\n")
    answers.flush()
