# SPDX-License-Identifier: Apache-2.0
"""Start the ranks of one implementation; pass requests from stdin to them, and answers to stdout.

benchmarks/harness/process.py starts this module just like an implementation that runs in a single
process: requests come on stdin and answers go to stdout, as lines of JSON.  Each rank runs
`benchmarks.harness.worker.serve` and is connected to this process by a Unix socket.  An answer
combines the answers of all ranks.  This module needs only the standard library, so any Python
interpreter can run it.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from benchmarks.harness.worker import RANK_VARIABLE, SIZE_VARIABLE, SOCKET_VARIABLE

POLL_S = 1.0
END_TIMEOUT_S = 8.0
"""Shorter than the 10 s after which `benchmarks.harness.process` kills this process."""


class RankError(RuntimeError):
    """Error for a rank that ended before it answered."""


@dataclass
class Link:
    """Connection to one rank."""

    requests: TextIO
    answers: TextIO


def main(text: str) -> int:
    """Start the ranks, and serve requests until stdin is closed; return the exit status.

    Parameters
    ----------
    text
        JSON with ``ranks`` (number of ranks), ``launcher`` ("horovodrun", or "none" for ranks that
        connect to each other on their own), ``module`` (module of each rank) and ``settings``
        (keyword arguments of the module's ``build``).
    """
    settings = json.loads(text)
    # Ranks and their launcher print to stdout.  Redirect that output to stderr, and keep stdout for
    # the answers.
    own_answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        server = stack.enter_context(socket.socket(socket.AF_UNIX))
        path = str(Path(folder, "ranks"))
        server.bind(path)
        server.listen()
        started = start(settings, path)
        stack.callback(end, started)
        try:
            links = accept(server, settings["ranks"], started)
            answers = [receive(link) for link in links]
            print(json.dumps(combine_hellos(answers)), file=own_answers, flush=True)
            for line in sys.stdin:
                for link in links:
                    print(line.rstrip("\n"), file=link.requests, flush=True)
                answer = combine([receive(link) for link in links])
                print(json.dumps(answer), file=own_answers, flush=True)
        except (RankError, OSError) as error:
            print(f"ranks: {error}", file=sys.stderr)
            return 1
        for link in links:
            link.requests.close()
            link.answers.close()
    return 0


def start(settings: dict[str, Any], path: str) -> list[subprocess.Popen[bytes]]:
    """Start the ranks, directly or with horovodrun; they connect to the Unix socket ``path``."""
    ranks = settings["ranks"]
    command = [sys.executable, "-m", settings["module"], json.dumps(settings["settings"])]
    threads = str(max(1, len(os.sched_getaffinity(0)) // ranks))
    variables = {f"{library}_NUM_THREADS": threads for library in ("OMP", "OPENBLAS", "MKL")}
    environment = {**os.environ, **variables, SOCKET_VARIABLE: path, SIZE_VARIABLE: str(ranks)}
    if settings["launcher"] == "horovodrun" and ranks > 1:
        horovodrun = str(Path(sys.executable).with_name("horovodrun"))
        command = [horovodrun, "--gloo", "-np", str(ranks), *command]
        return [subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL)]
    return [
        subprocess.Popen(
            command, env={**environment, RANK_VARIABLE: str(rank)}, stdin=subprocess.DEVNULL
        )
        for rank in range(ranks)
    ]


def end(started: Sequence[subprocess.Popen[bytes]]) -> None:
    """Wait for the end of processes whose connections are closed; stop processes that are late."""
    deadline = time.monotonic() + END_TIMEOUT_S
    for process in started:
        try:
            process.wait(timeout=max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGTERM)  # After this signal, horovodrun ends its ranks.
            process.wait()


def accept(
    server: socket.socket, ranks: int, started: Sequence[subprocess.Popen[bytes]]
) -> list[Link]:
    """Return the connections to all ranks, in the order of the ranks.

    Raises
    ------
    RankError
        If a started process ends before all ranks are connected.
    """
    found: dict[int, Link] = {}
    while len(found) < ranks:
        if any(process.poll() is not None for process in started):
            raise RankError("a rank ended before it was ready; see its messages above")
        if not select.select([server], [], [], POLL_S)[0]:
            continue
        connection, _ = server.accept()
        link = Link(connection.makefile("w"), connection.makefile("r"))
        found[receive(link)["rank"]] = link
        connection.close()  # The two files of the link keep the connection open.
    return [found[rank] for rank in range(ranks)]


def receive(link: Link) -> dict[str, Any]:
    """Return the next answer of a rank; raise RankError if the rank has ended."""
    line = link.answers.readline()
    if not line:
        raise RankError("a rank ended before it answered; see its messages above")
    return json.loads(line)


def combine_hellos(hellos: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Combine the first messages of all ranks: sum of the parameters, versions of rank 0.

    If a rank cannot run, the result is its message with the reason (``left_out``).
    """
    for hello in hellos:
        if "left_out" in hello:
            return hello
    return {**hellos[0], "parameters": sum(hello["parameters"] for hello in hellos)}


def combine(answers: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Combine the answers of all ranks to one request.

    A step takes as long as on the slowest rank.  ``value`` is the mean over the ranks.  Memory in
    ``peak_mib`` and ``extra_mib`` is that of all ranks together, and ``rank_peak_mib`` lists the
    peak of each rank.  Every other number is the largest among the ranks.
    """
    keys = answers[0].keys()
    combined: dict[str, Any] = {key: max(answer[key] for answer in answers) for key in keys}
    for key in ("seconds", "seconds_without_update"):
        parts = [answer[key] for answer in answers]
        combined[key] = [max(times) for times in zip(*parts, strict=True)]
    for key in ("peak_mib", "extra_mib"):
        combined[key] = sum(answer[key] for answer in answers)
    combined["value"] = statistics.fmean(answer["value"] for answer in answers)
    combined["rank_peak_mib"] = [answer["peak_mib"] for answer in answers]
    return combined


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
