# SPDX-License-Identifier: Apache-2.0
"""Serve the steps of one candidate to benchmarks/harness/process.py.

Each candidate has its own process, which separates memory peaks and thread pools.  Requests come
on stdin and answers go to stdout, as lines of JSON.  This module needs the standard library only,
so any Python interpreter can run it.
"""

from __future__ import annotations

import ctypes
import json
import math
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TextIO

MIB = 1024.0 * 1024.0


class LeftOut(Exception):
    """The candidate cannot run on this machine; the message gives the reason."""


@dataclass
class Work:
    """Step of a candidate and the figures that belong to it.

    Parameters
    ----------
    step
        Function that runs one step and waits for its end.  Its argument is a function that it
        calls between the backward pass and the update of the weights.  It returns a value, such
        as the loss, that must agree between candidates that do the same work.
    state_bytes
        Bytes of weights, gradients and momentum; ``extra_mib`` does not count them.
    parameters
        Number of trained values.
    versions
        Versions of the libraries that compute.
    begin
        Function to call before the steps of each request; it is not timed.
    profile
        Function that runs a number of steps and returns the milliseconds per operator.
    end
        Function to call after the steps of each request; it is not timed.  The answer includes
        the entries that it returns.
    """

    step: Callable[[Callable[[], None]], float]
    state_bytes: int
    parameters: int
    versions: dict[str, str]
    begin: Callable[[], object] = lambda: None
    profile: Callable[[int], dict[str, float]] | None = None
    end: Callable[[], dict[str, float]] = dict


def serve(build: Callable[..., Work], warm: Callable[[], None]) -> None:
    """Build the work, send a first answer, and serve requests until stdin is closed.

    Parameters
    ----------
    build
        Function that makes the work from the settings in ``sys.argv[1]``.
    warm
        Function that runs a small computation before ``build``, so that the library's own code and
        threads do not count as memory of a step.
    """
    # Libraries print to stdout: send their output to stderr and keep stdout for the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    warm()
    base = read_mib("VmRSS")
    try:
        work = build(**json.loads(sys.argv[1]))
    except LeftOut as reason:
        _send(answers, left_out=str(reason))
        return
    before = read_mib("VmHWM")
    # Memory that `build` has freed does not count as memory of a step either.
    ctypes.CDLL(None).malloc_trim(0)
    reset_peak()
    _send(answers, parameters=work.parameters, versions=work.versions)
    for line in sys.stdin:
        request = json.loads(line)
        if "profile" in request:
            _send(answers, profile=work.profile(request["profile"]) if work.profile else {})
            continue
        work.begin()
        interval = request.get("interval", 0.0)
        # The other candidates have emptied the CPU caches since the last turn.
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
    """Run steps; return the result of `timed` for each.

    Parameters
    ----------
    interval
        Seconds to sleep after each step, which simulate the computation on a device.
    most_s
        Seconds that the steps may take, without the sleeping; no step starts after them.
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
    """Run a step; return its seconds, its seconds before the update if marked, and its value."""
    marks: list[float] = []
    start = time.perf_counter()
    value = work.step(lambda: marks.append(time.perf_counter()))
    end = time.perf_counter()
    return end - start, marks[0] - start if marks else None, value


def read_mib(key: str) -> float:
    """Return a memory size of this process, such as VmRSS or VmHWM in /proc/self/status, in MiB."""
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) / 1024 for line in status if line.startswith(key + ":"))


def reset_peak() -> None:
    """Reset the peak memory VmHWM to the resident memory, if the kernel allows it."""
    try:
        with open("/proc/self/clear_refs", "w") as references:
            references.write("5")
    except OSError:
        pass


def _send(answers: TextIO, **answer: Any) -> None:
    answers.write(json.dumps(answer) + "\n")
    answers.flush()
