# SPDX-License-Identifier: Apache-2.0
"""The end of a benchmark that computes: one candidate in a process that answers requests.

A process per candidate keeps memory peaks and thread pools apart.  This module uses the standard
library alone, so that any interpreter can serve.  Requests and answers are lines of JSON on stdin
and stdout (the other end: benchmarks/harness/process.py).
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
    """This candidate cannot take part here; the message says why."""


@dataclass
class Work:
    """What a candidate repeats, and what belongs to it.

    Parameters
    ----------
    step
        Does one step and waits until it is done; returns a number that candidates with the same
        work agree on, such as the loss.  Takes a function, which it calls when the backward pass is
        complete and the update of the weights begins.
    state_bytes
        Weights, and their gradients and momentum as far as they are kept: what the memory of a
        step is counted on top of.
    parameters
        Number of trained values.
    versions
        Of the libraries that compute.
    begin
        Called before the steps of each request, whose time it is not part of.
    profile
        Does the given number of steps; returns the milliseconds that each operator took.
    end
        Called after the steps of each request, whose time it is not part of; what it returns is
        part of the answer.
    """

    step: Callable[[Callable[[], None]], float]
    state_bytes: int
    parameters: int
    versions: dict[str, str]
    begin: Callable[[], None] = lambda: None
    profile: Callable[[int], dict[str, float]] | None = None
    end: Callable[[], dict[str, float]] = dict


def serve(build: Callable[..., Work], warm: Callable[[], None]) -> None:
    """Build what ``sys.argv[1]`` says, tell so, and answer requests until stdin ends.

    Parameters
    ----------
    build
        Called with the settings as keywords.
    warm
        Called before: a first small computation, so that what the library itself takes (code,
        threads) is not counted as memory of a step.
    """
    # Libraries print to stdout: that goes to stderr from here on, the answers to where it went.
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
    # Nor is memory that building leaves unused in the allocator.
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
        # After the other candidates' turns nothing of this one is in the caches.
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
    """Do steps; return what `timed` does of each.

    Parameters
    ----------
    interval
        Seconds to sleep after each step: what a device computes with that which the step gave.
    most_s
        Once the steps have taken more seconds than these, without the sleeping, no other starts.
    """
    times: list[tuple[float, float | None, float]] = []
    taken = 0.0
    while len(times) < count and taken <= most_s:
        times.append(timed(work))
        taken += times[-1][0]
        if interval and taken <= most_s:
            time.sleep(interval)
    return times


def timed(work: Work) -> tuple[float, float | None, float]:
    """Do a step; return its seconds, those before the update (None: not marked), its number."""
    marks: list[float] = []
    start = time.perf_counter()
    value = work.step(lambda: marks.append(time.perf_counter()))
    end = time.perf_counter()
    return end - start, marks[0] - start if marks else None, value


def read_mib(key: str) -> float:
    """Return a size of this process from /proc/self/status, such as VmRSS or VmHWM, in MiB."""
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) / 1024 for line in status if line.startswith(key + ":"))


def reset_peak() -> None:
    """Let VmHWM begin at what is resident now; where the kernel refuses, it stays."""
    try:
        with open("/proc/self/clear_refs", "w") as references:
            references.write("5")
    except OSError:
        pass


def _send(answers: TextIO, **answer: Any) -> None:
    answers.write(json.dumps(answer) + "\n")
    answers.flush()
